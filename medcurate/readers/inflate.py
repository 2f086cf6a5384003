"""Whole compressed streams to bytes: bounded before allocation, every checksum and length verified.

The usual readers stop at the last voxel that they need and so never see the trailer: a cut, a flipped bit
or a wrong CRC loads silently. Here a stream is either intact to its last byte or refused. What no decoder
can notice is a flip that changes no output: gzip's MTIME, XFL, OS and file name, and DEFLATE's padding bits; and
zlib's Adler-32 misses some changes of several bytes (-2, +4, -2) that gzip's CRC-32 does not.
Sources: RFC 1952 (gzip), RFC 1950 (zlib), RFC 1951 (DEFLATE).
"""

from __future__ import annotations

import bz2
import zlib
from collections.abc import Iterator
from typing import Literal

import imagecodecs
import numpy as np
import numpy.typing as npt
from isal import igzip_lib, isal_zlib

from medcurate.errors import CaseRejected, Reason

Bytes1D = npt.NDArray[np.uint8]

DEFLATE_RATIO = 1032  # DEFLATE's most: 258 bytes from 2 bits; zlib's "technical details" state 1032:1
GZIP_MAGIC = b"\x1f\x8b"
_CHUNK_BYTES = 1 << 15  # of input: at most 34 MB of output at a time
_IsalError: type[Exception] = igzip_lib.error  # type: ignore[assignment]  # its stub declares an instance
_FLAGS = {"gzip": igzip_lib.DECOMP_GZIP, "zlib": igzip_lib.DECOMP_ZLIB}


def gunzip(content: bytes, *, limit: int, expected_bytes: int | None = None) -> Bytes1D:
    """A whole .gz file (one member or several) as uint8 (N,), writable, allocated once.

    ``expected_bytes``: the exact size that the file's own header implies; None where it does not say.
    ``limit``: the most bytes to hold. Raises CaseRejected: HEADER_SIZE above ``limit`` or above what DEFLATE
    can hold, CORRUPT for anything but an intact stream of exactly that size, UNREADABLE when it is no gzip.
    """
    if not content.startswith(GZIP_MAGIC):
        raise CaseRejected(Reason.UNREADABLE, "not a gzip stream")
    stored_size = int.from_bytes(content[-4:], "little")  # modulo 2**32, and of the last member only
    size = stored_size if expected_bytes is None else expected_bytes
    _check_size(size, limit, len(content))
    if stored_size == size % 2**32:
        whole = _one_member(content, size)
        if whole is not None and _ends_file(content, whole):
            return whole
    return inflate(content, "gzip", limit=limit, expected_bytes=expected_bytes)


def gunzip_head(content: bytes, size: int) -> bytes:
    """The first ``size`` bytes (fewer where the stream is shorter), unverified: for headers only."""
    try:
        return zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(content[: size + _CHUNK_BYTES], size)
    except zlib.error as error:
        raise CaseRejected(Reason.CORRUPT, "the gzip stream is damaged at its start") from error


def inflate(
    content: bytes | memoryview,
    wrapper: Literal["gzip", "zlib"],
    *,
    limit: int,
    expected_bytes: int | None = None,
) -> Bytes1D:
    """A whole stream, gzip with any number of members, as uint8 (N,); errors as in ``gunzip``."""
    if expected_bytes is not None:
        _check_size(expected_bytes, limit, len(content))
    return _gather(_inflated(memoryview(content), wrapper), limit, expected_bytes)


def bunzip2(content: bytes, *, limit: int, expected_bytes: int) -> Bytes1D:
    """A whole bzip2 stream of exactly ``expected_bytes``; errors as in ``gunzip``."""
    if expected_bytes > limit:
        raise CaseRejected(
            Reason.HEADER_SIZE, "more bytes than the limit", {"measure": expected_bytes, "bound": limit}
        )
    return _gather(_bunzipped(content), limit, expected_bytes)


