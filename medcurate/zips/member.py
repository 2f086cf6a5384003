"""One member's bytes: every size, CRC and authentication code checked, within bounds."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol, cast

import imagecodecs
from isal import igzip_lib, isal_zlib

from medcurate.zips.crypt import Aes, Source, Traditional
from medcurate.zips.directory import FLAG_DESCRIPTOR, FLAG_STRONG, LOCAL, LOCAL_MAGIC, Entry
from medcurate.zips.volumes import BadMember, NeedsLibrary, Volumes

WHOLE_BYTES = 16 << 20  # members up to this size are inflated at once
CHUNK_BYTES = 1 << 20
STORED, DEFLATE, DEFLATE64, BZIP2, LZMA, ZSTD, XZ = 0, 8, 9, 12, 14, 93, 95
_FEED_BYTES = 1 << 16
_ZSTD_FEED_BYTES = 1 << 12  # a block of 4 bytes may hold 128 kB, and nothing bounds what one call returns
_DEFLATE64_FEED_BYTES = 1 << 9  # likewise: 64 kB from a few bits
_IsalError: type[Exception] = igzip_lib.error  # type: ignore[assignment]  # its stub declares an instance
_RATIO = {STORED: 1, DEFLATE: 1032}  # DEFLATE's most, as zlib's "technical details" state
_SLACK_BYTES = 64
_LZMA_MEMORY_BYTES = 1 << 30
_EXTRA_GUESS_BYTES = 256  # of a local header, so that one read gets it and the data


class _Decoder(Protocol):
    """bz2's, lzma's and isal's decompressors."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


def read_member(volumes: Volumes, entry: Entry, password: bytes = b"") -> bytes:
    """All bytes of a member. Raises BadMember; the caller has bounded ``entry.size_bytes``."""
    _check_claim(entry)
    plain = entry.method in {STORED, DEFLATE} and not entry.encrypted
    if not plain or not 0 < entry.size_bytes <= WHOLE_BYTES:
        return b"".join(member_chunks(volumes, entry, password))
    stored = _stored(volumes, entry)
    content = bytes(stored) if entry.method == STORED else _inflated(stored, entry.size_bytes)
    if len(content) != entry.size_bytes or isal_zlib.crc32(content) != entry.crc32:
        raise BadMember("its size or CRC-32 is wrong")
    return content


def member_chunks(volumes: Volumes, entry: Entry, password: bytes = b"") -> Iterator[bytes]:
    """The bytes of a member in blocks; only where the iteration ends without BadMember are they right."""
    _check_claim(entry)
    crc, size = 0, 0
    for chunk in _decoded(_opened(volumes, entry, password), entry):
        size += len(chunk)
        if size > entry.size_bytes:
            raise BadMember("it holds more bytes than it states")
        crc = isal_zlib.crc32(chunk, crc)
        yield chunk
    # AE-2 leaves the CRC out: its authentication code has been checked instead.
    if size != entry.size_bytes or (crc != entry.crc32 and entry.aes >> 8 != 2):
        raise BadMember("its size or CRC-32 is wrong")


def _check_claim(entry: Entry) -> None:
    if entry.flags & FLAG_STRONG:
        raise BadMember("its encryption is not of the traditional or the AES kind")
    most = entry.stored_bytes * _RATIO.get(entry.method, 1 << 40) + _SLACK_BYTES
    if entry.size_bytes > most:
        raise BadMember("it claims more bytes than it can hold")


def _stored(volumes: Volumes, entry: Entry) -> memoryview:
    """The stored bytes, by one read where the local header is of the usual size."""
    guess = LOCAL.size + len(entry.name) + _EXTRA_GUESS_BYTES
    block = volumes.read_at(entry.position, guess + entry.stored_bytes)
    start = _data_start(block, entry)
    data = memoryview(block)[start : start + entry.stored_bytes]
    if len(data) < entry.stored_bytes:
        data = memoryview(volumes.read_at(entry.position + start, entry.stored_bytes))
    return data


def _data_start(block: bytes, entry: Entry) -> int:
    """Where data begin after the local header, which must be one and of the same name."""
    if len(block) < LOCAL.size or not block.startswith(LOCAL_MAGIC):
        raise BadMember("its header is not where the directory says")
    fields = LOCAL.unpack_from(block)
    name = block[LOCAL.size : LOCAL.size + fields[9]]
    if zlib.crc32(name) != entry.name_crc32:
        raise BadMember("its header has another name than the directory")
    return LOCAL.size + int(fields[9]) + int(fields[10])


def _inflated(stored: memoryview, size_bytes: int) -> bytes:
    try:
        return bytes(imagecodecs.deflate_decode(cast("bytes", stored), raw=True, out=size_bytes))
    except imagecodecs.DeflateError as error:
        raise BadMember("its compressed data are damaged") from error


