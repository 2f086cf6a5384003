"""Writing a shard, and reading one sample of it by offset and size."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from medcurate.commit import committed
from medcurate.format.sample import END_OF_TAR, SampleError, digest


class TarWriter:
    """Appends encoded samples to an open tar."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream = stream
        self.size_bytes = 0

    def append(self, blob: bytes) -> int:
        """Write one encoded sample and return its byte offset."""
        offset = self.size_bytes
        self.stream.write(blob)
        self.size_bytes += len(blob)
        return offset

    def finish(self) -> None:
        """Write the end-of-archive blocks."""
        self.append(END_OF_TAR)


class ShardWriter(TarWriter):
    """A tar writer that takes the SHA-256 of what it writes."""

    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__(stream)
        self._hash = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """SHA-256 of what was written so far, in hexadecimal."""
        return self._hash.hexdigest()

    def append(self, blob: bytes) -> int:
        """Write one encoded sample and return its byte offset."""
        self._hash.update(blob)
        return super().append(blob)


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