def _check_size(size: int, limit: int, stored_bytes: int) -> None:
    for bound, what in (
        (limit, "more bytes than the limit"),
        (stored_bytes * DEFLATE_RATIO, "more than DEFLATE holds"),
    ):
        if size > bound:
            raise CaseRejected(
                Reason.HEADER_SIZE, f"the stream claims {what}", {"measure": size, "bound": bound}
            )


def _one_member(content: bytes, size: int) -> Bytes1D | None:
    # numpy asks for huge pages, which halves the page faults' cost; libdeflate verifies CRC and length.
    output = np.empty(size, np.uint8)
    try:
        decoded = imagecodecs.gzip_decode(content, out=output.data)
    except imagecodecs.DeflateError:
        return None
    return output if len(decoded) == size else None


def _ends_file(content: bytes, first_member: Bytes1D) -> bool:
    """Whether the file ends with its first member, whose end libdeflate's wrapper does not tell.

    The member ends with its trailer, the CRC and length of what came out (RFC 1952, 2.3.1): where those eight bytes
    end the file and stand nowhere else, both ends are one.
    """
    crc, size = isal_zlib.crc32(first_member), len(first_member) % 2**32
    trailer = crc.to_bytes(4, "little") + size.to_bytes(4, "little")
    return content.endswith(trailer) and content.rfind(trailer, 0, len(content) - 1) < 0


def _gather(blocks: Iterator[bytes], limit: int, expected_bytes: int | None) -> Bytes1D:
    bound = limit if expected_bytes is None else expected_bytes
    output = bytearray() if expected_bytes is None else None
    fixed = np.empty(expected_bytes or 0, np.uint8)
    filled = 0
    for block in blocks:
        if filled + len(block) > bound:
            raise _surplus(filled + len(block), bound, expected_bytes)
        if output is None:
            fixed[filled : filled + len(block)] = np.frombuffer(block, np.uint8)
        else:
            output += block
        filled += len(block)
    if output is not None:
        return np.frombuffer(output, np.uint8)
    if filled != expected_bytes:
        raise CaseRejected(
            Reason.CORRUPT, "fewer bytes than the header states", {"measure": filled, "bound": bound}
        )
    return fixed


def _surplus(size: int, bound: int, expected_bytes: int | None) -> CaseRejected:
    reason = Reason.HEADER_SIZE if expected_bytes is None else Reason.CORRUPT
    what = "the limit" if expected_bytes is None else "the header states"
    return CaseRejected(reason, f"the stream holds more bytes than {what}", {"measure": size, "bound": bound})


def _inflated(content: memoryview, wrapper: str) -> Iterator[bytes]:
    start = 0
    while start < len(content) or start == 0:
        inflater = igzip_lib.IgzipDecompressor(flag=_FLAGS[wrapper])
        while not inflater.eof:
            chunk = content[start : start + _CHUNK_BYTES]
            if not chunk:
                raise CaseRejected(Reason.CORRUPT, f"the {wrapper} stream is cut")
            try:
                yield inflater.decompress(chunk)
            except _IsalError as error:
                raise CaseRejected(Reason.CORRUPT, f"the {wrapper} stream is damaged") from error
            start += len(chunk)
        start -= len(inflater.unused_data)
        if start < len(content) and wrapper != "gzip":
            raise CaseRejected(Reason.CORRUPT, f"bytes follow the end of the {wrapper} stream")


def _bunzipped(content: bytes) -> Iterator[bytes]:
    inflater = bz2.BZ2Decompressor()
    try:
        yield inflater.decompress(content, _CHUNK_BYTES)
        while not inflater.eof and not inflater.needs_input:
            yield inflater.decompress(b"", _CHUNK_BYTES)
    except OSError as error:
        raise CaseRejected(Reason.CORRUPT, "the bzip2 stream is damaged") from error
    if not inflater.eof or inflater.unused_data:
        raise CaseRejected(Reason.CORRUPT, "the bzip2 stream is cut or followed by other bytes")
