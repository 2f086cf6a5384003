"""Canonical axes: x, y, z of every volume grow to the patient's Right, Anterior and Superior (RAS+).

Nothing here copies a voxel: an orientation is a permutation of the stored axes and a set of flips, and both
are strides. Source: NiBabel, "Neuroimaging coordinate systems" and ``nibabel.orientations.io_orientation``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt
from nibabel.orientations import io_orientation

from medcurate.errors import CaseRejected, Reason
from medcurate.types import Array

Affine = npt.NDArray[np.float64]

# Determinant of the unit vectors along the voxel axes: 1 for a right-angled grid, 0.87 for a gantry tilt of
# 30 degrees, 0 for a singular affine.
MIN_INDEPENDENCE = 1e-3
# Float32 headers move corners by up to about 0.001 voxel, the smallest real disagreement by half a voxel.
MAX_CORNER_OFFSET_VOXELS = 0.1


@dataclass(frozen=True, slots=True)
class Orientation:
    """Canonical axis n (x, y, z) is stored axis ``axes[n]``, read backwards where ``flips[n]``."""

    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]


def orientation(affine: Affine) -> Orientation:
    """How (I, J, K) storage with this (4, 4) affine to RAS+ millimetres maps to canonical axes.

    An oblique grid takes the nearest axes, each once, as ``nibabel.orientations.io_orientation`` decides.
    Raises CaseRejected(GEOMETRY) for an affine of another shape, with NaN or infinite entries, or singular.
    """
    _require_regular(affine)
    nearest = io_orientation(affine)  # type: ignore[no-untyped-call]
    stored = [int(np.flatnonzero(nearest[:, 0] == axis)[0]) for axis in range(3)]
    first, second, third = (bool(nearest[axis, 1] < 0) for axis in stored)
    return Orientation((stored[0], stored[1], stored[2]), (first, second, third))


def canonical(array: Array, orientation: Orientation) -> Array:
    """View stored (I, J, K[, C]) as canonical (X, Y, Z[, C]); shares the memory of ``array``."""
    rest = tuple(range(3, array.ndim))
    steps = tuple(slice(None, None, -1 if flip else None) for flip in orientation.flips)
    return array.transpose(orientation.axes + rest)[steps]


def stored(array: Array, orientation: Orientation) -> Array:
    """View canonical (X, Y, Z[, C]) as stored (I, J, K[, C]): the inverse of ``canonical``."""
    steps = tuple(slice(None, None, -1 if flip else None) for flip in orientation.flips)
    rest = tuple(range(3, array.ndim))
    return array[steps].transpose(*sorted(range(3), key=lambda axis: orientation.axes[axis]), *rest)


def stored_affine(affine: Affine, orientation: Orientation, shape: Sequence[int]) -> Affine:
    """The inverse of ``canonical_affine``: (4, 4) from stored (i, j, k, 1); ``shape`` is the canonical one."""
    moved = np.array(affine, np.float64)
    for axis, (place, flip) in enumerate(zip(orientation.axes, orientation.flips, strict=True)):
        column = np.asarray(affine, np.float64)[:, axis]
        moved[:, place] = -column if flip else column
        if flip:
            moved[:, 3] += column * (shape[axis] - 1)
    return moved


def along(directions: str) -> Orientation:
    """The orientation of axes i, j, k that grow to these directions: "LPS" is ITK's."""
    places = [next(n for n, letter in enumerate(directions) if letter in pair) for pair in ("RL", "AP", "SI")]
    first, second, third = (directions[place] in "LPI" for place in places)
    return Orientation((places[0], places[1], places[2]), (first, second, third))


def canonical_affine(affine: Affine, orientation: Orientation, shape: Sequence[int]) -> Affine:
    """(4, 4) affine from canonical voxel (x, y, z, 1) to RAS+ mm; ``shape`` is the stored (I, J, K, ...)."""
    moved = np.array(affine, np.float64)
    for axis, (stored, flip) in enumerate(zip(orientation.axes, orientation.flips, strict=True)):
        column = np.asarray(affine, np.float64)[:, stored]
        moved[:, axis] = -column if flip else column
        if flip:
            moved[:, 3] += column * (shape[stored] - 1)
    return moved


def canonical_spacing_mm(affine: Affine, orientation: Orientation) -> tuple[float, float, float]:
    """Distance of neighbouring voxels along canonical x, y, z in mm: the norms of the affine's columns.

    Not by numpy's norm of a vector: that is a BLAS product, whose last bit depends on the processor.
    """
    x, y, z = (math.hypot(*affine[:3, stored].tolist()) for stored in orientation.axes)
    return x, y, z


def same_grid(shape_a: Sequence[int], affine_a: Affine, shape_b: Sequence[int], affine_b: Affine) -> str:
    """What differs between two stored grids, in words; "" when they are the same.

    Shapes may carry trailing channel axes, which are not compared. Affines agree when no corner of the grid
    moves by more than MAX_CORNER_OFFSET_VOXELS along any voxel axis.
    """
    spatial_a, spatial_b = tuple(shape_a[:3]), tuple(shape_b[:3])
    if spatial_a != spatial_b:
        return f"shape {_by(spatial_a)} against {_by(spatial_b)}"
    offset = corner_offset_voxels(spatial_a, affine_a, affine_b)
    if offset <= MAX_CORNER_OFFSET_VOXELS:
        return ""
    return f"affine: corners lie up to {offset:.3g} voxels apart, more than {MAX_CORNER_OFFSET_VOXELS:g}"


def corner_offset_voxels(shape: Sequence[int], affine_a: Affine, affine_b: Affine) -> float:
    """Largest distance, along a voxel axis and in voxels of grid a, between the outer corners of two grids.

    Outer corners lie at -0.5 and n - 0.5, so that the spacing of an axis of one voxel counts too.
    Raises CaseRejected(GEOMETRY) when one of the affines is not regular.
    """
    for affine in (affine_a, affine_b):
        _require_regular(affine)
    corners = np.array([(*corner, 1.0) for corner in product(*((-0.5, size - 0.5) for size in shape))]).T
    return float(np.abs(np.linalg.solve(affine_a, affine_b @ corners) - corners).max())


def _require_regular(affine: Affine) -> None:
    if affine.shape != (4, 4):
        raise CaseRejected(Reason.GEOMETRY, f"the affine is {_by(affine.shape)} instead of 4 x 4")
    wrong = int(np.count_nonzero(~np.isfinite(affine)))
    if wrong:
        raise CaseRejected(
            Reason.GEOMETRY, "the affine holds NaN or infinite entries", {"measure": wrong, "bound": 0}
        )
    with np.errstate(over="ignore"):
        norms = np.linalg.norm(affine[:3, :3], axis=0)
    usable = bool(np.all(norms > 0) and np.all(np.isfinite(norms)))
    independence = round(abs(float(np.linalg.det(affine[:3, :3] / norms))), 6) if usable else 0.0
    if not independence >= MIN_INDEPENDENCE:
        raise CaseRejected(
            Reason.GEOMETRY,
            "the affine is singular: its axes do not span three dimensions",
            {"measure": independence, "bound": MIN_INDEPENDENCE},
        )


def _by(shape: Sequence[int]) -> str:
    return " x ".join(str(size) for size in shape)
