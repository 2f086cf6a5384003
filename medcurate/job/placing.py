"""Labels whose file states another geometry than the image's: by the rule that the source declares."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import ndimage

from medcurate.config.source import LabelSpec
from medcurate.errors import CaseRejected, Reason
from medcurate.stages.orient import along, canonical, orientation, stored
from medcurate.types import Reference, Volume

_DECIMALS = 9  # of the map between grids: what stands on a tie must stand on it on every processor


def placed(volume: Volume, reference: Reference, rule: LabelSpec) -> Volume:
    """``volume`` on the grid of the image ``reference``. Raises CaseRejected (GEOMETRY, BAD_LABEL)."""
    if rule.geometry == "nearest":
        return _resampled(volume, reference)
    voxels = volume.voxels
    if rule.axes is not None and reference.affine is not None and voxels.ndim > 2:
        voxels = stored(canonical(voxels, along(rule.axes)), orientation(reference.affine))
    axes = len(reference.shape)
    if voxels.shape[:axes] != reference.shape or (reference.affine is None and volume.affine is not None):
        raise CaseRejected(
            Reason.GEOMETRY,
            f"the label of {_by(voxels.shape[:axes])} cannot lie as the image of {_by(reference.shape)} does",
        )
    return replace(volume, voxels=voxels, affine=reference.affine, spacing_mm=reference.spacing_mm)


def _resampled(volume: Volume, reference: Reference) -> Volume:
    """The label at the centre of every image voxel; 0 where the label's grid does not reach."""
    if volume.affine is None or reference.affine is None:
        raise CaseRejected(Reason.GEOMETRY, "labels of pictures are not resampled: they state no geometry")
    if (volume.slope, volume.intercept) != (1, 0) or volume.voxels.ndim != 3:
        raise CaseRejected(Reason.BAD_LABEL, "labels with slope, intercept or channels are not resampled")
    for affine in (volume.affine, reference.affine):
        orientation(affine)  # raises where it is singular
    step = np.round(np.linalg.solve(volume.affine, reference.affine), _DECIMALS)
    voxels = np.asfortranarray(np.zeros(reference.shape, volume.voxels.dtype))
    ndimage.affine_transform(
        volume.voxels, step[:3, :3], step[:3, 3], output=voxels, order=0, mode="grid-constant", cval=0
    )
    return replace(volume, voxels=voxels, affine=reference.affine)


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
