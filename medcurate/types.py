"""The records that travel between parts: plain data, no behaviour beyond derived values.

Axes: a *volume* has voxel axes (i, j, k) as stored; *canonical* axes (x, y, z) grow to the patient's
Right, Anterior and Superior (RAS+, as nibabel defines it). A 2D image has axes (row, column).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFile:
    """One image of a case: a file, or all files of a DICOM series, relative to the source's root."""

    paths: tuple[Path, ...]
    channel: str = ""  # name of the source's [[channels]] entry; "" where the source has one image a case
    component: int | None = None  # index on the fourth axis where one file holds all channels
    entry: str = ""  # which sample of a file that holds many (an array pack's row); "" for the whole file


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelFile:
    """One label file of a case; ``label`` is set where every class has a file of its own."""

    paths: tuple[Path, ...]
    label: str = ""
    entry: str = ""  # as for images
    rater: str = ""  # whose reading it is, where the source names several raters
    classes: tuple[tuple[int, str], ...] = ()  # value -> key of [labels], where a table says so


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One subject's (or study's) files; paths and ids only, no pixels."""

    source: str
    id: str
    group: str  # the patient: what a split never cuts
    images: tuple[ImageFile, ...]
    labels: tuple[LabelFile, ...]
    split: str = ""  # the official split, where the source declares one
    size_bytes: int = 0  # of all files, as stored; jobs are bundled by it

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files of the case, images first, each once."""
        images = (path for image in self.images for path in image.paths)
        labels = (path for label in self.labels for path in label.paths)
        return tuple(dict.fromkeys((*images, *labels)))


@dataclass(slots=True, kw_only=True)
class Volume:
    """Pixels as stored, with what is needed to interpret them.

    ``voxels``: 3D sources (I, J, K) or (I, J, K, C); 2D sources (H, W) or (H, W, 3) RGB; any real dtype.
    The physical value is ``voxels * slope + intercept``. ``affine`` (4, 4) float64 maps (i, j, k, 1) to
    RAS+ millimetres; None for 2D images. ``spacing_mm`` is the (row, column) spacing of a 2D image where
    the file states it.
    """

    voxels: Array
    affine: npt.NDArray[np.float64] | None = None
    slope: float = 1.0
    intercept: float = 0.0
    spacing_mm: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """The image that labels are drawn on: its grid and what identifies its planes, without pixels.

    ``shape``: (I, J, K) of a volume, (H, W) of a picture; ``affine`` and ``spacing_mm`` as in ``Volume``.
    ``planes``: SOP Instance UID and frame number (from 1) of every plane k, one entry for a picture; empty
    where the image is no DICOM. ``frame_of_reference_uid``: "" where unknown.
    """

    shape: tuple[int, ...]
    affine: npt.NDArray[np.float64] | None = None
    spacing_mm: tuple[float, float] | None = None
    planes: tuple[tuple[str, int], ...] = ()
    frame_of_reference_uid: str = ""


@dataclass(frozen=True, slots=True)
class Patch:
    """What a structure covers: bool voxels (axes of the image) and the index of the first; all else is not in it."""

    start: tuple[int, ...]
    mask: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Structure:
    """One structure of a drawing.

    ``names``: what the file calls it, most specific first; empty where it names nothing. ``paint`` gives its
    voxels, None where there are none; it raises CaseRejected, and is not called for what is not wanted.
    """

    names: tuple[str, ...]
    paint: Callable[[], Patch | None]


@dataclass(frozen=True, slots=True)
class Drawing:
    """Labels as named structures (segments, contours) on the grid of ``reference``; they may overlap."""

    reference: Reference
    structures: Iterable[Structure]


class LabelFiles(Protocol):
    """The label files of a case with what they hold. Each is read when an iteration reaches it."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[tuple[LabelFile, Volume]]: ...


class LabelDrawings(Protocol):
    """``LabelFiles`` of a reader of drawings."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[tuple[LabelFile, Drawing]]: ...


@dataclass(slots=True, kw_only=True)
class LabelLayer:
    """Labels that exclude each other: one integer array of the image's shape.

    ``terms`` maps a value to the id of an ontology label; values outside ``terms`` are background (a
    decoder has already refused undeclared ones). Overlapping masks live in several layers. Where
    ``instances`` is true every value is one instance of the single term under key 0.
    """

    labels: Array
    terms: Mapping[int, str]
    instances: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """One row of the ledger, before the case's own columns are added."""

    stage: str  # "pair", "read", "label", "slice", "mask", "pack"
    reason: str
    detail: str = ""
    channel: str = ""
    axis: str = ""
    slice_index: int | None = None
    label: str = ""
    instance: int | None = None
    measures: Mapping[str, float] = field(default_factory=dict)
