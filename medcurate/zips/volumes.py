"""The bytes of an archive by position, whether it is one file or several."""

from __future__ import annotations

import io
import os
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import Any


class BadZip(Exception):
    """The archive as a whole cannot be read; the text continues "NAME: " and names no remedy."""


class BadMember(Exception):
    """One member cannot be read: damaged, encrypted without its password, or of an unknown method."""


class NeedsLibrary(BadMember):
    """A member that an optional library would read."""


class Volumes:
    """Several files as if they were one, in the order given; safe for threads. Raises OSError."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = tuple(paths)
        self._files: list[int] = []
        try:
            for path in self.paths:
                self._files.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
            sizes = [os.fstat(file).st_size for file in self._files]
        except OSError:
            self.close()
            raise
        self.starts = tuple(accumulate(sizes, initial=0))[:-1]  # position of every file's first byte
        self.size = sum(sizes)

    def read_at(self, position: int, size: int) -> bytes:
        """``size`` bytes from ``position``; fewer only where the last file ends."""
        pieces: list[bytes] = []
        size = min(size, self.size - position)
        while size > 0:
            file, start = self.locate(position)
            piece = os.pread(file, size, start)
            if not piece:  # the file was cut while it was read
                break
            pieces.append(piece)
            position += len(piece)
            size -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def locate(self, position: int) -> tuple[int, int]:
        """(descriptor, offset in it) of the byte at ``position``."""
        number = bisect_right(self.starts, position) - 1
        return self._files[number], position - self.starts[number]

    def close(self) -> None:
        """Close all files."""
        while self._files:
            os.close(self._files.pop())

    def __enter__(self) -> Volumes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class VolumeFile(io.RawIOBase):
    """``Volumes`` as a seekable binary file, for libraries that want one; it does not close them."""

    def __init__(self, volumes: Volumes) -> None:
        self._volumes = volumes
        self._position = 0

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """Position in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a position, as of ``io.IOBase``."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._volumes.size}[whence]
        if base + offset < 0:
            raise OSError("seek before the start")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer``; returns the number of bytes."""
        data = self._volumes.read_at(self._position, len(buffer))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)
