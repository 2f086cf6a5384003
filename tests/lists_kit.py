"""Folders that come by their host's list, hosts that answer as their API is documented, and what a build has then."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from build_kit import write_toml
from download_kit import FAST, lab, sha256
from fault_server import FaultServer, fault_server

from medcurate.build.fetch import Network, ensure
from medcurate.config.source import Source
from medcurate.download import listing
from medcurate.forecast.inputs import Inputs
from medcurate.forecast.plan import forecast
from medcurate.library import resolve
from medcurate.tables import check_model

COMMIT, LATER = "c" * 40, "d" * 40
CASES = {"a_i.nii.gz": b"image a", "a_l.nii.gz": b"label a", "b/b_i.nii.gz": b"image b"}


@contextmanager
def listing_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultServer]:
    """A server that the hub's addresses lead to too; lists are asked for without long waits."""
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(listing, "Policy", lambda: FAST)
    with fault_server() as state:
        monkeypatch.setenv("HF_ENDPOINT", state.url)
        yield state


def source(*folders: dict[str, object]) -> Source:
    plain = lab().model_dump(exclude_defaults=True, mode="json")
    return check_model({**plain, "folders": folders}, Source, "test")


def plan_of(found: Source, data: Path) -> Inputs:
    """What ``medcurate plan`` says of the files of one source."""
    path = write_toml(data / "plan" / "lab.toml", found.model_dump(exclude_defaults=True, mode="json"))
    facts = {"name": "r", "title": "", "sources": [path.name], "intensity": {"ct": {"rule": "minmax"}}}
    resolved = resolve(str(write_toml(data / "plan" / "recipe.toml", facts)))
    (row,) = forecast(resolved, data, data / "out", 1).sources
    return row.inputs


def have(found: Source, data: Path) -> Path:
    (folder,) = ensure([found], data, {found.id: data}, Network())
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """All visible files below ``folder``."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in files
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }


def hub(server, files=CASES, *, commit=COMMIT, stated=sha256, large=True):
    """A dataset repository: the commit of the day, its tree, and files (in large-file storage) at that commit."""
    server.serve("/api/datasets/org/set", json.dumps({"id": "org/set", "sha": commit}).encode())
    server.serve(f"/api/datasets/org/set/revision/{commit}", server.objects["/api/datasets/org/set"].content)
    tree = [{"type": "directory", "path": "train/b", "oid": "1" * 40, "size": 0}]
    for name, content in files.items():
        lfs = {"oid": stated(content), "size": len(content), "pointerSize": 130}
        path = f"train/{name}"
        stored = {"lfs": lfs} if large else {}
        tree.append({"type": "file", "path": path, "oid": "2" * 40, "size": len(content), **stored})
        headers = {"X-Repo-Commit": commit}
        if large:
            headers |= {"X-Linked-Size": str(len(content)), "X-Linked-Etag": f'"{sha256(content)}"'}
        server.serve(f"/datasets/org/set/resolve/{commit}/{path}", content, headers=headers)
    return server.serve(f"/api/datasets/org/set/tree/{commit}/train", json.dumps(tree).encode())


def on_hub(**facts) -> Source:
    return source({"into": "data", "huggingface": "org/set", "resource": "train", **facts})


def dataverse(server, files=CASES, first=40, **changes):
    """The native API's list of a dataset, and its files by number, from ``first``."""
    version = {"status": "OK", "data": {"versionNumber": 2, "versionMinorNumber": 1}}
    server.serve("/api/datasets/:persistentId/versions/:latest-published", json.dumps(version).encode())
    listed = []
    for number, (name, content) in enumerate(files.items(), start=first):
        place, _, last = f"train/{name}".rpartition("/")
        checksum = {"type": "MD5", "value": hashlib.md5(content).hexdigest()}
        facts = {"id": number, "filename": last, "filesize": len(content), "checksum": checksum}
        entry = {"label": last, "restricted": False, "directoryLabel": place, "dataFile": facts}
        listed.append(entry | changes)
        server.serve(f"/api/access/datafile/{number}", content)
    listed.append({"label": "readme.txt", "restricted": False, "dataFile": {"id": 7, "filesize": 1}})
    answer = json.dumps({"status": "OK", "data": listed}).encode()
    return server.serve("/api/datasets/:persistentId/versions/2.1/files", answer)


def on_dataverse(server, **facts) -> Source:
    folder = {"into": "data", "dataverse": "doi:10.1/AB", "server": server.url, "resource": "train"}
    return source({**folder, **facts})
