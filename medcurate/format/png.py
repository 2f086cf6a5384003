"""Fast lossless PNG: the "up" filter in numpy and ISA-L deflate at level 1; every PNG reader opens it.

Measured against the alternatives in ``docs/benchmarks.md``. Byte-identical builds rely on ISA-L's output at this level,
which was found equal on SSE4, AVX2 and AVX-512 processors, and is equal at every address of the heap only because of
how a stream is begun here (``docs/decisions.md``, 5).
Source: PNG Specification (Third Edition), 9.2 "Filter types", 10 "Compression", 11.2 "Critical chunks".
"""

from __future__ import annotations

import functools
import struct
import zlib
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import numpy.typing as npt
from isal import isal_zlib

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_FILTER_UP = 2
_COLOUR_TYPES = {1: 0, 3: 2}  # channels -> greyscale, truecolour
_END = struct.pack(">I4sI", 0, b"IEND", zlib.crc32(b"IEND"))
_IsalError: type[Exception] = isal_zlib.error  # type: ignore[assignment]  # its stub declares an instance
_LEVEL = 1
# ISA-L hashes the address of its stream object instead of the bytes where a stream begins (write_first_byte in
# igzip_icf_body_h1_gr_bt.asm), and so finds another match now and then. Few bytes, flushed before the rest, are never
# brought there, and with the history that they leave, neither is the rest; it takes four.
_HEAD_BYTES = 8
_BLOCK_BYTES = 1 << 22  # filtered at a time; part of the format, as the deflated bytes depend on it
_MAX_SIDE_PX = 65535
_MAX_DEFLATE_RATIO = 1032  # 258 bytes for two bits: RFC 1951, 3.2.5 and 3.2.7


def encode(image: npt.NDArray[np.uint8]) -> bytes:
    """uint8 (H, W) grey or (H, W, 3) RGB to PNG bytes. Raises ValueError for other shapes or dtypes."""
    if image.dtype != np.uint8 or image.ndim not in {2, 3} or (image.ndim == 3 and image.shape[2] != 3):
        raise ValueError(f"PNG needs uint8 (H, W) or (H, W, 3), not {image.dtype} {image.shape}")
    height, width = image.shape[:2]
    if not (0 < height <= _MAX_SIDE_PX and 0 < width <= _MAX_SIDE_PX):
        raise ValueError(f"image sides must be 1 to {_MAX_SIDE_PX} pixels, not {height} x {width}")
    channels = 3 if image.ndim == 3 else 1
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPES[channels], 0, 0, 0)
    data = _deflated(image.reshape(height, width * channels))
    return b"".join((_SIGNATURE, *_chunk(b"IHDR", [header]), *_chunk(b"IDAT", data), _END))


def decode(data: bytes) -> npt.NDArray[np.uint8]:
    """PNG bytes, 8-bit grey or RGB, to uint8 (H, W) or (H, W, 3) RGB.

    Every chunk's CRC is checked before anything is allocated. Raises ValueError when the bytes are damaged,
    cut, followed by others, or hold another kind of image (palette, alpha, 16 bits).
    """
    height, width, channels, compressed = _checked_header(data)
    image = _decode_up(compressed, height, width, channels)
    return _decode_any(data, height, width, channels) if image is None else image


def _decode_up(compressed: bytes, height: int, width: int, channels: int) -> npt.NDArray[np.uint8] | None:
    """Pixels of a PNG whose rows all have the filter "up", as ``encode`` writes them, else None.

    Row r is the sum of the stored rows 0 to r: log2(height) passes add rows 1, 2, 4, … above.
    """
    inflater = isal_zlib.decompressobj()
    try:
        raw = inflater.decompress(compressed, height * (width * channels + 1) + 1)
    except _IsalError as error:
        raise ValueError(f"PNG does not decode: {error}") from error
    if len(raw) != height * (width * channels + 1) or not inflater.eof:
        return None
    rows = np.frombuffer(raw, np.uint8).reshape(height, width * channels + 1)
    if (rows[:, 0] != _FILTER_UP).any():
        return None
    image = rows[:, 1:].copy()
    step = 1
    while step < height:
        image[step:] += image[:-step]
        step *= 2
    return image.reshape((height, width, 3) if channels == 3 else (height, width))