class _Span:
    """A stretch of the volumes as a source."""

    def __init__(self, volumes: Volumes, position: int, size: int) -> None:
        self._volumes, self._position, self._left = volumes, position, size

    def read(self, size: int) -> bytes:
        data = self._volumes.read_at(self._position, min(size, self._left))
        self._position += len(data)
        self._left -= len(data)
        return data


def _opened(volumes: Volumes, entry: Entry, password: bytes) -> Source:
    header = volumes.read_at(entry.position, LOCAL.size + 2 * 0xFFFF)
    start = entry.position + _data_start(header, entry)
    span = _Span(volumes, start, entry.stored_bytes)
    if not entry.encrypted:
        return span
    if not password:
        raise BadMember("it is encrypted and no password is given")
    if entry.aes:
        return Aes(span, password, entry.aes & 0xFF, entry.stored_bytes)
    # With a descriptor the CRC was not known yet: the time of day stands in (APPNOTE 6.1.6, Info-ZIP).
    by_time = entry.flags & FLAG_DESCRIPTOR
    return Traditional(span, password, header[11] if by_time else entry.crc32 >> 24)


def _decoded(source: Source, entry: Entry) -> Iterator[bytes]:
    if entry.method == STORED:
        yield from iter(lambda: source.read(CHUNK_BYTES), b"")
        return
    make = _DECODERS.get(entry.method)
    if make is None:
        raise BadMember(f"its compression method {entry.method} is not supported")
    try:
        yield from make(source, entry)
    except (_IsalError, OSError, EOFError, ValueError, lzma.LZMAError) as error:
        raise BadMember("its compressed data are damaged") from error


def _bounded(decoder: _Decoder, source: Source) -> Iterator[bytes]:
    """Blocks of at most CHUNK_BYTES until the stream ends. Raises EOFError where it is cut."""
    while not decoder.eof:
        data = source.read(_FEED_BYTES) if decoder.needs_input else b""
        if not data and decoder.needs_input:
            raise EOFError
        block = decoder.decompress(data, CHUNK_BYTES)
        if block:
            yield block


def _deflate(source: Source, _: Entry) -> Iterator[bytes]:
    return _bounded(igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_DEFLATE), source)


def _bzip2(source: Source, _: Entry) -> Iterator[bytes]:
    return _bounded(bz2.BZ2Decompressor(), source)


def _xz(source: Source, _: Entry) -> Iterator[bytes]:
    return _bounded(lzma.LZMADecompressor(lzma.FORMAT_XZ, _LZMA_MEMORY_BYTES), source)


def _lzma(source: Source, entry: Entry) -> Iterator[bytes]:
    """APPNOTE 5.8.8: version, size of properties, properties; the rest of a ``.lzma`` header is the size."""
    head = source.read(4)
    properties = source.read(int.from_bytes(head[2:4], "little"))
    if len(properties) != 5:
        raise BadMember("its compressed data are damaged")
    decoder = lzma.LZMADecompressor(lzma.FORMAT_ALONE, _LZMA_MEMORY_BYTES)
    decoder.decompress(properties + entry.size_bytes.to_bytes(8, "little"), 0)
    return _sized(decoder, source, entry.size_bytes)


def _sized(decoder: _Decoder, source: Source, size_bytes: int) -> Iterator[bytes]:
    """``_bounded`` for a stream whose end is known by its size and may have no mark."""
    left = size_bytes
    while left and not decoder.eof:
        data = source.read(_FEED_BYTES) if decoder.needs_input else b""
        if not data and decoder.needs_input:
            raise EOFError
        block = decoder.decompress(data, CHUNK_BYTES)
        left -= len(block)
        yield block


def _deflate64(source: Source, _: Entry) -> Iterator[bytes]:
    inflater = _optional("inflate64").Inflater()
    while not inflater.eof:
        data = source.read(_DEFLATE64_FEED_BYTES)
        if not data:
            raise EOFError
        yield inflater.inflate(data)


def _zstd(source: Source, _: Entry) -> Iterator[bytes]:
    decoder = _optional("zstandard").ZstdDecompressor(max_window_size=_LZMA_MEMORY_BYTES).decompressobj()
    while not decoder.eof:
        data = source.read(_ZSTD_FEED_BYTES)
        if not data:
            raise EOFError
        try:
            yield decoder.decompress(data)
        except Exception as error:  # zstandard.ZstdError, which is loaded only here
            raise BadMember("its compressed data are damaged") from error


def _optional(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise NeedsLibrary(
            f'it needs {name}: install it with "pip install medcurate[archives]" and run again'
        ) from error


_DECODERS: dict[int, Callable[[Source, Entry], Iterator[bytes]]] = {
    DEFLATE: _deflate,
    DEFLATE64: _deflate64,
    BZIP2: _bzip2,
    LZMA: _lzma,
    ZSTD: _zstd,
    XZ: _xz,
}
