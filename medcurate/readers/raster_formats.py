"""PNG, JPEG, GIF, BMP and PGM/PPM bytes to pixels: structure and size are checked before any decoder runs.

Decoders are lenient where it hurts (libjpeg fills a cut file with grey), so each format's own structure is
walked to its end marker first. Bytes after the end marker are ignored: cameras write them.
Sources: PNG Specification (Third Edition), 5.3 "Chunk layout", 11.2 "Critical chunks"; ITU-T T.81, B.1.1
and B.2; GIF89a Specification; Microsoft BITMAPINFOHEADER; Netpbm pgm(5), ppm(5).
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterator

import imagecodecs
import numpy as np
from isal import isal_zlib

from medcurate.errors import CaseRejected, Reason
from medcurate.readers.guard import refusing
from medcurate.readers.inflate import DEFLATE_RATIO
from medcurate.readers.raster_png import plain
from medcurate.types import Array

CheckClaim = Callable[[int, int], None]

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_CHUNK = struct.Struct(">I4s")  # length of the data, kind
_PNG_CHANNELS = {0: 1, 2: 3, 3: 4, 4: 2, 6: 4}  # colour type -> channels after decoding
_PNG_PALETTE = 3
# A marker that ends entropy-coded data: not a stuffed zero, not a restart, not a fill byte.
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_SUPPORTED = {0xC0, 0xC1, 0xC2}  # baseline, extended and progressive Huffman
_NETPBM = re.compile(
    rb"P([56])(?:\s|#[^\n]*\n)+(\d{1,9})(?:\s|#[^\n]*\n)+(\d{1,9})(?:\s|#[^\n]*\n)+(\d{1,5})\s"
)


def decode(content: bytes, check_claim: CheckClaim, *, indices: bool) -> Array:
    """Pixels (H, W) or (H, W, C) with C = 2 (grey, alpha), 3 (RGB) or 4 (RGB, alpha).

    ``check_claim(claimed_bytes, holdable_bytes)`` is called before allocation. Raises CaseRejected:
    UNREADABLE for unknown formats and unsupported variants, CORRUPT, HEADER_SIZE.
    """
    for magic, reader in _READERS.items():
        if content.startswith(magic):
            with refusing(Reason.CORRUPT, "the image does not decode"):
                return reader(content, check_claim, indices)
    raise CaseRejected(Reason.UNREADABLE, "not a PNG, JPEG, TIFF, BMP, GIF, PGM or PPM file")


def _png(content: bytes, check_claim: CheckClaim, indices: bool) -> Array:
    chunks = list(_png_chunks(content))
    kind, header = chunks[0]
    if kind != b"IHDR" or len(header) != 13:
        raise CaseRejected(Reason.CORRUPT, "the PNG does not begin with its header")
    width, height, depth, colour = struct.unpack(">IIBB", header[:10])
    size = width * height * _PNG_CHANNELS.get(colour, 4) * (2 if depth == 16 else 1)
    check_claim(size, len(content) * DEFLATE_RATIO * 32)  # one-bit indices decode to four bytes each
    if not indices or colour != _PNG_PALETTE:
        pixels = plain(header, chunks)
        return _decoded(imagecodecs.png_decode(content) if pixels is None else pixels, height, width)
    ramp = bytes(grey for index in range(1 << depth) for grey in (index, index, index))
    indexed = [(k, memoryview(ramp) if k == b"PLTE" else data) for k, data in chunks if k != b"tRNS"]
    return _decoded(imagecodecs.png_decode(_png_joined(indexed)), height, width)[..., 0].copy()


def _png_chunks(content: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """(kind, data) of every chunk; the data are views, as a large picture's are nearly the whole file."""
    view = memoryview(content)
    at, kind = len(_PNG), b""
    while kind != b"IEND":
        if at + _PNG_CHUNK.size > len(content):
            raise CaseRejected(Reason.CORRUPT, "the PNG is cut")
        length, kind = _PNG_CHUNK.unpack_from(content, at)
        start, end = at + _PNG_CHUNK.size, at + _PNG_CHUNK.size + length
        crc = content[end : end + 4]
        if len(crc) != 4:
            raise CaseRejected(Reason.CORRUPT, "the PNG is cut")
        if isal_zlib.crc32(view[at + 4 : end]) != int.from_bytes(crc, "big"):
            raise CaseRejected(Reason.CORRUPT, "a chunk of the PNG has a wrong CRC")
        yield kind, view[start:end]
        at = end + 4


def _png_joined(chunks: list[tuple[bytes, memoryview]]) -> bytes:
    return _PNG + b"".join(
        struct.pack(">I", len(data))
        + kind
        + bytes(data)
        + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))
        for kind, data in chunks
    )


