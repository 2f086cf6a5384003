"""Digests of a file that is still being written, in a thread of its own: the network never waits for them.

The thread reads back what was written, so that a resumed file needs no other code, no chunk is held in
memory, and what is checked is what the file holds.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Sequence
from pathlib import Path

from medcurate.errors import ConfigError

_BLOCK_BYTES = 1 << 20


def file_digests(path: Path, *, md5: bool = False) -> dict[str, str]:
    """SHA-256 and, if asked for, MD5 of a file's bytes, hexadecimal, by algorithm, in one reading.

    Raises ConfigError for a folder; OSError.
    """
    if path.is_dir():
        raise ConfigError(
            f"{path}: is a folder, and a source declares a file of that name. Move it away and put the file there."
        )
    hashes = {name: hashlib.new(name, usedforsecurity=False) for name in ("sha256", "md5")[: 1 + md5]}
    block = memoryview(bytearray(_BLOCK_BYTES))
    with open(path, "rb", buffering=0) as stream:
        while count := stream.readinto(block):
            for each in hashes.values():
                each.update(block[:count])
    return {name: each.hexdigest() for name, each in hashes.items()}


class FollowingDigest:
    """Hashes the first bytes of ``path``, as many as ``reached`` has announced."""

    def __init__(self, path: Path, algorithms: Sequence[str]) -> None:
        self._path = path
        self._hashes = {name: hashlib.new(name, usedforsecurity=False) for name in algorithms}
        self._size = 0
        self._done = 0
        self._announced = 0
        self._ended = False
        self._abandoned = False
        self._failure: OSError | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=f"digest {path.name}", daemon=True)
        self._thread.start()

    def reached(self, size_bytes: int) -> None:
        """Tell that the file holds its first ``size_bytes`` now; never fewer than before."""
        self._size = size_bytes
        if size_bytes - self._announced >= _BLOCK_BYTES:
            self._announced = size_bytes
            with self._changed:
                self._changed.notify()

    def finish(self) -> dict[str, str]:
        """The digests, hexadecimal, by algorithm, of all that was announced. Raises OSError."""
        self._end()
        if self._failure is not None:
            raise self._failure
        return {name: each.hexdigest() for name, each in self._hashes.items()}

    def abandon(self) -> None:
        """Stop without a result."""
        self._abandoned = True
        self._end()

    def _end(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        try:
            with open(self._path, "rb", buffering=0) as stream:
                self._follow(stream.fileno())
        except OSError as error:
            self._failure = error

    def _follow(self, descriptor: int) -> None:
        block = memoryview(bytearray(_BLOCK_BYTES))
        while not self._abandoned:
            with self._changed:
                self._changed.wait_for(lambda: self._ended or self._size - self._done >= _BLOCK_BYTES)
                ended, size = self._ended, self._size
            while not self._abandoned and size - self._done >= (1 if ended else _BLOCK_BYTES):
                self._take(descriptor, block[: min(_BLOCK_BYTES, size - self._done)])
            if ended:
                return

    def _take(self, descriptor: int, block: memoryview) -> None:
        count = os.preadv(descriptor, [block], self._done)
        if not count:
            raise OSError(f"{self._path.name} became shorter while it was written")
        for each in self._hashes.values():
            each.update(block[:count])
        self._done += count
