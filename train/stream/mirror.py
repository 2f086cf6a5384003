"""The local cache of a remote dataset: sparse copies of its shards that hold the ranges read so far.

A copy is never trusted: what it holds is what has the manifest's digest, and a hole, a torn write or a
damaged block has another one, so no list of what is there can be wrong. Bytes are written in place by any
number of processes; equal bytes go to equal places. When the cap is reached nothing more is written, and
nothing is thrown out: every sample is needed once an epoch, so each is as useful as any other.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
from pathlib import Path

from medcurate.format.sample import digest

_COUNT_FILE = "used-bytes"
_LOG = logging.getLogger(__name__)


class Mirror:
    """Copies of the shards of one dataset below ``folder``, of at most ``cap_bytes`` together."""

    def __init__(self, folder: Path, cap_bytes: int) -> None:
        self._folder = folder
        self._cap_bytes = cap_bytes
        self._off = False
        self._lock = threading.Lock()

    def read(self, shard: str, offset: int, size: int, expected: int) -> bytes | None:
        """A sample's bytes if they are here and whole, else None."""
        try:
            with open(self._folder / shard, "rb") as stream:
                data = os.pread(stream.fileno(), size, offset)
        except OSError:
            return None
        return data if len(data) == size and digest(data) == expected else None

    def write(self, shard: str, offset: int, data: bytes) -> None:
        """Keep ``data``, which must have been checked, unless the cap or the disk says no."""
        if self._off:
            return
        try:
            if not self._reserve(len(data)):
                self._stop(f"{self._folder}: the cache holds its {self._cap_bytes:,} bytes; no more is kept.")
                return
            path = self._folder / shard
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                os.pwrite(descriptor, data, offset)
            finally:
                os.close(descriptor)
        except OSError as error:
            self._stop(
                f"{self._folder}: the cache cannot be written ({error.strerror}); training goes on without."
            )

    def recount(self) -> None:
        """Set the count to what the disk holds; killed writers may have reserved more."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with open(self._folder / _COUNT_FILE, "ab+") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX)
                shards = (path for path in self._folder.rglob("*.tar") if path.is_file())
                _put(stream.fileno(), sum(path.stat().st_blocks * 512 for path in shards))
        except OSError as error:
            self._stop(
                f"{self._folder}: the cache cannot be used ({error.strerror}); training goes on without."
            )

    def _reserve(self, size: int) -> bool:
        self._folder.mkdir(parents=True, exist_ok=True)
        with open(self._folder / _COUNT_FILE, "ab+") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            used = int.from_bytes(os.pread(stream.fileno(), 8, 0), "little")
            if used + size > self._cap_bytes:
                return False
            _put(stream.fileno(), used + size)
        return True

    def _stop(self, why: str) -> None:
        with self._lock:
            if not self._off:
                _LOG.warning(why)
            self._off = True


def _put(descriptor: int, used: int) -> None:
    os.ftruncate(descriptor, 0)
    os.write(descriptor, used.to_bytes(8, "little"))  # the file is open for appending