def _jpeg(content: bytes, check_claim: CheckClaim, indices: bool) -> Array:
    height = width = components = 0
    for marker, segment in _jpeg_segments(content):
        if marker not in _JPEG_FRAMES:
            continue
        precision, height, width, components = struct.unpack(">BHHB", segment[:6])
        if marker not in _JPEG_SUPPORTED or precision != 8 or components not in {1, 3} or not height:
            raise CaseRejected(
                Reason.UNREADABLE, "JPEG of a kind that is not supported (8-bit grey or colour is)"
            )
        size = height * width * components
        check_claim(size, size)  # the file's size says nothing: an all-grey JPEG is nearly empty
    if not components:
        raise CaseRejected(Reason.CORRUPT, "the JPEG has no frame")
    return _decoded(imagecodecs.jpeg8_decode(content), height, width)


def _jpeg_segments(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Every marker segment up to EOI. Raises CaseRejected when EOI is missing."""
    at = 2
    while found := _JPEG_MARKER.search(content, at):
        marker, at = content[found.start() + 1], found.end()
        if marker == 0xD9:
            return
        length = int.from_bytes(content[at : at + 2], "big")
        if marker == 0x01:  # TEM stands alone
            continue
        yield marker, content[at + 2 : at + length]
        at += length
    raise CaseRejected(Reason.CORRUPT, "the JPEG is cut")


def _gif(content: bytes, check_claim: CheckClaim, indices: bool) -> Array:
    width, height, flags = struct.unpack("<HHB", content[6:11])
    frames = 1 + _gif_pixels(content, 13 + _colour_table_bytes(flags)) // max(1, width * height)
    check_claim(width * height * 3 * frames, width * height * 3 * frames)  # the decoder holds every frame
    return _decoded(imagecodecs.gif_decode(content, index=0, asrgb=not indices), height, width)


def _gif_pixels(content: bytes, at: int) -> int:
    """Pixels of all frames. Raises CaseRejected when the trailer is missing."""
    pixels = 0
    while content[at : at + 1] != b"\x3b":
        introducer = content[at : at + 1]
        if introducer == b"\x21":
            at += 2
        elif introducer == b"\x2c" and len(content) > at + 10:
            width, height, flags = struct.unpack("<HHB", content[at + 5 : at + 10])
            pixels += width * height
            at += 11 + _colour_table_bytes(flags)
        else:
            raise CaseRejected(Reason.CORRUPT, "the GIF is cut")
        while at < len(content) and content[at]:
            at += 1 + content[at]
        at += 1
    return pixels


def _colour_table_bytes(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _bmp(content: bytes, check_claim: CheckClaim, indices: bool) -> Array:
    header_bytes, width, height, _, bits, compression = struct.unpack("<IiiHHI", content[14:34])
    if compression not in {0, 3} or bits not in {1, 4, 8, 16, 24, 32} or header_bytes < 40:
        raise CaseRejected(Reason.UNREADABLE, "BMP of a kind that is not supported (uncompressed is)")
    height, pixels_at = abs(height), int.from_bytes(content[10:14], "little")
    stored = (width * bits + 31) // 32 * 4 * height
    check_claim(width * height * 4, len(content) * 32)
    if pixels_at + stored > len(content):
        raise CaseRejected(Reason.CORRUPT, "the BMP is cut")
    if indices and bits <= 8:
        start = 14 + header_bytes
        entries = (pixels_at - start) // 4
        ramp = bytes(value for index in range(entries) for value in (*(min(index, 255),) * 3, 0))
        content = b"".join((content[:start], ramp, content[start + len(ramp) :]))
    pixels = _decoded(imagecodecs.bmp_decode(content), height, width)
    return pixels[..., 0].copy() if indices and bits <= 8 and pixels.ndim == 3 else pixels


def _netpbm(content: bytes, check_claim: CheckClaim, indices: bool) -> Array:
    header = _NETPBM.match(content)
    if header is None:
        raise CaseRejected(Reason.CORRUPT, "not a PGM or PPM header")
    kind, width, height, most = (int(group) for group in header.groups())
    channels, dtype = (3 if kind == 6 else 1), np.dtype(np.uint8 if most < 256 else ">u2")
    size = width * height * channels * dtype.itemsize
    check_claim(size, size)
    if len(content) - header.end() < size:
        raise CaseRejected(Reason.CORRUPT, "the PGM or PPM is cut")
    flat = np.frombuffer(content, dtype, count=size // dtype.itemsize, offset=header.end())
    shape = (height, width, 3) if channels == 3 else (height, width)
    return _decoded(flat.astype(dtype.newbyteorder("=")).reshape(shape), height, width)


def _decoded(pixels: Array, height: int, width: int) -> Array:
    if pixels.shape[:2] != (height, width) or not pixels.size:
        raise CaseRejected(Reason.CORRUPT, "the image is not of the size that its header states")
    return pixels


_READERS: dict[bytes, Callable[[bytes, CheckClaim, bool], Array]] = {
    _PNG: _png,
    b"\xff\xd8\xff": _jpeg,
    b"GIF87a": _gif,
    b"GIF89a": _gif,
    b"BM": _bmp,
    b"P5": _netpbm,
    b"P6": _netpbm,
}
