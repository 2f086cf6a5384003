"""DICOM Segmentation objects as structures on the grid of the image that they segment.

BINARY, FRACTIONAL (with a stated threshold) and LABELMAP. A frame lies where its Plane Position, Plane
Orientation and Pixel Measures put it, which must be on voxels of the image: nothing is resampled. A frame
without position lies on the frame of the image that it names as its source. Sources: DICOM PS3.3 A.51.5.1
(Segmentation Functional Groups Description), C.8.20.2 (Segmentation Image), C.8.20.3 (Segment
Identification), C.8.20.4 (Segment Description), C.7.6.16.2.6 (Derivation Image); PS3.5 8.1.1 (packing of
single bits); Supplement 243 (label maps).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field
from pydicom.dataset import Dataset
from pydicom.pixels.utils import pixel_array

from medcurate.config.source import Strict
from medcurate.errors import CaseRejected, Reason
from medcurate.readers import dicom_parse, dicom_pixels, geometry
from medcurate.readers.dicom_parse import Frame
from medcurate.readers.files import CaseFiles
from medcurate.readers.guard import refusing
from medcurate.types import Array, Drawing, Patch, Reference, Structure

_SEGMENTATIONS = {
    "1.2.840.10008.5.1.4.1.1.66.4",  # Segmentation Storage
    "1.2.840.10008.5.1.4.1.1.66.7",  # Label Map Segmentation Storage
}
_OFF_GRID_VOXELS = (
    0.1  # how far a corner of a frame may lie from a voxel of the image, as between any two grids
)


class Options(Strict):
    """``name``: what stands in [labels]: the Segment Label, the Segment Number, or the Code Value of the Segmented
    Property Type, with "+" and the modifier's where there is one ("64033007+7771000"; the bare code is tried
    second). ``at_least``: the least fraction (0 to 1) of FRACTIONAL segments that is foreground; none: refused.
    """

    name: Literal["label", "number", "code"] = "label"
    at_least: Annotated[float, Field(gt=0, le=1)] | None = None


@dataclass(frozen=True, slots=True)
class _Place:
    """One frame on the image's grid: index of its first voxel (i, j, k), and its number in the file."""

    start: tuple[int, int, int]
    index: int


def draw(files: CaseFiles, paths: Sequence[Path], reference: Reference, options: Options) -> Drawing:
    """The segments of all files. Axes of masks: (i, j, k), of a picture (row, column).

    Raises CaseRejected: UNREADABLE, CORRUPT, HEADER_SIZE, GEOMETRY; painting also BAD_LABEL.
    """
    datasets = []
    with dicom_parse.quiet(), refusing(Reason.UNREADABLE, "the DICOM header holds unusable values"):
        for path in sorted(paths):
            dataset = dicom_parse.parse(files.read(path), files.volume_bytes)
            if dataset.get("SOPClassUID") not in _SEGMENTATIONS:
                raise CaseRejected(Reason.UNREADABLE, f"no DICOM segmentation: {dicom_parse.kind(dataset)}")
            _check_size(files, dataset, reference)
            datasets.append(dataset)
    return Drawing(reference, _structures(datasets, reference, options))


def _check_size(files: CaseFiles, dataset: Dataset, reference: Reference) -> None:
    """Before anything is allocated: frames no larger than the image, and all their bits in the file."""
    rows, columns = int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)
    height, width = _plane(reference)
    if not (0 < rows <= height and 0 < columns <= width):
        raise CaseRejected(
            Reason.GEOMETRY, f"segments of {columns} x {rows} on an image of {width} x {height}"
        )
    files.check_claim(rows * columns, files.volume_bytes)
    if dataset.get("BitsAllocated") not in {1, 8, 16} or dataset.get("SamplesPerPixel", 1) != 1:
        raise CaseRejected(Reason.UNREADABLE, "segments of an unsupported pixel format")
    dicom_pixels.check_stored(dataset)


def _plane(reference: Reference) -> tuple[int, int]:
    """(height, width) of an image plane: (J, I) of a volume, (H, W) of a picture."""
    first, second = reference.shape[:2]
    return (first, second) if reference.affine is None else (second, first)


