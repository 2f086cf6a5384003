"""Writing a shard, and reading one sample of it by offset and size."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from medcurate.commit import committed
from medcurate.format.sample import END_OF_TAR, SampleError, digest


@dataclass(slots=True)
class ShardWriter:
    """Appends encoded samples to an open tar and knows its size and SHA-256."""

    stream: IO[bytes]
    size_bytes: int = 0
    _hash: hashlib._Hash = field(default_factory=hashlib.sha256)

    @property
    def sha256(self) -> str:
        """SHA-256 of what was written so far, in hexadecimal."""
        return self._hash.hexdigest()

    def append(self, blob: bytes) -> int:
        """Write one encoded sample and return its byte offset."""
        offset = self.size_bytes
        self._write(blob)
        return offset

    def mark(self) -> tuple[int, hashlib._Hash]:
        """A point to roll back to."""
        return self.size_bytes, self._hash.copy()

    def rollback(self, mark: tuple[int, hashlib._Hash]) -> None:
        """Forget everything that was appended since ``mark``."""
        self.size_bytes, self._hash = mark[0], mark[1].copy()
        self.stream.seek(self.size_bytes)
        self.stream.truncate()

    def finish(self) -> None:
        """Write the end-of-archive blocks."""
        self._write(END_OF_TAR)

    def _write(self, blob: bytes) -> None:
        self.stream.write(blob)
        self._hash.update(blob)
        self.size_bytes += len(blob)


@contextmanager
def shard_writer(path: Path) -> Iterator[ShardWriter]:
    """Write a shard that appears at ``path`` only when the body ends without an exception."""
    with committed(path) as stream:
        writer = ShardWriter(stream)
        yield writer
        writer.finish()


def read_sample(descriptor: int, offset: int, size: int, expected_digest: int) -> bytes:
    """The bytes of one sample of an open shard. Raises SampleError when they are short or changed."""
    blob = os.pread(descriptor, size, offset)
    if len(blob) != size:
        raise SampleError(f"{len(blob)} of {size} bytes at offset {offset}: the shard is cut")
    if digest(blob) != expected_digest:
        raise SampleError(f"{size} bytes at offset {offset} differ from the manifest's digest")
    return blob
