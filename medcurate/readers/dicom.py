"""DICOM: a series of single-frame files, one enhanced multi-frame file, or one 2D image.

Planes are sorted by their position along the normal and must be equally spaced and equally oriented; that
and nothing else (file names, instance numbers) decides their order. Files of a folder that are no images
(DICOMDIR, reports, structure sets, segmentations, doses) are passed over. Rescale slope and intercept go
to the Volume where all planes share them, else are applied to float32 voxels.
Sources: DICOM PS3.3 C.7.6.2.1.1 equation C.7.6.2.1-1, C.7.6.16.2, C.11.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydicom.dataset import Dataset

from medcurate.config.source import Strict
from medcurate.errors import CaseRejected, Reason
from medcurate.readers import dicom_parse, dicom_pixels, dicom_stack, geometry
from medcurate.readers.dicom_parse import Frame, StoredPixels
from medcurate.readers.files import CaseFiles
from medcurate.readers.guard import refusing
from medcurate.types import Array, Reference, Volume

_HEADER_BYTES = 1 << 16  # where nearly all headers end


class Options(Strict):
    """Which image of the files is meant.

    ``series_uid``: the Series Instance UID to take where files hold several; "" refuses several.
    ``flat``: a single file is a 2D image even where it states a position.
    ``order``: "names" counts planes as the files' names do, forwards or backwards along the normal, so that
    labels without geometry (one picture a plane) lie on them in the order of their own names.
    ``instance_numbers``: "from-one" refuses a series whose numbers tell that its first planes are missing.
    """

    series_uid: str = ""
    flat: bool = False
    order: Literal["position", "names"] = "position"
    instance_numbers: Literal["from-one", "any"] = "from-one"


def read(files: CaseFiles, paths: Sequence[Path], options: Options) -> Volume:
    """All files of an image as (I, J, K) or (I, J, K, 3): i = column, j = row, k along the normal.

    A single plane without a position (or with ``flat``) is (H, W) or (H, W, 3) RGB with its pixel spacing.
    Raises CaseRejected: UNREADABLE, CORRUPT, HEADER_SIZE, MIXED_SERIES, SERIES_GAP, GEOMETRY.
    """
    # pydicom converts values when they are asked for, so any line may meet a malformed one.
    with dicom_parse.quiet(), refusing(Reason.UNREADABLE, "the DICOM header holds unusable values"):
        return _read(files, paths, options)


def reference(files: CaseFiles, paths: Sequence[Path], options: Options) -> Reference:
    """What ``read`` of the same files would place where, from their headers alone.

    Raises CaseRejected: UNREADABLE, HEADER_SIZE, MIXED_SERIES, SERIES_GAP, GEOMETRY.
    """
    with dicom_parse.quiet(), refusing(Reason.UNREADABLE, "the DICOM header holds unusable values"):
        found = [_header(files, path) for path in _ordered(paths, options)]
        frames = [frame for file in _of_one_series(found, options.series_uid) for frame in file.frames()]
        first = frames[0].dataset
        if _is_flat(frames, options):
            return _reference(frames, (int(first.Rows), int(first.Columns)), None)
        frames, affine = _stack(frames, options)
        return _reference(frames, (int(first.Columns), int(first.Rows), len(frames)), affine)


@dataclass(frozen=True, slots=True)
class _File:
    """A file of the case; ``has_pixels`` also where they are not in ``dataset``, which ``stored`` says more of."""

    dataset: Dataset
    has_pixels: bool
    stored: StoredPixels | None = None

    def frames(self) -> list[Frame]:
        return dicom_parse.frames(self.dataset, self.stored)


def _header(files: CaseFiles, path: Path) -> _File:
    """The header of a file, which is read whole only where that does not do."""
    found = dicom_parse.parse_header(files.head(path, _HEADER_BYTES), path)
    return _whole(files, path) if found is None else _File(found[0], True, found[1])


def _whole(files: CaseFiles, path: Path) -> _File:
    dataset = dicom_parse.parse(files.read(path), files.volume_bytes)
    return _File(dataset, dicom_parse.has_pixels(dataset))


def _file(files: CaseFiles, path: Path) -> _File:
    """A file to read pixels of: those of plain single frames stay in it until they are put into the volume."""
    found = _header(files, path)
    fits = path in files.inputs or (found.stored is not None and not dicom_parse.has_frames(found.dataset))
    return found if fits else _whole(files, path)


def _reference(frames: Sequence[Frame], shape: tuple[int, ...], affine: geometry.Affine | None) -> Reference:
    return Reference(
        shape=shape,
        affine=affine,
        spacing_mm=_picture_spacing_mm(frames[0]) if affine is None else None,
        planes=tuple((str(frame.dataset.get("SOPInstanceUID", "")), frame.index + 1) for frame in frames),
        frame_of_reference_uid=str(frames[0].dataset.get("FrameOfReferenceUID", "")),
    )


def _read(files: CaseFiles, paths: Sequence[Path], options: Options) -> Volume:
    found = [_file(files, path) for path in _ordered(paths, options)]
    chosen = _of_one_series(found, options.series_uid)
    claimed = sum(dicom_pixels.claimed_bytes(file.dataset) for file in chosen)
    files.check_claim(claimed, claimed)
    for file in chosen:
        dicom_pixels.check_stored(file.dataset, file.stored)
    frames = [frame for file in chosen for frame in file.frames()]
    volume = (
        _image(files, frames[0]) if _is_flat(frames, options) else _volume(files, *_stack(frames, options))
    )
    for path in paths:
        if path not in files.inputs:
            files.read(path)  # of another series: its digest is asked for all the same
    return volume


def _is_flat(frames: Sequence[Frame], options: Options) -> bool:
    """Whether the frames are one picture; those of a volume must all be placed."""
    placed = [frame for frame in frames if frame.position_mm is not None and frame.orientation is not None]
    if len(frames) == 1 and (options.flat or not placed):
        return True
    if len(placed) != len(frames):
        raise CaseRejected(
            Reason.UNREADABLE, f"{len(frames) - len(placed)} of {len(frames)} planes have no position"
        )
    return False


def _ordered(paths: Sequence[Path], options: Options) -> list[Path]:
    """``paths`` come in natural order of names (img2 before img10)."""
    return list(paths) if options.order == "names" else sorted(paths)


def _of_one_series(found: Sequence[_File], series_uid: str) -> list[_File]:
    images = [file for file in found if file.has_pixels and dicom_parse.is_image(file.dataset)]
    if not images:
        kinds = sorted({dicom_parse.kind(file.dataset) for file in found})
        raise CaseRejected(
            Reason.UNREADABLE, f"no DICOM image with pixels among the files, only: {', '.join(kinds)}"
        )
    series = {dicom_parse.series_uid(file.dataset) for file in images}
    if series_uid:
        images = [file for file in images if dicom_parse.series_uid(file.dataset) == series_uid]
        if not images:
            raise CaseRejected(Reason.MISSING_FILE, "no file belongs to the series that the source states")
    elif len(series) > 1:
        raise CaseRejected(
            Reason.MIXED_SERIES, f'{len(series)} series; state one with the reader\'s option "series_uid"'
        )
    _check_pixels(found, images)
    return images


def _check_pixels(found: Sequence[_File], images: Sequence[_File]) -> None:
    """A plane whose file ends before its pixels is no other object: at an end of the series it leaves no gap."""
    kinds = {dicom_parse.series_uid(file.dataset) for file in images}
    bare = [file for file in found if not file.has_pixels and dicom_parse.series_uid(file.dataset) in kinds]
    if bare:
        raise CaseRejected(
            Reason.CORRUPT, f"{len(bare)} of {len(bare) + len(images)} files of the series have no pixels"
        )


def _volume(files: CaseFiles, frames: Sequence[Frame], affine: geometry.Affine) -> Volume:
    scales = {(frame.slope, frame.intercept) for frame in frames}
    shared = len(scales) == 1
    planes: Array | None = None
    for k, frame in enumerate(frames):
        plane = _decoded(files, frame)
        if not shared:
            plane = (plane * frame.slope + frame.intercept).astype(np.float32)
        if planes is None:
            planes = np.empty((len(frames), *plane.shape), plane.dtype)
        if plane.shape != planes.shape[1:] or plane.dtype != planes.dtype:
            raise CaseRejected(Reason.MIXED_SERIES, "the planes differ in their number type")
        planes[k] = plane
    assert planes is not None
    slope, intercept = scales.pop() if shared else (1.0, 0.0)
    voxels = planes.transpose(2, 1, 0, *range(3, planes.ndim))
    return Volume(voxels=voxels, affine=affine, slope=slope, intercept=intercept)


def _decoded(files: CaseFiles, frame: Frame) -> Array:
    return dicom_pixels.decode(frame, files.read(frame.stored.path) if frame.stored else b"")


def _picture_spacing_mm(frame: Frame) -> tuple[float, float] | None:
    if frame.spacing_mm is None or not (frame.spacing_mm > 0).all():
        return None
    return float(frame.spacing_mm[0]), float(frame.spacing_mm[1])


def _stack(frames: Sequence[Frame], options: Options) -> tuple[list[Frame], geometry.Affine]:
    return dicom_stack.stacked(
        frames, by_names=options.order == "names", from_one=options.instance_numbers == "from-one"
    )


def _image(files: CaseFiles, frame: Frame) -> Volume:
    return Volume(
        voxels=_decoded(files, frame),
        slope=frame.slope,
        intercept=frame.intercept,
        spacing_mm=_picture_spacing_mm(frame),
    )