def _structures(datasets: Sequence[Dataset], reference: Reference, options: Options) -> Iterator[Structure]:
    for dataset in datasets:
        with dicom_parse.quiet(), refusing(Reason.UNREADABLE, "the DICOM header holds unusable values"):
            stored = _Stored(dataset, options.at_least)
            places = _places(dataset, reference)
            segments = [(int(item.SegmentNumber), _names(item, options)) for item in dataset.SegmentSequence]
        for number, names in segments:
            if number == 0:
                continue  # the background of a label map
            chosen = places.get(None, places.get(number, []))
            yield Structure(names, partial(_paint, stored, chosen, number, reference))


def _names(segment: Dataset, options: Options) -> tuple[str, ...]:
    if options.name == "number":
        return (str(int(segment.SegmentNumber)),)
    if options.name == "label":
        return (str(segment.get("SegmentLabel", "")),)
    kind = segment.SegmentedPropertyTypeCodeSequence[0]
    codes = [str(kind.CodeValue)]
    modifiers = kind.get("SegmentedPropertyTypeModifierCodeSequence") or segment.get(
        "SegmentedPropertyTypeModifierCodeSequence"
    )
    if modifiers:
        codes.insert(0, "+".join([codes[0], *(str(item.CodeValue) for item in modifiers)]))
    return tuple(codes)


def _places(dataset: Dataset, reference: Reference) -> dict[int | None, list[_Place]]:
    """Where every frame lies, by segment number; under None where all segments share frames (label maps)."""
    _check_frame_of_reference(dataset, reference)
    shared = list(dataset.get("SharedFunctionalGroupsSequence") or ())
    groups = dataset.get("PerFrameFunctionalGroupsSequence") or [Dataset()]
    frames = dicom_parse.frames(dataset)
    locate = _located(reference)
    found: dict[int | None, list[_Place]] = {}
    for frame, group in zip(frames, groups, strict=True):
        number = None if dataset.SegmentationType == "LABELMAP" else _segment_number([group, *shared])
        found.setdefault(number, []).append(_Place(locate(frame, [group, *shared]), frame.index))
    for places in found.values():
        starts = {place.start for place in places}
        if len(starts) < len(places):
            raise CaseRejected(Reason.CORRUPT, "a segment has several frames at one place")
    return found


def _check_frame_of_reference(dataset: Dataset, reference: Reference) -> None:
    own = str(dataset.get("FrameOfReferenceUID") or "")
    if own and reference.frame_of_reference_uid and own != reference.frame_of_reference_uid:
        raise CaseRejected(
            Reason.GEOMETRY, "the segmentation lies in another frame of reference than the image"
        )


