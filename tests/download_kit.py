"""Sources with files behind URLs, a policy that does not let tests wait, and what a download left."""

from __future__ import annotations

import hashlib
import random
import ssl
import subprocess
from pathlib import Path

from fault_server import Served

from medcurate.config.source import Source
from medcurate.download.run import Downloads, Task, download
from medcurate.download.types import DownloadError, Policy
from medcurate.tables import check_model

FAST = Policy(
    connect_s=2, stall_s=0.4, slow_s=0.5, first_wait_s=0.01, longest_wait_s=0.08, patience_s=1.0, per_host=8
)
CONTENT = random.Random(3).randbytes(400_000)
OTHER = random.Random(4).randbytes(400_000)
RECORDS = {".download", "downloads.lock.json"}  # what may stay in a source's folder beside its files


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


SHA = sha256(CONTENT)


def self_signed(folder: Path) -> ssl.SSLContext:
    """Of a server whose certificate nobody vouches for."""
    key, certificate = folder / "key.pem", folder / "cert.pem"
    words = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    subprocess.run(["openssl", *words, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


def lab(*files: dict[str, object]) -> Source:
    """A source with ``files``."""
    facts = {
        "id": "lab",
        "title": "",
        "homepage": "https://example.org/lab",
        "citation": "",
        "modality": "ct",
        "dimensions": 3,
        "licence": {"id": "CC0-1.0", "commercial": "yes"},
        "files": files,
        "pairings": [
            {"kind": "flat-suffix", "options": {"image_suffix": "_i.nii.gz", "label_suffix": "_l.nii.gz"}}
        ],
        "image": {"reader": "nifti"},
        "label": {"reader": "nifti", "decoder": "index"},
        "labels": {"1": "liver"},
    }
    return check_model(facts, Source, "test")


def behind(*urls: str, path: str = "a.zip", **facts) -> dict[str, object]:
    """A file behind the first of ``urls``, with the others as mirrors."""
    return {"path": path, "origin": {"url": urls[0], "mirrors": list(urls[1:])}, **facts}


def fetch(folder: Path, *files: dict[str, object], policy: Policy = FAST, jobs: int = 4) -> Downloads:
    """Download ``files`` into ``folder``/lab."""
    source = lab(*files)
    return download([Task(source, folder / "lab", file) for file in source.files], jobs=jobs, policy=policy)


def names(folder: Path) -> set[str]:
    """What lies in ``folder``/lab, without records."""
    return {path.name for path in (folder / "lab").iterdir()} - RECORDS


def stopped(tmp_path, *files, kind=DownloadError, **options) -> str:
    """The message of the one error that the download of ``files`` ends with."""
    (error,) = fetch(tmp_path, *files, **options).errors
    assert type(error) is kind
    return str(error)


def check_same(tmp_path, served: Served, refetched: int = 0) -> None:
    """The file is there, whole, alone, and was sent once but for ``refetched`` bytes."""
    assert (tmp_path / "lab" / "a.zip").read_bytes() == CONTENT
    assert names(tmp_path) == {"a.zip"}
    assert served.sent_bytes <= len(CONTENT) + refetched
