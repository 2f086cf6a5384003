"""Lengths and areas of mask surfaces, by the corners between pixels.

Around every corner of the grid lie 4 pixels (2D) or 8 voxels (3D); which of them are set is the corner's code. Where
some are and some are not, the surface passes, with a length (mm) or an area (mm²) that depends on the code alone.
Sources: Nikolov et al., arXiv 1809.04430, section "Surface DSC", and its published code (surface-distance,
lookup_tables.py): lengths from marching squares, areas from marching cubes with vertices in the middle of edges.
Its table of 256 codes follows from 13 of them by the cube's 48 symmetries and by exchanging inside and outside.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from itertools import permutations, product

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]
Codes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

# Code -> normals of its triangles, their lengths the areas, in eighths of the spacing.
_NORMALS = {
    0b00000001: ((1, 1, 1),),
    0b00000011: ((-2, -2, 0), (2, 2, 0)),
    0b00000110: ((1, -1, 1), (-1, -1, 1)),
    0b00000111: ((4, 0, 0), (2, 2, 2), (1, 1, 1)),
    0b00001111: ((4, 0, 0), (4, 0, 0)),
    0b00010110: ((-1, -1, 1), (1, -1, 1), (1, -1, -1)),
    0b00010111: ((-1, -1, -1), (-2, -2, -2), (2, 2, 2), (1, 1, 1)),
    0b00011000: ((-1, 1, 1), (1, -1, -1)),
    0b00011001: ((0, -2, -2), (0, 2, 2), (-1, 1, 1)),
    0b00011011: ((1, 1, 1), (3, 3, 3), (0, -2, 2), (-2, 0, 2)),
    0b00011110: ((-4, 0, 0), (-1, -1, -1), (-2, -2, -2), (1, 1, 1)),
    0b00111100: ((2, -2, 0), (-2, 2, 0), (2, -2, 0), (2, -2, 0)),
    0b01101001: ((-1, 1, 1), (1, -1, 1), (-1, -1, 1), (1, 1, 1)),
}
_CORNERS = tuple(product((-1, 1), repeat=3))


def corner_codes(mask: Bools) -> Codes:
    """Codes of all corners of bool (H, W) or (D, H, W): uint8 (H + 1, W + 1) or (D + 1, H + 1, W + 1).

    The pixel at the lowest indices has the highest bit; outside of the array nothing is set.
    """
    padded = np.pad(mask.view(np.uint8), 1)
    codes = np.zeros([side + 1 for side in mask.shape], np.uint8)
    for place in product((0, 1), repeat=mask.ndim):
        window = tuple(slice(at, at + side) for at, side in zip(place, codes.shape, strict=True))
        np.left_shift(codes, 1, out=codes)
        np.bitwise_or(codes, padded[window], out=codes)
    return codes


def sizes_of_codes(spacing_mm: tuple[float, ...]) -> Floats:
    """Length (mm) of the contour for each of 16 codes, or area (mm²) of the surface for each of 256."""
    return _lengths(*spacing_mm) if len(spacing_mm) == 2 else _areas(*spacing_mm)


@cache
def _lengths(row_mm: float, col_mm: float) -> Floats:
    found = np.full(16, 0.5 * math.hypot(row_mm, col_mm))  # one pixel set, or all but one
    found[[0b0000, 0b1111]] = 0
    found[[0b0011, 0b1100]] = col_mm
    found[[0b0101, 0b1010]] = row_mm
    found[[0b0110, 0b1001]] *= 2
    return found


@cache
def _areas(*spacing_mm: float) -> Floats:
    sides = np.array(spacing_mm)
    scale = sides.prod() / sides / 8
    found = np.zeros(256)
    for code, normals in _NORMALS.items():
        for symmetry in _symmetries():
            turned = _turned(code, symmetry)
            area = np.linalg.norm(np.array(normals) @ symmetry.T * scale, axis=1).sum()
            found[[turned, 255 - turned]] = area
    return found


def _symmetries() -> Iterator[npt.NDArray[np.int64]]:
    """The 48 signed permutations of three axes, as matrices."""
    for axes in permutations(range(3)):
        for signs in product((-1, 1), repeat=3):
            matrix = np.zeros((3, 3), np.int64)
            matrix[range(3), axes] = signs
            yield matrix


def _turned(code: int, symmetry: npt.NDArray[np.int64]) -> int:
    """The code of the same eight voxels after ``symmetry``."""
    moved = 0
    for number, corner in enumerate(_CORNERS):
        if code >> (7 - number) & 1:
            moved |= 1 << (7 - _CORNERS.index(tuple((symmetry @ corner).tolist())))
    return moved
