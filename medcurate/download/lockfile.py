"""Trust on first use: ``downloads.lock.json`` beside a source's files says what they were when they came.

For a file whose source declares no SHA-256 the recorded one is what every later copy must have.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from medcurate.commit import write_json
from medcurate.errors import ConfigError

LOCK_FILE = "downloads.lock.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One file as it came: SHA-256 (hexadecimal), bytes, from where, when (UTC, to the second)."""

    sha256: str
    size_bytes: int
    url: str
    etag: str
    date: str


class LockFile:
    """The entries of one source's folder, by path below it. Written whole at every change, by one process."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK_FILE
        self._entries = _read(self.path)
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
            write_json(self.path, {name: asdict(each) for name, each in self._entries.items()})


def _read(path: Path) -> dict[str, Entry]:
    """Raises ConfigError where the file is damaged: to begin anew would trust whatever comes."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return {}
    try:
        return {name: _entry(facts) for name, facts in json.loads(content).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path}: damaged ({error}). It holds the digests that files had when they came; restore it from a "
            "backup, or remove it to trust the files that are there now."
        ) from error


def _entry(facts: Mapping[str, object]) -> Entry:
    entry = Entry(**facts)  # type: ignore[arg-type]  # checked next
    if not (isinstance(entry.sha256, str) and len(entry.sha256) == 64 and isinstance(entry.size_bytes, int)):
        raise ValueError("an entry without SHA-256 or size")
    return entry
