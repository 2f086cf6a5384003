"""The voxel grid that all images and labels of a case share."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from medcurate.config.source import Source
from medcurate.errors import CaseRejected, Reason
from medcurate.stages.orient import (
    Orientation,
    canonical,
    canonical_affine,
    canonical_spacing_mm,
    orientation,
    same_grid,
    stored,
    stored_affine,
)
from medcurate.stages.planes import Axis, plane_spacing_mm, planes
from medcurate.types import Array, Volume


@dataclass(frozen=True, slots=True)
class Grid:
    """Shape and place of the voxels.

    ``affine`` and ``axes`` (its orientation) are None for 2D images, whose spacing may be known.
    """

    shape: tuple[int, ...]
    affine: npt.NDArray[np.float64] | None
    axes: Orientation | None
    image_spacing_mm: tuple[float, float] | None

    def canonical(self, array: Array) -> Array:
        """View of ``array`` on canonical axes (X, Y, Z[, 3]); a 2D image becomes (1, H, W[, 3])."""
        return array[np.newaxis] if self.axes is None else canonical(array, self.axes)

    def planes(self, array: Array, axis: Axis | None) -> Array:
        """View of ``array`` as (n, rows, cols[, 3]) perpendicular to the canonical ``axis`` (None for 2D)."""
        return self.canonical(array) if axis is None else planes(self.canonical(array), axis)

    def spacing_mm(self) -> tuple[float, float, float] | None:
        """Spacing along the canonical axes x, y, z; None for 2D images."""
        if self.affine is None or self.axes is None:
            return None
        return canonical_spacing_mm(self.affine, self.axes)

    def plane_spacing_mm(self, axis: Axis | None) -> tuple[float, float] | None:
        """(row, column) spacing in the planes of ``axis``; None where unknown."""
        spacing_mm = self.spacing_mm()
        if spacing_mm is None or axis is None:
            return self.image_spacing_mm
        return plane_spacing_mm(spacing_mm, axis)

    def slice_spacing_mm(self, axis: Axis | None) -> float | None:
        """Distance of neighbouring planes of ``axis``; None where unknown."""
        spacing_mm = self.spacing_mm()
        return None if spacing_mm is None or axis is None else spacing_mm["xyz".index(axis)]


def grid_of(volume: Volume, source: Source) -> Grid:
    """The grid of ``volume``. Raises CaseRejected for a singular affine, or a picture from a 3D source."""
    if source.dimensions == 3 and volume.affine is None:
        raise CaseRejected(Reason.GEOMETRY, "the source is 3D, but the file states no geometry")
    if volume.affine is None:
        return Grid(tuple(volume.voxels.shape[:2]), None, None, volume.spacing_mm)
    return Grid(tuple(volume.voxels.shape[:3]), volume.affine, orientation(volume.affine), None)


def laid_like(expected: Grid, volume: Volume, source: Source) -> Volume:
    """``volume`` as a view whose axes have the order and directions of ``expected``; itself where they have.

    Files of a case may store the same grid from another corner. Raises CaseRejected for a singular affine.
    """
    own = grid_of(volume, source)
    if own.axes is None or expected.axes is None or own.axes == expected.axes:
        return volume
    assert own.affine is not None
    voxels = own.canonical(volume.voxels)
    affine = canonical_affine(own.affine, own.axes, own.shape)
    return replace(
        volume,
        voxels=stored(voxels, expected.axes),
        affine=stored_affine(affine, expected.axes, voxels.shape),
    )


def check_grid(expected: Grid, found: Grid, what: str) -> None:
    """Raise CaseRejected with GEOMETRY unless both grids agree in shape and affine."""
    if expected.affine is not None and found.affine is not None:
        difference = same_grid(expected.shape, expected.affine, found.shape, found.affine)
    elif expected.shape == found.shape and expected.affine is found.affine:
        difference = ""
    else:
        difference = f"{_described(expected)} against {_described(found)}"
    if difference:
        raise CaseRejected(Reason.GEOMETRY, f"{what} differ: {difference}")


def _described(grid: Grid) -> str:
    kind = "picture" if grid.affine is None else "volume"
    return f"{kind} of {' x '.join(map(str, grid.shape))}"
