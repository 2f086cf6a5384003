"""Labels that are drawn on an image's grid: contours and segments, read with the image's reference."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from medcurate.config.source import Source
from medcurate.errors import CaseRejected, Reason, blamed_on
from medcurate.job.grid import Grid, grid_of
from medcurate.job.reading import read_file
from medcurate.readers import READERS
from medcurate.readers.files import CaseFiles
from medcurate.registry import load
from medcurate.types import Case, Drawing, LabelFile, Reference, Volume


class DrawnLabels:
    """The label files of a case as drawings on the grid of its first image, each read when it is reached."""

    def __init__(self, case: Case, source: Source, files: CaseFiles) -> None:
        self._reader = load(READERS, source.label.reader, "reader")
        self._options = self._reader.Options(**source.label.reader_options)
        self._entries = case.labels
        self._files = files
        self._reference = reference_of(case, source, files)
        self.grid: Grid = _grid_of(self._reference, source)

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[tuple[LabelFile, Drawing]]:
        for entry in self._entries:
            yield entry, self._reader.draw(self._files, entry.paths, self._reference, self._options)


def is_drawn(source: Source) -> bool:
    """Whether the source's labels are drawings."""
    return hasattr(load(READERS, source.label.reader, "reader"), "draw")


def reference_of(case: Case, source: Source, files: CaseFiles) -> Reference:
    """What labels must know of the first image of ``case``. Raises CaseRejected."""
    if not case.images:
        raise CaseRejected(Reason.UNPAIRED, "the case has no image file")
    reader = load(READERS, source.image.reader, "reader")
    options = reader.Options(**source.image.options)
    with blamed_on("image"):
        if hasattr(reader, "reference"):
            found: Reference = reader.reference(files, case.images[0].paths, options)
            return found
        return _reference_of_volume(
            read_file(files, case.images[0], source.image.reader, source.image.options)
        )


def _reference_of_volume(volume: Volume) -> Reference:
    axes = 2 if volume.affine is None else 3
    return Reference(shape=volume.voxels.shape[:axes], affine=volume.affine, spacing_mm=volume.spacing_mm)


def _grid_of(reference: Reference, source: Source) -> Grid:
    voxels = np.broadcast_to(np.False_, reference.shape)
    return grid_of(Volume(voxels=voxels, affine=reference.affine, spacing_mm=reference.spacing_mm), source)
