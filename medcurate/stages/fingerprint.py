"""A digest of what a volume holds, not of how a file stores it: equal voxels, equal digest.

Challenge sets repackage each other: another orientation, another integer width, HU with the intercept
applied, another compression. The digest sees through these, so that the same scan joins one group.

Canonical form, version 1: a header (shape and spacing), then every plane perpendicular to z, by ascending
z, its rows by ascending y and each row by ascending x. A plane is written in the first of these forms that
holds its physical values exactly, preceded by the form's name: little-endian int16 ("i2"), int64 ("i8"),
float64 ("f8"). The form depends on the values only. XXH3-128 of all that; not a cryptographic digest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import xxhash

from medcurate.stages.contiguous import contiguous_plane, each_plane
from medcurate.types import Array

_VERSION = "medcurate-voxels-1"
_SPACING_STEP_MM = 0.001
# Spacings such as 0.7125 mm would stand on the border of two steps and be torn apart by float noise; with
# this offset the borders lie where no rounded number does.
_SPACING_OFFSET = 1 / math.pi
_BLOCK_VOXELS = 1 << 20  # of a picture, whose only plane may be as large as all else
_INT16 = (-(1 << 15), (1 << 15) - 1)
_INT64 = (-(1 << 63), (1 << 63) - 1)


def voxel_digest(
    canonical_array: Array,
    spacing_mm: Sequence[float] | None,
    *,
    slope: float = 1.0,
    intercept: float = 0.0,
) -> str:
    """32 hexadecimal digits for canonical (X, Y, Z[, C]) voxels or a grey picture (H, W).

    Physical values are ``stored * slope + intercept`` in float64. Equal values give equal digests whatever
    their dtype, byte order, strides, slope and intercept; NaN are told apart by their bits. ``spacing_mm``:
    (x, y, z), compared in steps of 0.001 mm; None leaves it out. Temporaries are a few planes; of 8-bit and int16
    pictures, blocks of rows.
    """
    volume = canonical_array if canonical_array.ndim > 2 else canonical_array[:, :, np.newaxis]
    digest = xxhash.xxh3_128(_header(canonical_array.shape, spacing_mm).encode())
    rest = tuple(range(3, volume.ndim))
    stack = volume.transpose((2, 1, 0, *rest))
    if len(stack) == 1 and np.can_cast(stack.dtype, np.int16) and (slope, intercept) == (1, 0):
        digest.update(b"i2")
        for rows in range(0, stack.shape[1], step := max(1, _BLOCK_VOXELS // max(1, stack[0, :1].size))):
            digest.update(contiguous_plane(stack[0, rows : rows + step]).astype("<i2", copy=False).data)
        return digest.hexdigest()
    for _, plane in each_plane(stack, range(len(stack))):
        values = _exact(plane, slope, intercept)
        digest.update(values.dtype.str[1:].encode())
        digest.update(values.data)
    return digest.hexdigest()


def picture_digest(picture: Array) -> str:
    """``voxel_digest`` of a colour picture (H, W, C): one plane of C channels, without spacing."""
    return voxel_digest(picture[:, :, np.newaxis], None)


def _header(shape: Sequence[int], spacing_mm: Sequence[float] | None) -> str:
    steps = [math.floor(value / _SPACING_STEP_MM + _SPACING_OFFSET) for value in spacing_mm or ()]
    return f"{_VERSION}|{list(shape)}|{steps}|"


def _exact(plane: Array, slope: float, intercept: float) -> Array:
    """The physical values of a plane, as contiguous little-endian int16, int64 or float64."""
    plane = plane.astype(plane.dtype.newbyteorder("="), copy=False)
    if plane.dtype.kind in "bui" and slope == 1 and float(intercept).is_integer():
        integers = _as_integers(plane, int(intercept))
        if integers is not None:
            return integers
    values = plane.astype(np.float64)
    values *= slope
    values += intercept
    whole = _as_integers(values, 0) if np.array_equal(values, np.rint(values)) else None
    return values.astype("<f8", copy=False) if whole is None else whole


def _as_integers(values: Array, offset: int) -> Array | None:
    """Integral ``values + offset`` in the narrower of int16 and int64 that holds them all, else None."""
    if offset == 0 and np.can_cast(values.dtype, np.int16):
        return values.astype("<i2", copy=False)
    unsigned = (
        values.dtype.kind in "bu" and offset >= 0
    )  # then no sum is below a bound: the least need not be found
    low = 0 if unsigned else values.min().item() + offset
    high = values.max().item() + offset
    for dtype, (least, most) in ((np.dtype("<i2"), _INT16), (np.dtype("<i8"), _INT64)):
        if not (least <= low and high <= most):
            continue
        if values.dtype.kind == "f":
            return values.astype(dtype)
        # Unsigned sums wrap, so the bits are right whenever the true sum is in range.
        moved = values.astype(f"u{dtype.itemsize}", copy=False)
        if offset == 0:
            return moved.view(dtype)
        shift = moved.dtype.type(offset % (1 << 8 * dtype.itemsize))
        total: Array = np.add(moved, shift)
        return total.view(dtype)
    return None
