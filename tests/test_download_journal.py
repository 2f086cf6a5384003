"""Records of many downloaded files: what each costs, and what a kill, a full disk or a reader meets."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import pytest

from medcurate.download.lockfile import JOURNAL, LOCK_FILE, LockFile
from medcurate.errors import ConfigError, OutputError


def put_many(folder: Path, numbers: range) -> LockFile:
    lock = LockFile(folder)
    for number in numbers:
        lock.put(f"data/{number}", sha256=f"{number:064x}", size_bytes=number, url="u")
    return lock


def test_records_of_many_files_cost_what_one_does_and_survive_a_kill(tmp_path):
    put_many(tmp_path, range(300))  # and killed: nothing settles
    journal = tmp_path / JOURNAL
    written_whole = (tmp_path / LOCK_FILE).stat().st_mtime_ns
    with open(journal, "ab") as stream:
        stream.write(b'{"path": "data/300", "sha2')  # in the middle of a line
    found = LockFile(tmp_path)
    assert all(found.get(f"data/{number}").sha256 == f"{number:064x}" for number in range(300))
    assert found.get("data/300") is None
    assert (tmp_path / LOCK_FILE).stat().st_mtime_ns == written_whole
    put_many(tmp_path, range(290, 310)).settle()
    assert not journal.exists()
    assert len(json.loads((tmp_path / LOCK_FILE).read_bytes())) == 310


def test_after_a_disk_that_was_full_the_journal_is_whole_again(tmp_path):
    lock = put_many(tmp_path, range(100))
    journal = tmp_path / JOURNAL
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (journal.stat().st_size + 20, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"downloads\.lock\.journal"):
            lock.put("data/lost", sha256="a" * 64, size_bytes=1, url="u")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    for number in range(100, 103):
        lock.put(f"data/{number}", sha256=f"{number:064x}", size_bytes=number, url="u")
    assert all(LockFile(tmp_path).get(f"data/{number}") for number in range(103))


def test_who_reads_while_the_journal_is_taken_in_misses_nothing(tmp_path, monkeypatch):
    """The writer settles after the reader's first look, whichever of the two files that is at."""
    writer = put_many(tmp_path, range(100))
    read = Path.read_bytes

    def read_and_settle(path):
        try:
            return read(path)
        finally:
            monkeypatch.setattr(Path, "read_bytes", read)
            writer.settle()

    monkeypatch.setattr(Path, "read_bytes", read_and_settle)
    found = LockFile(tmp_path)
    assert not (tmp_path / JOURNAL).exists()
    assert all(found.get(f"data/{number}") for number in range(100))


def test_a_damaged_journal_is_not_forgotten(tmp_path):
    put_many(tmp_path, range(100))
    journal = tmp_path / JOURNAL
    journal.write_bytes(journal.read_bytes().replace(b'"sha256"', b'"sha25"', 1))
    with pytest.raises(ConfigError, match="restore it from a backup"):
        LockFile(tmp_path)
