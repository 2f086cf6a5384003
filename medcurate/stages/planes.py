"""Planes of a canonical volume in radiological display, and the way back.

    axis  plane     rows run               columns run                 slice_index grows to
    z     axial     anterior -> posterior  patient's right -> left     superior
    y     coronal   superior -> inferior   patient's right -> left     anterior
    x     sagittal  superior -> inferior   anterior -> posterior       right

All in-plane directions run against the canonical (RAS+) axes, so one pair of flips serves the three axes.
Source: DICOM PS3.3 C.7.6.2.1.1 (the patient-based coordinate system) and the usual display of a viewer:
the patient is seen from the feet, from the front, and from the left.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from medcurate.config.recipe import AxisRule
from medcurate.stages.contiguous import contiguous_plane
from medcurate.stages.orient import Affine
from medcurate.types import Array

Axis = Literal["x", "y", "z"]

# Where spacings tie, the most usual plane wins: axial, then coronal, then sagittal.
_TIE_ORDER: tuple[Axis, ...] = ("z", "y", "x")
_TIE_FRACTION = 0.01
# axis -> canonical axes of (slice, row, column)
_LAYOUT: dict[Axis, tuple[int, int, int]] = {"x": (0, 2, 1), "y": (1, 2, 0), "z": (2, 1, 0)}


def resolve_axes(rules: Sequence[AxisRule], spacing_mm: Sequence[float]) -> tuple[Axis, ...]:
    """The axes to slice along, in the recipe's order, each once.

    ``spacing_mm``: canonical (x, y, z). ``out-of-plane`` is the axis of the largest spacing; axes within 1 %
    of the largest tie, and z wins over y over x.
    """
    chosen: list[Axis] = [_out_of_plane(spacing_mm) if rule == "out-of-plane" else rule for rule in rules]
    return tuple(dict.fromkeys(chosen))


def planes(canonical_array: Array, axis: Axis) -> Array:
    """View canonical (X, Y, Z[, C]) as a stack (n, rows, cols[, C]); the first index is ``slice_index``."""
    rest = tuple(range(3, canonical_array.ndim))
    return canonical_array.transpose(_LAYOUT[axis] + rest)[:, ::-1, ::-1]


def place_back(stack: Array, axis: Axis) -> Array:
    """View a stack (n, rows, cols[, C]) as canonical (X, Y, Z[, C]): the inverse of ``planes``."""
    rest = tuple(range(3, stack.ndim))
    return stack[:, ::-1, ::-1].transpose((*np.argsort(_LAYOUT[axis]).tolist(), *rest))


def plane_spacing_mm(spacing_mm: Sequence[float], axis: Axis) -> tuple[float, float]:
    """Distance of neighbouring rows and of neighbouring columns; ``spacing_mm`` is canonical (x, y, z)."""
    _, row, col = _LAYOUT[axis]
    return spacing_mm[row], spacing_mm[col]


def aspect(rows: int, cols: int) -> float:
    """Short side / long side in pixels, 0 to 1.

    Pixels, not millimetres, as SA-Med2D-20M judged its slices (arXiv 2311.11969).
    """
    return min(rows, cols) / max(rows, cols)


def plane_affine(canonical_affine: Affine, shape: Sequence[int], axis: Axis) -> Affine:
    """(4, 4) affine from (slice_index, row, col, 1) to RAS+ mm; ``shape`` is canonical (X, Y, Z, ...)."""
    plane, row, col = _LAYOUT[axis]
    to_voxel: npt.NDArray[np.float64] = np.zeros((4, 4))
    to_voxel[plane, 0] = to_voxel[3, 3] = 1
    to_voxel[row, [1, 3]] = -1, shape[row] - 1
    to_voxel[col, [2, 3]] = -1, shape[col] - 1
    return canonical_affine @ to_voxel


def plane_uint8(u8_planes_view: npt.NDArray[np.uint8], index: int) -> npt.NDArray[np.uint8]:
    """One plane of a stack (n, rows, cols[, 3]) as C-contiguous uint8 (rows, cols[, 3]).

    May share memory with the stack: do not write to it. Where many planes are wanted,
    ``contiguous.each_plane`` is faster for stacks that are contiguous along their first axis.
    """
    return contiguous_plane(u8_planes_view[index])


def _out_of_plane(spacing_mm: Sequence[float]) -> Axis:
    by_axis = dict(zip("xyz", spacing_mm, strict=True))
    largest = max(spacing_mm)
    return next(axis for axis in _TIE_ORDER if by_axis[axis] > largest * (1 - _TIE_FRACTION))
