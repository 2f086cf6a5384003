"""Trust on first use: ``downloads.lock.json`` beside a source's files says what they were when they came.

For a file whose source declares no SHA-256 the recorded one is what every later copy must have. Once there are
many entries, new ones are appended to a journal beside the file, which reading takes in: writing thousands of
entries whole, thousands of times, would cost more than the downloads. The file is written before its journal goes, so
that who reads the journal first misses nothing.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from medcurate.commit import output_error, write_json
from medcurate.errors import ConfigError

LOCK_FILE = "downloads.lock.json"
JOURNAL = "downloads.lock.journal"  # a line an entry
_SHA256 = re.compile("[0-9a-f]{64}")
_WHOLE_ENTRIES = 64  # up to so many the file is written whole every time


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One file as it came: SHA-256 (hexadecimal), bytes, from where, when (UTC, to the second)."""

    sha256: str
    size_bytes: int
    url: str
    etag: str
    date: str


class LockFile:
    """The entries of one source's folder, by path below it. Kept at every change, by one process."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK_FILE
        self._journal = folder / JOURNAL
        journalled = _journalled(self._journal)
        self._entries = {**_read(self.path), **journalled}
        self._appending = False  # to a journal of this process's own: another's may end in half a line
        self._lock = threading.Lock()

    def get(self, path: str) -> Entry | None:
        """What was recorded of ``path``."""
        return self._entries.get(path)

    def put(self, path: str, *, sha256: str, size_bytes: int, url: str, etag: str = "") -> None:
        """Record ``path``; equal bytes keep their first record. Raises OutputError."""
        with self._lock:
            before = self._entries.get(path)
            if before is not None and before.sha256 == sha256:
                return
            date = datetime.now(UTC).isoformat(timespec="seconds")
            entry = Entry(sha256=sha256, size_bytes=size_bytes, url=url, etag=etag, date=date)
            self._entries[path] = entry
            if self._appending:
                self._appending = False  # unless the line is whole: none may follow half of one
                _append(self._journal, json.dumps({"path": path, **asdict(entry)}))
                self._appending = True
            else:
                self._write()
                self._appending = len(self._entries) >= _WHOLE_ENTRIES

    def forget(self, paths: Iterable[str]) -> None:
        """Trust anew what comes of ``paths``. Raises OutputError."""
        with self._lock:
            known = [path for path in paths if self._entries.pop(path, None)]
            if known:
                self._write()
                self._appending = False

    def settle(self) -> None:
        """Take what was appended into the file. Raises OutputError."""
        with self._lock:
            if self._journal.exists():
                self._write()
                self._appending = False

    def _write(self) -> None:
        write_json(self.path, {name: asdict(each) for name, each in self._entries.items()})
        self._journal.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Entry]:
    """Raises ConfigError where the file is damaged: to begin anew would trust whatever comes."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return {}
    try:
        return {name: _entry(facts) for name, facts in json.loads(content).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> ConfigError:
    return ConfigError(
        f"{path}: damaged ({error}). It holds the digests that files had when they came; restore it from a "
        "backup, or remove it to trust the files that are there now."
    )


def _append(path: Path, line: str) -> None:
    """Raises OutputError."""
    try:
        with open(path, "ab") as stream:
            stream.write(line.encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise output_error(error, path) from error


def _journalled(path: Path) -> dict[str, Entry]:
    """What was appended; a last line that a kill cut off was not kept, and its file has not got its name."""
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return {}
    try:
        facts = [json.loads(line) for line in lines[:-1]]
        return {str(each.pop("path")): _entry(each) for each in facts}
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise _damaged(path, error) from error


def _entry(facts: Mapping[str, object]) -> Entry:
    entry = Entry(**facts)  # type: ignore[arg-type]  # checked next
    texts = (entry.sha256, entry.url, entry.etag, entry.date)
    if not all(isinstance(text, str) for text in texts) or not _SHA256.fullmatch(entry.sha256):
        raise ValueError("an entry without SHA-256, in small letters, or with a number for a text")
    if type(entry.size_bytes) is not int:
        raise ValueError("an entry without size in bytes")
    return entry
