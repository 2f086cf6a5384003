"""Planes of strided views as C-contiguous arrays, at the speed of memory.

A canonical view is full of negative and swapped strides, which numpy copies element by element. OpenCV's
flip and transpose work in vector registers and tiles; they see bytes, so any dtype of 1, 2, 4 or 8 bytes
may pass. Measured in ``docs/benchmarks.md``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

import cv2
import numpy as np

from medcurate.types import Array

# Moving elements needs their size only; these stand for every dtype of that size, of either byte order.
_CARRIERS: dict[int, np.dtype[Any]] = {
    np.dtype(name).itemsize: np.dtype(name) for name in ("u1", "u2", "i4", "f8")
}
_CACHE_LINE_BYTES = 64


def contiguous_plane(plane: Array) -> Array:
    """(rows, cols[, C]) of any strides as a C-contiguous array; may share memory with ``plane``."""
    carrier = _CARRIERS.get(plane.dtype.itemsize)
    if plane.flags.c_contiguous or carrier is None or (plane.ndim == 3 and plane.shape[2] != 3):
        return np.ascontiguousarray(plane)
    flip_rows, flip_cols = plane.strides[0] < 0, plane.strides[1] < 0
    base = plane[:: -1 if flip_rows else 1, :: -1 if flip_cols else 1].view(carrier)
    swapped = base.strides[0] < base.strides[1]
    base = base.swapaxes(0, 1) if swapped else base
    if not base[0].flags.c_contiguous:
        return np.ascontiguousarray(plane)
    moved = _flipped(cv2.transpose(base) if swapped else base, flip_rows, flip_cols)
    return np.ascontiguousarray(moved).view(plane.dtype)


def each_plane(stack: Array, indices: Iterable[int]) -> Iterator[tuple[int, Array]]:
    """(index, C-contiguous plane) for ascending ``indices`` of a stack (n, rows, cols[, C]).

    A stack whose neighbouring *planes* are neighbours in memory (sagittal planes of an axial volume) wastes
    all but one element of every cache line on a single plane; its planes are taken a cache line at a time.
    Temporaries are bounded by 64 bytes a pixel of the plane. Planes may share memory: do not write to them.
    """
    if stack.ndim != 3 or abs(stack.strides[0]) != stack.itemsize or stack.itemsize not in _CARRIERS:
        yield from ((index, contiguous_plane(stack[index])) for index in indices)
        return
    depth = _CACHE_LINE_BYTES // stack.itemsize
    for block, members in groupby(indices, lambda index: index // depth):
        start = block * depth
        slab = _contiguous_slab(stack[start : start + depth])
        yield from ((index, slab[index - start]) for index in members)


def _contiguous_slab(stack: Array) -> Array:
    """(n, rows, cols) whose first axis is contiguous (forwards or backwards), as a C-contiguous copy."""
    flip_planes, flip_cols = stack.strides[0] < 0, stack.strides[2] < 0
    base = stack[:: -1 if flip_planes else 1, :, :: -1 if flip_cols else 1].view(_CARRIERS[stack.itemsize])
    slab = np.empty(stack.shape, base.dtype)
    for row in range(stack.shape[1]):
        slab[:, row] = _flipped(cv2.transpose(base[:, row].T), flip_planes, flip_cols)
    return slab.view(stack.dtype)


def _flipped(array: Array, rows: bool, cols: bool) -> Array:
    if not (rows or cols):
        return array
    code = -1 if rows and cols else int(cols)
    return cv2.flip(array, code)
