"""PNG whose rows all have one simple filter, as OpenCV and medcurate write them: undone in one running sum.

A library decodes row by row, which costs several times as much on the small pictures of 2D sets. Source: PNG
specification, 3rd edition, clauses 7.3 (scanlines), 9.2 (filter types), 10 (compression).
"""

from __future__ import annotations

from collections.abc import Sequence

import imagecodecs
import numpy as np

from medcurate.types import Array

_SAMPLES = {0: 1, 2: 3, 4: 2, 6: 4}  # of a pixel, by colour type
_SUMMED = {0: None, 1: 1, 2: 0}  # filter type (none, sub, up): the axis that its differences lie along
_DEPTH = 8


def plain(header: memoryview, chunks: Sequence[tuple[bytes, memoryview]]) -> Array | None:
    """uint8 (H, W) or (H, W, C); None where only a library decodes it, or finds out what is wrong with it.

    ``header``: the IHDR chunk's 13 bytes; ``chunks``: all (kind, data), their CRCs checked. The size has been
    held against the limit.
    """
    width, height = int.from_bytes(header[:4], "big"), int.from_bytes(header[4:8], "big")
    samples = _SAMPLES.get(header[9])
    if header[8] != _DEPTH or samples is None or any(header[10:]) or not width or not height:
        return None
    if any(kind == b"tRNS" for kind, _ in chunks):
        return None
    rows = _inflated([data for kind, data in chunks if kind == b"IDAT"], height, 1 + width * samples)
    if rows is None:
        return None
    kind = int(rows[0, 0])
    if kind not in _SUMMED or rows[:, 0].tobytes() != bytes((kind,)) * height:
        return None
    pixels = rows[:, 1:].reshape((height, width, samples) if samples > 1 else (height, width))
    axis = _SUMMED[kind]
    # Modulo 256; numpy's cumsum does the same in five times the time.
    return pixels.copy() if axis is None else np.asarray(imagecodecs.delta_decode(pixels, axis=axis))


def _inflated(data: Sequence[memoryview], height: int, row_bytes: int) -> Array | None:
    """uint8 (H, 1 + bytes of a row); libdeflate verifies Adler-32 and that no byte is missing."""
    output = np.empty(height * row_bytes, np.uint8)
    try:
        decoded = imagecodecs.deflate_decode(b"".join(data), out=output.data)
    except imagecodecs.DeflateError:
        return None
    return output.reshape(height, row_bytes) if len(decoded) == len(output) else None
