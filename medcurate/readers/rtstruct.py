"""DICOM RT Structure Sets: closed planar contours as structures on the grid of the image they were drawn on.

A voxel belongs to a region if its centre lies inside its contours or on their path. Contours of one plane
combine by exclusive-or, as CLOSEDPLANAR_XOR states and as nearly all writers mean CLOSED_PLANAR: a contour
inside another is a hole. Nothing is interpolated between planes. Sources: DICOM PS3.3 C.8.8.5 (Structure
Set), C.8.8.6 (ROI Contour), C.8.8.6.1 (Contour Geometric Type), C.8.8.6.3 (Representing Inner and Outer
Contours: "points in space lying along the path defined by the contour are considered to be part of the ROI").
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from medcurate.config.source import Strict
from medcurate.errors import CaseRejected, Reason
from medcurate.readers import dicom_parse, geometry
from medcurate.readers.files import CaseFiles
from medcurate.readers.guard import refusing
from medcurate.readers.polygons import Points, fill, stacked
from medcurate.types import Drawing, Patch, Reference, Structure

_STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"
_CLOSED = {"CLOSED_PLANAR", "CLOSEDPLANAR_XOR"}
_CONTOUR_DATA = (0x3006, 0x0050)
_DECIMALS = (
    6  # of voxel indices: what processors compute differently in the last bits must not decide a voxel
)
_OFF_PLANE_VOXELS = 0.1  # how far a contour may lie from its plane, in steps between planes


class Options(Strict):
    """``outside``: contours beyond the image's planes refuse the case, or are left out.

    ``sparse``: a region of three planes or more, no two of them neighbours, was drawn on every n-th plane: the
    planes between are not its background, so that it refuses the case, or is kept as drawn.
    """

    outside: Literal["refuse", "omit"] = "refuse"
    sparse: Literal["refuse", "keep"] = "refuse"


def draw(files: CaseFiles, paths: Sequence[Path], reference: Reference, options: Options) -> Drawing:
    """The regions of interest of all files, by ROI Name. Masks have axes (i, j, k).

    Raises CaseRejected: UNREADABLE, GEOMETRY; painting also CORRUPT and BAD_LABEL.
    """
    if reference.affine is None:
        raise CaseRejected(Reason.GEOMETRY, "contours in millimetres need an image with a position")
    datasets = []
    with dicom_parse.quiet(), refusing(Reason.UNREADABLE, "the DICOM header holds unusable values"):
        for path in sorted(paths):
            dataset = dicom_parse.parse(files.read(path), files.volume_bytes)
            if dataset.get("SOPClassUID") != _STRUCTURE_SET:
                raise CaseRejected(Reason.UNREADABLE, f"no structure set: {dicom_parse.kind(dataset)}")
            datasets.append(dataset)
    return Drawing(reference, _structures(datasets, reference, options))


def _structures(datasets: Sequence[Dataset], reference: Reference, options: Options) -> Iterator[Structure]:
    for dataset in datasets:
        with dicom_parse.quiet(), refusing(Reason.UNREADABLE, "the structure set lacks what it must hold"):
            contours = {
                int(item.ReferencedROINumber): list(item.get("ContourSequence") or ())
                for item in dataset.get("ROIContourSequence") or ()
            }
            regions = [
                (int(r.ROINumber), str(r.get("ROIName", "")), r) for r in dataset.StructureSetROISequence
            ]
        for number, name, region in regions:
            paint = partial(_paint, region, contours.get(number, []), reference, options)
            yield Structure((name.strip(),), paint)


def _paint(
    region: Dataset, contours: Sequence[Dataset], reference: Reference, options: Options
) -> Patch | None:
    with dicom_parse.quiet(), refusing(Reason.CORRUPT, "a contour is malformed"):
        _check_frame_of_reference(region, reference)
        outlines = _outlines_by_plane(contours, reference, options)
    planes = sorted(outlines)
    if options.sparse == "refuse" and len(planes) > 2 and np.diff(planes).min() > 1:
        raise CaseRejected(
            Reason.GEOMETRY,
            "a region was drawn on every n-th plane only",
            {"measure": int(np.diff(planes).min()), "bound": 1},
        )
    width, height = reference.shape[:2]
    return stacked({k: fill(outlines[k], height, width, path="inside") for k in planes})


def _check_frame_of_reference(region: Dataset, reference: Reference) -> None:
    own = str(region.get("ReferencedFrameOfReferenceUID") or "")
    if own and reference.frame_of_reference_uid and own != reference.frame_of_reference_uid:
        raise CaseRejected(Reason.GEOMETRY, "a region lies in another frame of reference than the image")


def _outlines_by_plane(
    contours: Sequence[Dataset], reference: Reference, options: Options
) -> dict[int, list[Points]]:
    assert reference.affine is not None  # ``draw`` has looked
    to_voxels = np.linalg.inv(reference.affine)
    numbers = {uid: k for k, (uid, _) in enumerate(reference.planes)} if _single_frames(reference) else {}
    found: dict[int, list[Points]] = {}
    for contour in contours:
        kind = str(contour.get("ContourGeometricType", ""))
        if kind == "POINT":
            continue  # a place, no area
        if kind not in _CLOSED:
            raise CaseRejected(Reason.BAD_LABEL, "a region has an open contour, which encloses nothing")
        voxels = _points_mm(contour) * geometry.LPS @ to_voxels[:3, :3].T + to_voxels[:3, 3]
        voxels = np.round(voxels, _DECIMALS)
        k = _plane(voxels[:, 2], contour, numbers)
        if 0 <= k < reference.shape[2]:
            found.setdefault(k, []).append(voxels[:, :2])
        elif options.outside == "refuse":
            raise CaseRejected(Reason.GEOMETRY, "a contour lies beyond the planes of the image")
    return found


def _single_frames(reference: Reference) -> bool:
    return len({uid for uid, _ in reference.planes}) == len(reference.planes)


def _points_mm(contour: Dataset) -> npt.NDArray[np.float64]:
    """(N, 3) LPS millimetres, from the stored text: pydicom makes an object of every number."""
    raw = contour.get_item(_CONTOUR_DATA)
    value = raw.value if raw is not None else None
    texts = value.split(b"\\") if isinstance(value, bytes) else value
    points = np.array(texts, np.bytes_ if isinstance(value, bytes) else np.float64).astype(np.float64)
    if points.size == 0 or points.size % 3 or not np.isfinite(points).all():
        raise CaseRejected(Reason.CORRUPT, "a contour does not consist of finite triplets")
    return points.reshape(-1, 3)


def _plane(depths: npt.NDArray[np.float64], contour: Dataset, numbers: dict[str, int]) -> int:
    """The plane on which all points of a contour lie. Raises CaseRejected (GEOMETRY) where there is none."""
    k = int(np.rint(np.median(depths)))
    away = float(np.abs(depths - k).max())
    if not away <= _OFF_PLANE_VOXELS:
        raise CaseRejected(
            Reason.GEOMETRY,
            "a contour does not lie on a plane of the image",
            {"measure": round(away, 6), "bound": _OFF_PLANE_VOXELS},
        )
    for image in contour.get("ContourImageSequence") or ():
        stated = numbers.get(str(image.get("ReferencedSOPInstanceUID", "")), k)
        if stated != k:
            raise CaseRejected(Reason.GEOMETRY, "a contour names another plane than the one that it lies on")
    return k