def _decode_any(data: bytes, height: int, width: int, channels: int) -> npt.NDArray[np.uint8]:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise ValueError(f"PNG does not decode: {error.err}") from error
    shape = (height, width, 3) if channels == 3 else (height, width)
    if image is None or image.dtype != np.uint8 or image.shape != shape:
        raise ValueError(f"PNG does not decode to 8 bits and {channels} channels")
    rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if channels == 3 else image
    return rgb.astype(np.uint8, copy=False)


def _checked_header(data: bytes) -> tuple[int, int, int, bytes]:
    """Height, width, channels and IDAT of a whole PNG whose chunks are undamaged. Raises ValueError."""
    chunks = list(_chunks(data))
    if [kind for kind, _ in chunks[:1] + chunks[-1:]] != [b"IHDR", b"IEND"] or len(chunks[0][1]) != 13:
        raise ValueError("not a whole PNG: it must begin with IHDR and end with IEND")
    width, height, depth, colour_type = struct.unpack(">IIBB", chunks[0][1][:10])
    channels = {colour: count for count, colour in _COLOUR_TYPES.items()}.get(colour_type)
    if depth != 8 or channels is None:
        raise ValueError(f"PNG of colour type {colour_type} with {depth} bits; grey or RGB with 8 is needed")
    compressed = b"".join(payload for kind, payload in chunks if kind == b"IDAT")
    if height * (width * channels + 1) > len(compressed) * _MAX_DEFLATE_RATIO:
        raise ValueError(f"PNG claims {height} x {width} pixels, more than {len(compressed)} bytes can hold")
    return height, width, channels, compressed


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """(type, payload) of every chunk. Raises ValueError when one is cut or its CRC is wrong."""
    if not data.startswith(_SIGNATURE):
        raise ValueError("not a PNG: the signature is missing")
    offset, view = len(_SIGNATURE), memoryview(data)
    while offset < len(data):
        end = offset + 12 + int.from_bytes(view[offset : offset + 4], "big")
        kind, payload, crc = (
            bytes(view[offset + 4 : offset + 8]),
            view[offset + 8 : end - 4],
            view[end - 4 : end],
        )
        if end > len(data):
            raise ValueError(f"PNG is cut: {len(data)} of {end} bytes")
        if int.from_bytes(crc, "big") != isal_zlib.crc32(payload, isal_zlib.crc32(kind)):
            raise ValueError(f"PNG is damaged: wrong CRC of chunk {kind!r}")
        yield kind, payload
        offset = end


def _deflated(rows: npt.NDArray[np.uint8]) -> list[bytes]:
    """The zlib stream of filtered rows, in pieces: a large picture is never in memory filtered as a whole."""
    deflater = isal_zlib.compressobj(_LEVEL)
    step = max(1, _BLOCK_BYTES // rows.shape[1])
    pieces = []
    for first in range(0, len(rows), step):
        block = _filtered(rows, first, first + step).reshape(-1)
        if first == 0:
            pieces += [deflater.compress(block[:_HEAD_BYTES]), deflater.flush(isal_zlib.Z_SYNC_FLUSH)]
            block = block[_HEAD_BYTES:]
        pieces.append(deflater.compress(block))
    return [*pieces, deflater.flush()]


def _filtered(rows: npt.NDArray[np.uint8], first: int, stop: int) -> npt.NDArray[np.uint8]:
    """Rows [first, stop), each behind its filter's number and less the row above."""
    chosen = rows[first:stop]
    filtered = np.empty((len(chosen), rows.shape[1] + 1), np.uint8)
    filtered[:, 0] = _FILTER_UP
    filtered[0, 1:] = chosen[0] - rows[first - 1] if first else chosen[0]
    np.subtract(chosen[1:], chosen[:-1], out=filtered[1:, 1:])
    return filtered


def _chunk(kind: bytes, payload: Sequence[bytes]) -> list[bytes]:
    """A chunk in pieces, to be joined; ``payload`` is in pieces too."""
    crc = functools.reduce(lambda crc, piece: isal_zlib.crc32(piece, crc), payload, isal_zlib.crc32(kind))
    return [struct.pack(">I", sum(map(len, payload))), kind, *payload, struct.pack(">I", crc)]
