"""One image of a case, read and ready to be rescaled to uint8, with what its rows must say of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from medcurate.config.source import Source
from medcurate.errors import CaseRejected, Reason, blamed_on
from medcurate.format.keys import pseudonym
from medcurate.job.grid import Grid, check_grid, grid_of, laid_like
from medcurate.job.reading import read_file
from medcurate.job.spec import Job
from medcurate.readers.files import CaseFiles
from medcurate.stages.fingerprint import picture_digest, voxel_digest
from medcurate.stages.intensity import rule_for, scale_for
from medcurate.types import Array, Case, ImageFile, Volume


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """An image ready to be cut.

    ``voxels``: as stored; ``grey`` makes uint8 of any part of them. ``intensity_low``, ``intensity_high``: the source
    values that became 0 and 255; None for RGB. ``digest``: of the exact voxels, equal for repackaged copies.
    """

    voxels: Array
    grey: Callable[[Array], npt.NDArray[np.uint8]]
    intensity_low: float | None
    intensity_high: float | None
    digest: str
    channel: str
    modality: str
    sequence: str
    image_spacing_mm: tuple[float, float] | None  # (row, column), where a 2D image states it
    source_file: str
    source_sha256: str

    def all_grey(self) -> Picture:
        """With every voxel rescaled already: for cuts along several axes, which meet each of them several times."""
        return replace(self, voxels=self.grey(self.voxels), grey=np.asarray)


def read_picture(job: Job, case: Case, image: ImageFile, grid: Grid, files: CaseFiles) -> Picture:
    """Read ``image``, hold it against the labels' grid, and ask the modality's intensity rule what grey its values are.

    Raises CaseRejected.
    """
    source = job.source
    with blamed_on(f"image {image.channel}" if image.channel else "image"):
        volume = laid_like(grid, _read(source, image, files), source)
    check_grid(grid, grid_of(volume, source), "label and image")
    channel = next((c for c in source.channels if c.name == image.channel), None)
    modality = (channel and channel.modality) or source.modality
    scale = scale_for(volume, rule_for(modality, job.recipe.intensity))
    return Picture(
        voxels=volume.voxels,
        grey=scale.grey,
        intensity_low=scale.low,
        intensity_high=scale.high,
        digest=_digest(volume, grid),
        channel=image.channel,
        modality=modality,
        sequence=(channel and channel.sequence) or source.sequence,
        image_spacing_mm=volume.spacing_mm,
        source_file=_source_file(source, case, image),
        source_sha256=_sha256(files, image.paths),
    )


def _read(source: Source, image: ImageFile, files: CaseFiles) -> Volume:
    volume = read_file(files, image, source.image.reader, source.image.options)
    if image.component is not None:
        if volume.voxels.ndim != 4 or image.component >= volume.voxels.shape[3]:
            shape = " x ".join(map(str, volume.voxels.shape))
            raise CaseRejected(
                Reason.GEOMETRY, f"no component {image.component} on a fourth axis; shape {shape}"
            )
        volume.voxels = volume.voxels[..., image.component]
    return volume


def _digest(volume: Volume, grid: Grid) -> str:
    """Of the voxels alone: repackaged sets often state another spacing for the same scan."""
    if grid.affine is None and volume.voxels.ndim == 3:
        return picture_digest(volume.voxels)
    voxels = volume.voxels if grid.affine is None else grid.canonical(volume.voxels)
    return voxel_digest(voxels, None, slope=volume.slope, intercept=volume.intercept)


def _source_file(source: Source, case: Case, image: ImageFile) -> str:
    path = image.paths[0].as_posix()
    return path if source.case.identifiers == "keep" else f"{case.id}/{pseudonym(source.id, path)}"


def _sha256(files: CaseFiles, paths: Sequence[Path]) -> str:
    digests = [files.inputs[path].sha256 for path in paths]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
