"""Headers of numpy's .npy files and of the members of .npz files, read without their arrays and without pickle.

Pairings count the rows of a pack with them, the reader finds the bytes of one row. Source: "A simple file
format for NumPy arrays" (NEP 1) and ``numpy.lib.format``.
"""

from __future__ import annotations

import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np

from medcurate.errors import CaseRejected, Reason

ZIP_MAGIC = b"PK\x03\x04"
MAX_HEADER_BYTES = 10_000  # numpy's own bound
_LOCAL_HEADER = struct.Struct(
    "<4s5H3I2H"
)  # APPNOTE.TXT 4.3.7: the last two are lengths of name and extra field

# A header is a Python literal: numpy lets through what the language's tokenizer and parser make of a damaged one.
_NO_HEADER = (
    ValueError, KeyError, TypeError, OverflowError, RecursionError, SyntaxError, tokenize.TokenError
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Header:
    """What a .npy header states. ``offset``: bytes before the first element."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    offset: int

    @property
    def size_bytes(self) -> int:
        """Bytes of all elements."""
        return prod(self.shape) * self.dtype.itemsize


def read_header(stream: IO[bytes]) -> Header:
    """The header at the stream's place. Raises CaseRejected: UNREADABLE for what is no array of numbers or text,
    CORRUPT.

    Arrays of Python objects are refused: their bytes are a pickle.
    """
    start = stream.tell()
    try:
        with intact():
            return _parsed(stream, start)
    except _NO_HEADER as error:
        raise CaseRejected(Reason.UNREADABLE, "not a .npy array of a known version") from error


@contextmanager
def intact() -> Iterator[None]:
    """What a damaged member makes zipfile raise becomes CaseRejected (CORRUPT)."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise CaseRejected(Reason.CORRUPT, "a member of the .npz is damaged") from error


def _parsed(stream: IO[bytes], start: int) -> Header:
    version = np.lib.format.read_magic(stream)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[version]
    shape, fortran, dtype = read(stream, max_header_size=MAX_HEADER_BYTES)
    if dtype.hasobject or dtype.fields is not None or dtype.subdtype is not None:
        raise CaseRejected(
            Reason.UNREADABLE, "an array of Python objects or records; such arrays are refused"
        )
    if min(shape, default=0) < 0:
        raise CaseRejected(Reason.CORRUPT, "the header states an impossible shape")
    return Header(tuple(int(side) for side in shape), dtype, bool(fortran), stream.tell() - start)


def is_zip(stream: IO[bytes]) -> bool:
    """Whether the stream, at its start, is an .npz; its place is put back."""
    magic = stream.read(len(ZIP_MAGIC))
    stream.seek(0)
    return magic == ZIP_MAGIC


def open_zip(stream: IO[bytes]) -> zipfile.ZipFile:
    """The directory of an .npz. Raises CaseRejected (CORRUPT)."""
    try:
        return zipfile.ZipFile(stream)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise CaseRejected(Reason.CORRUPT, "the .npz has no intact directory") from error


def member(archive: zipfile.ZipFile, key: str) -> zipfile.ZipInfo:
    """The member of an array. Raises CaseRejected (UNREADABLE) where it is absent, encrypted or oddly compressed."""
    found = [info for info in archive.infolist() if info.filename == f"{key}.npy"]
    if len(found) != 1:
        raise CaseRejected(Reason.UNREADABLE, f'the .npz holds {len(found)} arrays "{key}", not one')
    (info,) = found
    if info.flag_bits & 1 or info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise CaseRejected(Reason.UNREADABLE, "the .npz is encrypted or compressed by other than DEFLATE")
    return info


def open_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> IO[bytes]:
    """The member as a stream of its array file. Raises CaseRejected (CORRUPT)."""
    try:
        return archive.open(info)
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError) as error:
        raise CaseRejected(Reason.CORRUPT, "a member of the .npz is damaged") from error


def stored_at(stream: IO[bytes], info: zipfile.ZipInfo) -> int:
    """Where the bytes of a stored member start in the .npz. Raises CaseRejected (CORRUPT)."""
    stream.seek(info.header_offset)
    head = stream.read(_LOCAL_HEADER.size)
    if len(head) < _LOCAL_HEADER.size or head[:4] != ZIP_MAGIC:
        raise CaseRejected(Reason.CORRUPT, "a member of the .npz is damaged")
    *_, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(head)
    return int(info.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes)


def header_of(path: Path, key: str) -> Header:
    """The header of a .npy file, or of the array ``key`` of an .npz. Raises CaseRejected, OSError."""
    with path.open("rb") as stream:
        if not is_zip(stream):
            _no_key(key)
            return read_header(stream)
        with open_zip(stream) as archive, open_member(archive, member(archive, key)) as inside:
            return read_header(inside)


def small_array(path: Path, key: str, limit_bytes: int) -> np.ndarray[Any, np.dtype[Any]]:
    """A whole array of at most ``limit_bytes``. Raises CaseRejected, OSError."""
    header = header_of(path, key)
    if header.size_bytes > limit_bytes:
        raise CaseRejected(
            Reason.HEADER_SIZE,
            "the array is larger than expected",
            {"measure": header.size_bytes, "bound": limit_bytes},
        )
    try:
        with intact():
            loaded = np.load(path, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded
            with loaded:
                return np.asarray(loaded[key])
    except ValueError as error:
        raise CaseRejected(Reason.CORRUPT, "the array is cut or damaged") from error


def _no_key(key: str) -> None:
    if key:
        raise CaseRejected(Reason.UNREADABLE, f'a .npy holds one array; "{key}" names one of an .npz')
