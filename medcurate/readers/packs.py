"""Files that hold many images: opened once a worker, read a row at a time.

A pack is hashed, and the members of an .npz are held against their CRC, when a worker first opens it; a row
then costs the bytes of the row. Rows of a deflated member are found by inflating up to them: the stream stays
open between cases, which come in the order of their rows, so that it is inflated once and not once a case.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections import OrderedDict
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import IO

import numpy as np

from medcurate import arrays
from medcurate.errors import CaseRejected, Reason
from medcurate.readers.files import CaseFiles, InputDigest
from medcurate.readers.inflate import DEFLATE_RATIO
from medcurate.types import Array

MOST_OPEN = 4  # packs that a worker keeps open
_CHUNK_BYTES = 1 << 20

Signature = tuple[int, int, int, int]  # device, inode, bytes, mtime_ns


@dataclass(slots=True)
class _Member:
    """One array of a pack: its header, and where its elements are or the stream that inflates to them."""

    header: arrays.Header
    at: int  # place of the first element in the file; unused where ``info`` is set
    info: zipfile.ZipInfo | None = None
    stream: IO[bytes] | None = None
    done: int = 0  # bytes of elements that the stream has passed


@dataclass(slots=True)
class Pack:
    """An open .npy or .npz; ``rows`` and ``whole`` give its arrays."""

    stream: IO[bytes]
    archive: zipfile.ZipFile | None
    digest: InputDigest
    members: dict[str, _Member] = field(default_factory=dict)

    def header(self, key: str) -> arrays.Header:
        """The header of an array; ``key`` is "" for a .npy. Raises CaseRejected."""
        return self._member(key).header

    def row(self, key: str, row: int) -> Array:
        """Element ``row`` of the first axis, of the other axes' shape. Raises CaseRejected."""
        member = self._member(key)
        size_bytes = prod(member.header.shape[1:]) * member.header.dtype.itemsize
        raw = self._bytes(member, row * size_bytes, size_bytes)
        return np.frombuffer(raw, member.header.dtype).reshape(member.header.shape[1:])

    def whole(self, key: str) -> Array:
        """The whole array. Raises CaseRejected."""
        member = self._member(key)
        raw = self._bytes(member, 0, member.header.size_bytes)
        order = "F" if member.header.fortran else "C"
        return np.frombuffer(raw, member.header.dtype).reshape(member.header.shape, order=order)  # type: ignore[call-overload,no-any-return]

    def close(self) -> None:
        """Let go of the file."""
        for member in self.members.values():
            if member.stream is not None:
                member.stream.close()
        self.stream.close()

    def _member(self, key: str) -> _Member:
        if key not in self.members:
            self.members[key] = self._plain(key) if self.archive is None else self._zipped(self.archive, key)
        return self.members[key]

    def _plain(self, key: str) -> _Member:
        if key:
            raise CaseRejected(Reason.UNREADABLE, f'a .npy holds one array; "{key}" names one of an .npz')
        self.stream.seek(0)
        header = arrays.read_header(self.stream)
        _check_length(header, self.digest.size_bytes)
        return _Member(header, header.offset)

    def _zipped(self, archive: zipfile.ZipFile, key: str) -> _Member:
        info = arrays.member(archive, key)
        if info.file_size > max(1, info.compress_size) * DEFLATE_RATIO:
            raise CaseRejected(
                Reason.HEADER_SIZE,
                "a member of the .npz claims more than DEFLATE holds",
                {"measure": info.file_size, "bound": info.compress_size * DEFLATE_RATIO},
            )
        header = _verified(archive, info)
        if info.compress_type == zipfile.ZIP_STORED:
            return _Member(header, arrays.stored_at(self.stream, info) + header.offset)
        return _Member(header, 0, info)

    def _bytes(self, member: _Member, start: int, size_bytes: int) -> bytes:
        if member.info is None:
            found = os.pread(self.stream.fileno(), size_bytes, member.at + start)
        else:
            found = self._inflated(member, member.info, start, size_bytes)
        if len(found) != size_bytes:
            raise CaseRejected(
                Reason.CORRUPT, "the array is cut", {"measure": len(found), "bound": size_bytes}
            )
        return found

    def _inflated(self, member: _Member, info: zipfile.ZipInfo, start: int, size_bytes: int) -> bytes:
        assert self.archive is not None
        if member.stream is None or start < member.done:
            if member.stream is not None:
                member.stream.close()
            member.stream = arrays.open_member(self.archive, info)
            member.done = -member.header.offset
        _skip(member.stream, start - member.done)
        with arrays.intact():
            found = member.stream.read(size_bytes)
        member.done = start + len(found)
        return found


_open: OrderedDict[str, tuple[Signature, Pack]] = OrderedDict()


def opened(files: CaseFiles, path: Path) -> Pack:
    """The pack at ``path`` below the case's root; its digest goes to the case's inputs. Raises CaseRejected."""
    name = str(files.root / path)
    stream = files.open(path)
    status = os.fstat(stream.fileno())
    signature = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    known = _open.pop(name, None)
    if known is not None and known[0] == signature:
        stream.close()
        pack = known[1]
    else:
        if known is not None:
            known[1].close()
        pack = _opened(stream, status)
    _open[name] = (signature, pack)
    while len(_open) > MOST_OPEN:
        _open.popitem(last=False)[1][1].close()
    files.inputs[path] = pack.digest
    return pack


def _opened(stream: IO[bytes], status: os.stat_result) -> Pack:
    try:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]
        stream.seek(0)
        archive = arrays.open_zip(stream) if arrays.is_zip(stream) else None
    except BaseException:
        stream.close()
        raise
    return Pack(stream, archive, InputDigest(sha256, status.st_size, status.st_mtime_ns))


def _verified(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> arrays.Header:
    """The member's header, once all of it has been held against its CRC and length."""
    with arrays.open_member(archive, info) as inside:
        header = arrays.read_header(inside)
        _check_length(header, info.file_size)
        _skip(inside, header.size_bytes)
        _skip(inside, 1, ended=True)
    return header


def _skip(stream: IO[bytes], size_bytes: int, *, ended: bool = False) -> None:
    """Pass over bytes; zipfile checks the CRC when it reaches the end. Raises CaseRejected (CORRUPT)."""
    left = size_bytes
    with arrays.intact():
        while left > 0 and (chunk := stream.read(min(left, _CHUNK_BYTES))):
            left -= len(chunk)
    if left > 0 and not ended:
        raise CaseRejected(
            Reason.CORRUPT, "the array is cut", {"measure": size_bytes - left, "bound": size_bytes}
        )


def _check_length(header: arrays.Header, file_bytes: int) -> None:
    expected = header.offset + header.size_bytes
    if file_bytes != expected:
        raise CaseRejected(
            Reason.CORRUPT,
            "the file does not end with the array's last element",
            {"measure": file_bytes, "bound": expected},
        )
