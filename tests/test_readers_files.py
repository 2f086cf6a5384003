"""The door to a case's files: regular files inside the root, within limits, digests noted."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from readers_kit import refused

from medcurate.errors import Reason
from medcurate.readers.files import CaseFiles


@pytest.fixture
def files(tmp_path):
    (tmp_path / "case").mkdir()
    (tmp_path / "case" / "image.raw").write_bytes(b"pixels")
    return CaseFiles(tmp_path, 100)


def test_reading_notes_digest_size_and_time(files, tmp_path):
    path = Path("case/image.raw")
    assert files.read(path) == b"pixels"
    noted = files.inputs[path]
    assert noted.sha256 == hashlib.sha256(b"pixels").hexdigest()
    assert (noted.size_bytes, noted.mtime_ns) == (6, (tmp_path / path).stat().st_mtime_ns)


def test_absent_folders_pipes_and_large_files(files, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(bytes(101))
    for name, reason in (
        ("absent", Reason.MISSING_FILE),
        ("case", Reason.UNREADABLE),
        ("pipe", Reason.UNREADABLE),
        ("large", Reason.HEADER_SIZE),
    ):
        with refused(reason):
            files.read(Path(name))
    assert not files.inputs


@pytest.mark.parametrize("name", ["image.raw", "./image.raw", "sub/other.raw"])
def test_siblings(files, name):
    assert files.sibling(Path("case/header.mhd"), name) == Path("case") / name


@pytest.mark.parametrize(
    "name", ["/case/image.raw", "../image.raw", "a/../../x", "..\\x", "a\0b", "loop", "out"]
)
def test_references_that_leave_the_folder(files, tmp_path, name):
    (tmp_path / "case" / "loop").symlink_to("loop")
    (tmp_path / "case" / "out").symlink_to(tmp_path)
    with refused(Reason.OUTSIDE_REFERENCE):
        files.sibling(Path("case/header.mhd"), name)


def test_claims(files):
    files.check_claim(100, 100)
    with refused(Reason.HEADER_SIZE, detail="limit"):
        files.check_claim(101, 1000)
    with refused(Reason.HEADER_SIZE, detail="hold"):
        files.check_claim(100, 99)