def _segment_number(groups: Sequence[Dataset]) -> int:
    for group in groups:
        if "SegmentIdentificationSequence" in group:
            return int(group.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
    raise CaseRejected(Reason.CORRUPT, "a frame of the segmentation names no segment")


def _located(reference: Reference) -> Callable[[Frame, Sequence[Dataset]], tuple[int, int, int]]:
    """Maps a frame to the index of its first voxel, by position where image and frame have one, else by source."""
    planes = {plane: k for k, plane in enumerate(reference.planes)}
    if reference.affine is None:
        return lambda frame, groups: (0, 0, _source_plane(groups, planes, only=True))
    to_voxels = np.asarray(np.linalg.inv(reference.affine), np.float64)

    def locate(frame: Frame, groups: Sequence[Dataset]) -> tuple[int, int, int]:
        if frame.position_mm is None or frame.orientation is None or frame.spacing_mm is None:
            return (0, 0, _source_plane(groups, planes, only=False))
        return _first_voxel(frame, to_voxels, reference.shape)

    return locate


def _first_voxel(
    frame: Frame, to_voxels: npt.NDArray[np.float64], shape: tuple[int, ...]
) -> tuple[int, int, int]:
    """Raises CaseRejected (GEOMETRY) unless all pixels of the frame are voxels of the image."""
    assert frame.position_mm is not None  # the caller has looked
    assert frame.orientation is not None
    assert frame.spacing_mm is not None
    row, column = frame.orientation
    between_rows, between_columns = frame.spacing_mm
    rows, columns = int(frame.dataset.Rows), int(frame.dataset.Columns)
    corners = [(0, 0), (columns - 1, 0), (0, rows - 1), (columns - 1, rows - 1)]
    lps = [frame.position_mm + i * between_columns * row + j * between_rows * column for i, j in corners]
    points = np.column_stack([np.array(lps) * geometry.LPS, np.ones(4)]) @ to_voxels.T
    first = np.rint(points[0, :3])
    expected = first + [(i, j, 0) for i, j in corners]
    away = float(np.abs(points[:, :3] - expected).max())
    if not away <= _OFF_GRID_VOXELS:
        raise CaseRejected(
            Reason.GEOMETRY,
            "a frame of the segmentation does not lie on voxels of the image",
            {"measure": round(away, 6), "bound": _OFF_GRID_VOXELS},
        )
    if (first < 0).any() or (np.add(first, (columns, rows, 1)) > shape).any():
        raise CaseRejected(Reason.GEOMETRY, "a frame of the segmentation lies outside the image")
    i, j, k = (int(number) for number in first)
    return i, j, k


def _source_plane(groups: Sequence[Dataset], planes: dict[tuple[str, int], int], *, only: bool) -> int:
    """The plane that a frame's Derivation Image names; with ``only``, the one there is where it names none."""
    for group in groups:
        for derivation in group.get("DerivationImageSequence") or ():
            for source in derivation.get("SourceImageSequence") or ():
                number: Any = source.get("ReferencedFrameNumber") or 1
                plane = planes.get((str(source.ReferencedSOPInstanceUID), int(number)))
                if plane is not None:
                    return plane
                raise CaseRejected(Reason.GEOMETRY, "a frame was made from an image that is not of the case")
    if only and len(planes) <= 1:
        return 0
    raise CaseRejected(
        Reason.GEOMETRY, "a frame of the segmentation has neither a position nor a source image"
    )


class _Stored:
    """The pixels of one segmentation, frame by frame."""

    def __init__(self, dataset: Dataset, at_least: float | None) -> None:
        self._dataset = dataset
        self._kind = str(dataset.SegmentationType)
        self._at_least = at_least
        self._numbers = [0, *(int(segment.SegmentNumber) for segment in dataset.SegmentSequence)]
        if self._kind not in {"BINARY", "FRACTIONAL", "LABELMAP"}:
            raise CaseRejected(Reason.UNREADABLE, "a segmentation of unknown type")
        self.shape_hw = (int(dataset.Rows), int(dataset.Columns))
        syntax = dataset.file_meta.TransferSyntaxUID
        packed = dataset.BitsAllocated == 1 and not (syntax.is_compressed and not syntax.is_deflated)
        self._bits = np.frombuffer(dataset.PixelData, np.uint8) if packed else None

    def foreground(self, index: int, number: int) -> npt.NDArray[np.bool_]:
        """(rows, columns): where frame ``index`` holds segment ``number``. Raises whatever pydicom does."""
        if self._kind == "FRACTIONAL":
            if self._at_least is None:
                raise CaseRejected(Reason.BAD_LABEL, 'fractions; state the reader\'s option "at_least"')
            return np.asarray(
                self._values(index) >= self._at_least * float(self._dataset.MaximumFractionalValue)
            )
        values = self._values(index)
        if self._kind == "BINARY":
            return np.asarray(values != 0)
        if not np.isin(values, self._numbers).all():
            raise CaseRejected(Reason.BAD_LABEL, "a label map holds values that are no segment's number")
        return np.asarray(values == number)

    def _values(self, index: int) -> Array:
        if self._bits is None:
            return pixel_array(self._dataset, index=index)
        count = self.shape_hw[0] * self.shape_hw[1]
        first, last = index * count, (index + 1) * count  # frames do not start at whole bytes
        bits = np.unpackbits(self._bits[first // 8 : (last + 7) // 8], bitorder="little")
        return bits[first % 8 : first % 8 + count].reshape(self.shape_hw)


def _paint(stored: _Stored, places: Sequence[_Place], number: int, reference: Reference) -> Patch | None:
    """One segment, in the box that its frames span."""
    if not places:
        return None
    rows, columns = stored.shape_hw
    starts = np.array([place.start for place in places])
    low = starts.min(axis=0)
    width, height, depth = (starts.max(axis=0) - low + (columns, rows, 1)).tolist()
    mask = np.zeros((depth, height, width), np.bool_)
    with dicom_parse.quiet(), refusing(Reason.CORRUPT, "the pixels of the segmentation do not decode"):
        for place in places:
            i, j, k = (np.array(place.start) - low).tolist()
            mask[k, j : j + rows, i : i + columns] = stored.foreground(place.index, number)
    if not mask.any():
        return None
    i, j, k = low.tolist()
    return Patch((j, i), mask[0]) if reference.affine is None else Patch((i, j, k), mask.T)
