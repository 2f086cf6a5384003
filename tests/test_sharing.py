"""One archive that several sources name is fetched once, unpacked once by equal rules, and lies on the disk once."""

from __future__ import annotations

import io
import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
from download_kit import lab, sha256
from fault_server import FaultServer, fault_server

from medcurate.build import stamps
from medcurate.build.fetch import OFFLINE, Network, collect, ensure
from medcurate.commit import write_json
from medcurate.config.folder import Folder
from medcurate.config.source import Source
from medcurate.download.listing import LIST_FILE
from medcurate.download.lockfile import LOCK_FILE, LockFile
from medcurate.download.types import DownloadError, SourceChangedError
from medcurate.errors import ConfigError, DataMissing
from medcurate.library import load_source, packaged_sources, source_ids
from medcurate.tables import check_model
from medcurate.unpack.clone import clone
from medcurate.unpack.record import RECORD_FILE
from medcurate.zips import inside
from medcurate.zips.inside import INDEX_FILE

MEMBERS = {f"top/{kind}/{n}.bin": f"{kind}{n}".encode() * 5000 for kind in ("ct", "mr") for n in range(3)}


def zipped(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


ARCHIVE = zipped(MEMBERS)


@pytest.fixture
def server():
    with fault_server() as running:
        yield running


def source(name: str, *files: dict[str, Any]) -> Source:
    facts = lab().model_dump(mode="json", exclude_defaults=True)
    return check_model({**facts, "id": name, "files": files}, Source, "test")


def file(
    server: FaultServer, *include: str, sha: str | None = sha256(ARCHIVE), **facts: Any
) -> dict[str, Any]:
    found = {
        "path": "set.zip",
        "origin": {"url": f"{server.url}/set.zip"},
        "unpack": {"into": "set", "strip": 1, "include": include},
        **facts,
    }
    return found | ({"sha256": sha} if sha else {})


def have(data: Path, *sources: Source, network: Network | None = None) -> None:
    collect(sources, data, {one.id: data for one in sources}, network or Network())


def inode(path: Path) -> int:
    return path.stat().st_ino


def whole(folder: Path) -> bool:
    """Whether all of the archive is in ``folder``, as files."""
    files = {
        f"top/{path.relative_to(folder).as_posix()}": path
        for path in folder.rglob("*.bin")
        if path.is_file() and not path.is_symlink()
    }
    return {name: path.read_bytes() for name, path in files.items()} == MEMBERS


def remember(folder: Path, content: bytes) -> None:
    """Have ``folder`` record that its archive was ``content`` when it came, which has gone since."""
    folder.mkdir()
    LockFile(folder).put("set.zip", sha256=sha256(content), size_bytes=len(content), url="")


@pytest.mark.parametrize("sha", [sha256(ARCHIVE), None], ids=["digest", "none"])
def test_it_is_fetched_and_unpacked_once(tmp_path, server, sha):
    served = server.serve("/set.zip", ARCHIVE)
    have(tmp_path, *(source(name, file(server, sha=sha)) for name in ("b-two", "a-one", "c-three")))
    assert len(served.requests) == 1
    for name in MEMBERS:
        paths = [
            tmp_path / one / "set" / Path(name).relative_to("top") for one in ("a-one", "b-two", "c-three")
        ]
        assert len({inode(path) for path in paths}) == 1
        assert paths[0].read_bytes() == MEMBERS[name]
    recorded = LockFile(tmp_path / "b-two").get("set.zip")
    assert recorded is not None
    assert recorded.sha256 == sha256(ARCHIVE)


def test_other_rules_share_the_archive_and_unpack_what_they_want(tmp_path, server):
    served = server.serve("/set.zip", ARCHIVE)
    have(tmp_path, source("ct", file(server, "top/ct/*")), source("mr", file(server, "top/mr/*")))
    assert len(served.requests) == 1
    assert inode(tmp_path / "ct/set.zip") == inode(tmp_path / "mr/set.zip")
    for name, other in (("ct", "mr"), ("mr", "ct")):
        assert (tmp_path / name / "set" / name / "0.bin").read_bytes() == MEMBERS[f"top/{name}/0.bin"]
        assert not (tmp_path / name / "set" / other).exists()


@pytest.mark.parametrize("together", [True, False])
def test_what_patterns_of_two_sources_share_lies_on_the_disk_once(tmp_path, server, together):
    server.serve("/set.zip", ARCHIVE)
    ct, both = source("ct", file(server, "top/ct/*")), source("both", file(server, "top/*/0.bin"))
    for wanted in ((ct, both),) if together else ((ct,), (ct, both)):
        have(tmp_path, *wanted)
    assert inode(tmp_path / "both/set/ct/0.bin") == inode(tmp_path / "ct/set/ct/0.bin")
    assert (tmp_path / "both/set/mr/0.bin").read_bytes() == MEMBERS["top/mr/0.bin"]


def test_one_index_serves_all_that_read_an_archive_in_place(tmp_path, server):
    """As the sources of the SA-Med2D release: making the index of millions of members takes long."""
    served = server.serve("/set.zip", ARCHIVE)
    facts = file(server, unpack={"into": "set", "strip": 1, "in_place": True})
    other = file(server, unpack={"into": "deep/er/set", "strip": 1, "in_place": True})
    have(tmp_path, *(source(name, facts) for name in ("one", "two")), source("three", other))
    assert len(served.requests) == 1
    indexes = [next((tmp_path / name).rglob(INDEX_FILE)) for name in ("one", "two", "three")]
    assert inode(indexes[0]) == inode(indexes[1]) != inode(indexes[2])
    for index in indexes:
        assert inside.read(index.parent / "mr/2.bin", 1 << 20) == MEMBERS["top/mr/2.bin"]
    # Another archive has an index of its own.
    (tmp_path / "two/set.zip").unlink()
    (tmp_path / "two/set.zip").write_bytes(zipped({"top/new.bin": b"new"}))
    changed = source("two", {**facts, "sha256": sha256((tmp_path / "two/set.zip").read_bytes())})
    have(tmp_path, source("one", facts), changed)
    assert inside.read(tmp_path / "two/set/new.bin", 100) == b"new"
    assert inside.read(tmp_path / "one/set/mr/2.bin", 1 << 20) == MEMBERS["top/mr/2.bin"]


def test_a_shared_folder_is_known_as_unpacked_and_survives_its_twin(tmp_path, server):
    server.serve("/set.zip", ARCHIVE)
    pair = [source("one", file(server)), source("two", file(server))]
    have(tmp_path, *pair)
    (tmp_path / "one/set/ct/0.bin").unlink()
    (tmp_path / "one/set.zip").unlink()
    before = inode(tmp_path / "two/set")
    ensure(pair[1:], tmp_path, {"two": tmp_path}, OFFLINE)
    assert inode(tmp_path / "two/set") == before
    assert (tmp_path / "two/set/ct/0.bin").read_bytes() == MEMBERS["top/ct/0.bin"]


def test_the_part_of_either_source_is_continued(tmp_path, server):
    """The source that has most of it goes on, whichever is named first."""
    served = server.serve("/set.zip", ARCHIVE)
    folder, half = tmp_path / "two", len(ARCHIVE) // 2
    folder.mkdir()
    (folder / "set.zip.part").write_bytes(ARCHIVE[:half])
    state = {
        "url": f"{server.url}/set.zip",
        "etag": served.etag,
        "last_modified": "",
        "size_bytes": len(ARCHIVE),
    }
    write_json(folder / "set.zip.part.json", state)
    have(tmp_path, source("one", file(server)), source("two", file(server)))
    assert [request["range"] for request in served.requests] == [f"bytes={half}-"]
    assert (tmp_path / "one/set/mr/2.bin").read_bytes() == MEMBERS["top/mr/2.bin"]


def test_a_damaged_copy_of_another_source_is_not_taken(tmp_path, server):
    served = server.serve("/set.zip", ARCHIVE)
    (tmp_path / "one").mkdir()
    (tmp_path / "one/set.zip").write_bytes(ARCHIVE[:-1] + b"x")
    with pytest.raises(ConfigError, match=r"one.*expected sha256"):
        have(tmp_path, source("two", file(server, "top/ct/*")), source("one", file(server)))
    assert len(served.requests) == 1
    assert (tmp_path / "two/set/ct/0.bin").is_file()


def test_equal_names_and_instructions_of_other_pages_are_other_files(tmp_path, server):
    by_hand = {"origin": {"by_hand": "Ask."}}
    one = source("one", file(server, sha=None, **by_hand))
    two = one.model_copy(update={"id": "two", "homepage": "https://example.org/other"})
    (tmp_path / "one").mkdir()
    (tmp_path / "one/set.zip").write_bytes(ARCHIVE)
    with pytest.raises(DataMissing, match=r"(?s)two.*set\.zip"):
        have(tmp_path, one, two)
    same = one.model_copy(update={"id": "three"})
    have(tmp_path, one, same)
    assert inode(tmp_path / "one/set/ct/0.bin") == inode(tmp_path / "three/set/ct/0.bin")


def test_what_a_person_must_get_for_two_sources_is_asked_for_once(tmp_path, server):
    pair = [source(name, file(server, sha=None, origin={"by_hand": "Ask."})) for name in ("one", "two")]
    with pytest.raises(DataMissing) as caught:
        have(tmp_path, *pair)
    assert str(caught.value).count("set.zip") == 1


def test_one_source_may_name_a_file_twice(tmp_path, server):
    served = server.serve("/set.zip", ARCHIVE)
    copies = [
        {k: v for k, v in file(server, path=path).items() if k != "unpack"} for path in ("a.zip", "b.zip")
    ]
    have(tmp_path, source("one", *copies))
    assert len(served.requests) == 1
    assert inode(tmp_path / "one/a.zip") == inode(tmp_path / "one/b.zip")


def test_a_packaged_neighbour_that_came_earlier_has_it(tmp_path, monkeypatch):
    """The two sources of COVID-QU-Ex: the archive that a person got for one is there for the other."""
    for name in ("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY"):
        monkeypatch.delenv(name, raising=False)
    folders = ("Lung Segmentation Data", "Infection Segmentation Data")
    members = {f"{folder}/{folder}/Train/COVID-19/images/a.png": folder.encode() for folder in folders}
    (tmp_path / "covid-qu-ex").mkdir()
    (tmp_path / "covid-qu-ex/covidqu.zip").write_bytes(zipped(members))
    infection = load_source("covid-qu-ex-infection")
    collect([infection], tmp_path, {infection.id: packaged_sources()}, Network())
    made = tmp_path / infection.id / folders[1] / "Train/COVID-19/images/a.png"
    assert made.read_bytes() == folders[1].encode()
    assert inode(tmp_path / infection.id / "covidqu.zip") == inode(tmp_path / "covid-qu-ex/covidqu.zip")
    assert (tmp_path / infection.id / LOCK_FILE).is_file()


def test_a_collection_that_two_sources_list_comes_once(tmp_path, server, monkeypatch):
    """As the sources of PleThora name the scans of NSCLC-Radiomics."""
    monkeypatch.setenv("NBIA_ENDPOINT", server.url)
    series = [{"SeriesInstanceUID": uid, "Modality": "CT", "PatientID": "p"} for uid in ("1.2", "1.3")]
    server.serve("/getSeries", json.dumps(series).encode())
    served = [
        server.serve(f"/getImage?SeriesInstanceUID={uid}", zipped({"a.dcm": uid.encode()}))
        for uid in ("1.2", "1.3")
    ]
    folder = {"into": "scans", "nbia": "A Collection"}
    pair = [source("one").model_copy(update={"folders": (Folder.model_validate(folder),)})]
    pair.append(pair[0].model_copy(update={"id": "two"}))
    have(tmp_path, *pair)
    assert [len(each.requests) for each in served] == [1, 1]
    for uid in ("1.2", "1.3"):
        first, second = (tmp_path / name / "scans" / uid / "a.dcm" for name in ("one", "two"))
        assert inode(first) == inode(second)
        assert second.read_bytes() == uid.encode()


def test_no_hard_links_means_a_copy(tmp_path, server, monkeypatch):
    served = server.serve("/set.zip", ARCHIVE)

    def refused(*_: object, **__: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("os.link", refused)
    have(tmp_path, source("one", file(server)), source("two", file(server)))
    assert len(served.requests) == 1
    for name in ("one", "two"):
        assert (tmp_path / name / "set.zip").read_bytes() == ARCHIVE
        assert (tmp_path / name / "set/mr/0.bin").read_bytes() == MEMBERS["top/mr/0.bin"]


def test_what_came_is_refused_to_the_source_that_recorded_other_bytes(tmp_path, server):
    served = server.serve("/set.zip", ARCHIVE)
    remember(tmp_path / "two", b"of last month")
    pair = [source(name, file(server, sha=None)) for name in ("one", "two")]
    with pytest.raises(
        SourceChangedError, match=r"set\.zip of two: expected 13 bytes \(recorded on .* changed"
    ):
        have(tmp_path, *pair)
    assert len(served.requests) == 1
    assert whole(tmp_path / "one/set")
    with pytest.raises(DownloadError, match=r"set\.zip of two"):  # and so later, when the other has its file
        ensure(pair, tmp_path, {"one": tmp_path, "two": tmp_path}, Network())
    assert not (tmp_path / "two/set.zip").exists()


def test_a_source_that_recorded_other_bytes_keeps_no_other_from_its_file(tmp_path, server):
    server.serve("/set.zip", ARCHIVE)
    remember(tmp_path / "one", b"x" * len(ARCHIVE))
    with pytest.raises(SourceChangedError, match=r"set\.zip of one"):
        have(tmp_path, *(source(name, file(server, sha=None)) for name in ("one", "two")))
    assert whole(tmp_path / "two/set")


def test_an_archive_made_on_request_need_not_be_the_recorded_one(tmp_path, server):
    served = server.serve("/set.zip", ARCHIVE)
    remember(tmp_path / "two", b"made at another time")
    facts = {"sha": None, "made_on_request": True}
    have(tmp_path, source("one", file(server, "top/ct/*", **facts)), source("two", file(server, **facts)))
    assert len(served.requests) == 1
    assert whole(tmp_path / "two/set")


def test_nobody_is_asked_for_what_comes_to_another_source_by_itself(tmp_path, server):
    server.serve("/set.zip", ARCHIVE)
    asked = source("one", file(server, origin={"by_hand": "Ask."}))
    have(tmp_path, asked, source("two", file(server)))
    assert whole(tmp_path / "one/set")


def test_the_addresses_of_all_sources_are_tried(tmp_path, server):
    server.serve("/set.zip", ARCHIVE)
    moved = source("one", file(server, origin={"url": f"{server.url}/moved.zip"}))
    have(tmp_path, moved, source("two", file(server)))
    assert whole(tmp_path / "one/set")


def test_a_folder_that_somebody_placed_is_no_other_sources(tmp_path, server):
    server.serve("/set.zip", ARCHIVE)
    (tmp_path / "one/set").mkdir(parents=True)
    (tmp_path / "one/set/mine.bin").write_bytes(b"a part")
    have(tmp_path, source("one", file(server)), source("two", file(server)))
    assert whole(tmp_path / "two/set")


def _moved_and_linked(folder: Path) -> None:
    (folder / "ct").rename(folder.parent / "elsewhere")
    (folder / "ct").symlink_to("../elsewhere")


def _replaced_by_a_link(folder: Path) -> None:
    (folder / "ct/0.bin").rename(folder.parent / "elsewhere.bin")
    (folder / "ct/0.bin").symlink_to("../../elsewhere.bin")


def _thinned(folder: Path) -> None:
    (folder / "ct/0.bin").unlink()


@pytest.mark.parametrize("change", [_moved_and_linked, _replaced_by_a_link, _thinned])
def test_a_folder_that_is_not_what_was_unpacked_is_not_shared(tmp_path, server, change):
    server.serve("/set.zip", ARCHIVE)
    pair = [source("one", file(server)), source("two", file(server))]
    have(tmp_path, pair[0])
    change(tmp_path / "one/set")
    have(tmp_path, *pair)
    assert whole(tmp_path / "two/set")


def test_a_folder_that_is_replaced_meanwhile_is_not_shared(tmp_path, server, monkeypatch):
    server.serve("/set.zip", ARCHIVE)
    have(tmp_path, source("one", file(server)))
    link, existing = os.link, tmp_path / "one/set"

    def replaced(one: Any, other: Any, **facts: Any) -> None:
        if not (tmp_path / "old").exists():
            existing.rename(tmp_path / "old")
            shutil.copytree(tmp_path / "old", existing)
        link(one, other, **facts)

    with monkeypatch.context() as patched:
        patched.setattr("os.link", replaced)
        assert not clone(existing, tmp_path / "two/set")
    assert (tmp_path / "old").exists()
    assert not list((tmp_path / "two").iterdir())
    assert clone(existing, tmp_path / "two/set")


def test_a_symbolic_link_is_shared_as_the_file_that_it_leads_to(tmp_path, server):
    (tmp_path / "store").mkdir()
    (tmp_path / "store/set.zip").write_bytes(ARCHIVE)
    (tmp_path / "one").mkdir()
    (tmp_path / "one/set.zip").symlink_to("../store/set.zip")
    have(tmp_path, source("one", file(server)), source("two", file(server, "top/ct/*", path="deep/set.zip")))
    assert (tmp_path / "two/deep/set.zip").read_bytes() == ARCHIVE


def test_what_came_earlier_is_read_once_for_all_that_share_it(tmp_path, server, monkeypatch):
    server.serve("/set.zip", ARCHIVE)
    sources = [source(name, file(server)) for name in ("one", "two", "three")]
    have(tmp_path, sources[0])
    shutil.rmtree(tmp_path / "one/set")
    read, digests = [], stamps.file_digests
    monkeypatch.setattr(
        stamps, "file_digests", lambda path, **facts: read.append(path) or digests(path, **facts)
    )
    have(tmp_path, *sources)
    assert read == [tmp_path / "one/set.zip"]
    assert len({inode(tmp_path / name / "set.zip") for name in ("one", "two", "three")}) == 1


@pytest.mark.parametrize("damaged", [LOCK_FILE, f"Lung Segmentation Data/{RECORD_FILE}"])
def test_records_of_a_neighbour_that_cannot_be_read_hold_nobody_up(tmp_path, monkeypatch, damaged):
    for name in ("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY"):
        monkeypatch.delenv(name, raising=False)
    folder, neighbour = "Lung Segmentation Data", load_source("covid-qu-ex")
    (tmp_path / neighbour.id / damaged).parent.mkdir(parents=True)
    (tmp_path / neighbour.id / damaged).write_bytes(b"{")
    members = {f"{folder}/{folder}/Train/COVID-19/images/a.png": b"a"}
    (tmp_path / neighbour.id / "covidqu.zip").write_bytes(zipped(members))
    have(tmp_path, neighbour.model_copy(update={"id": "mine"}))
    assert (tmp_path / "mine" / folder / "Train/COVID-19/images/a.png").read_bytes() == b"a"


def test_a_list_of_a_neighbour_that_cannot_be_read_holds_nobody_up(tmp_path, server):
    server.serve("/set.zip", ARCHIVE)
    neighbour = tmp_path / next(name for name in source_ids() if load_source(name).folders)
    neighbour.mkdir()
    (neighbour / LIST_FILE).write_bytes(b"{")
    have(tmp_path, source("one", file(server)))
    assert whole(tmp_path / "one/set")
