"""Labels that refer to a DICOM series by its UID, backwards: from strips to files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import highdicom
import numpy as np
from dicom_kit import dicom_bytes, instance, series
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import RTStructureSetStorage, generate_uid

from layouts.paint import Strip
from layouts.pieces import File, Piece

FIRST_Z_MM, STEP_MM = 30.0, 2.5  # of the planes of ``dicom_kit.series``, LPS like what follows
FIRST_MM, PIXEL_MM = (-10.0, -20.0), (0.6, 0.8)  # column, row
PATIENT = dict.fromkeys(
    (
        "PatientBirthDate",
        "PatientSex",
        "AccessionNumber",
        "StudyID",
        "StudyDate",
        "StudyTime",
        "ReferringPhysicianName",
    ),
    "",
)


def headers(entry: str) -> dict[str, str]:
    """What the files of a series say, of ``<modality>/<Patient ID>/<Series Instance UID>``."""
    modality, patient, uid = entry.split("/")
    return {
        **PATIENT,
        "Modality": modality,
        "PatientID": patient,
        "SeriesInstanceUID": uid,
        "StudyInstanceUID": generate_uid(entropy_srcs=["study", patient, uid]),
        "FrameOfReferenceUID": generate_uid(entropy_srcs=["frame", patient, uid]),
    }


def dicom_seg(file: File) -> None:
    """A binary segmentation on the planes of the series, a segment a key."""
    piece = file.pieces[0]
    voxels = np.swapaxes(np.zeros(piece.array.shape, np.int16), 0, 2)
    planes = series(voxels, **headers(piece.entry))
    for number, plane in enumerate(planes):
        plane.InstanceNumber = number + 1
    by_key: dict[str, np.ndarray] = {}
    for strip in piece.strips:
        by_key[strip.key] = by_key.get(strip.key, False) | strip.on(piece.array.shape)
    dataset = highdicom.seg.Segmentation(
        source_images=planes,
        pixel_array=np.stack([*by_key.values()], axis=-1).astype(np.uint8),
        segmentation_type="BINARY",
        segment_descriptions=[_segment(number, key) for number, key in enumerate(by_key, start=1)],
        series_instance_uid=generate_uid(),
        series_number=2,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="m",
        manufacturer_model_name="m",
        software_versions="1",
        device_serial_number="1",
    )
    file.path.write_bytes(dicom_bytes(dataset))


def _segment(number: int, label: str) -> highdicom.seg.SegmentDescription:
    return highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=label,
        segmented_property_category=codes.SCT.Organ,
        segmented_property_type=codes.SCT.Liver,
        algorithm_type="MANUAL",
    )


def rtstruct(file: File) -> None:
    """A structure set, a region a key, outlined half a pixel outside of the outer pixels' centres."""
    piece = file.pieces[0]
    said = headers(piece.entry)
    dataset = instance(
        np.zeros((2, 2), np.uint8), SOPClassUID=RTStructureSetStorage, PatientID=said["PatientID"]
    )
    for name in ("PixelData", "Rows", "Columns"):
        delattr(dataset, name)
    dataset.Modality, dataset.SeriesInstanceUID = "RTSTRUCT", generate_uid()
    named, study, frame = Dataset(), Dataset(), Dataset()
    named.SeriesInstanceUID = said["SeriesInstanceUID"]
    study.RTReferencedSeriesSequence, frame.RTReferencedStudySequence = [named], [study]
    dataset.ReferencedFrameOfReferenceSequence = [frame]
    dataset.StructureSetROISequence, dataset.ROIContourSequence = [], []
    for number, key in enumerate(dict.fromkeys(strip.key for strip in piece.strips), start=1):
        region, drawn = Dataset(), Dataset()
        region.ROINumber, region.ROIName = number, key
        region.ReferencedFrameOfReferenceUID = said["FrameOfReferenceUID"]
        drawn.ReferencedROINumber, drawn.ContourSequence = number, [*_contours(piece, key)]
        dataset.StructureSetROISequence.append(region)
        dataset.ROIContourSequence.append(drawn)
    file.path.write_bytes(dicom_bytes(dataset))


def _contours(piece: Piece, key: str) -> Iterator[Dataset]:
    for strip in (strip for strip in piece.strips if strip.key == key):
        left, right = 1.5, 1.5 + strip.width
        top, bottom = strip.top - 0.5, strip.top + 1.5
        for plane in strip.planes:
            points = [
                (FIRST_MM[0] + PIXEL_MM[0] * x, FIRST_MM[1] + PIXEL_MM[1] * y, FIRST_Z_MM + STEP_MM * plane)
                for x, y in ((left, top), (right, top), (right, bottom), (left, bottom))
            ]
            item = Dataset()
            item.ContourGeometricType, item.NumberOfContourPoints = "CLOSED_PLANAR", len(points)
            item.ContourData = [f"{value:.6f}" for point in points for value in point]
            yield item


def lidc_xml(file: File) -> None:
    """As many readers as must agree draw every strip, and one more a pixel too large on each side.

    Outlines are the pixels just outside. Planes are named by UIDs that no file has, so that z decides.
    """
    piece = file.pieces[0]
    uid = piece.entry.rpartition("/")[2]
    agreement = piece.options.get("agreement", 1)
    readers = [_reader(piece.strips, 0)] * agreement + [_reader(piece.strips, 1)] * (agreement > 1)
    head = f"<ResponseHeader><SeriesInstanceUid>{uid}</SeriesInstanceUid></ResponseHeader>"
    text = f'<LidcReadMessage xmlns="http://www.nih.gov">{head}{"".join(readers)}</LidcReadMessage>'
    file.path.write_text(text)


def _reader(strips: Sequence[Strip], margin: int) -> str:
    nodules = "".join(
        f"<unblindedReadNodule>{''.join(_roi(strip, plane, margin) for plane in strip.planes)}</unblindedReadNodule>"
        for strip in strips
    )
    return f"<readingSession>{nodules}</readingSession>"


def _roi(strip: Strip, plane: int, margin: int) -> str:
    left, right = 1 - margin, 2 + strip.width + margin
    top, bottom = strip.top - 1 - margin, strip.top + 2 + margin
    corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
    edges = "".join(f"<edgeMap><xCoord>{x}</xCoord><yCoord>{y}</yCoord></edgeMap>" for x, y in corners)
    z = FIRST_Z_MM + STEP_MM * plane
    return (
        f"<roi><imageZposition>{z}</imageZposition><imageSOP_UID>1.2.3</imageSOP_UID>"
        f"<inclusion>TRUE</inclusion>{edges}</roi>"
    )
