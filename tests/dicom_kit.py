"""DICOM objects made in memory, for tests."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

SERIES = generate_uid(entropy_srcs=["series"])


def instance(pixels: np.ndarray, *, syntax: str = ExplicitVRLittleEndian, **fields: object) -> Dataset:
    """A minimal single-frame image; ``fields`` replace the defaults, None removes one."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    bits = pixels.dtype.itemsize * 8
    values = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": dataset.file_meta.MediaStorageSOPInstanceUID,
        "SeriesInstanceUID": SERIES,
        "PatientName": "CANARY^NAME",
        "Rows": pixels.shape[-2] if pixels.ndim == 2 else pixels.shape[0],
        "Columns": pixels.shape[-1] if pixels.ndim == 2 else pixels.shape[1],
        "SamplesPerPixel": 1 if pixels.ndim == 2 else 3,
        "PhotometricInterpretation": "MONOCHROME2" if pixels.ndim == 2 else "RGB",
        "PlanarConfiguration": None if pixels.ndim == 2 else 0,
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        "PixelData": pixels.tobytes() + b"\0" * (pixels.nbytes % 2),
    } | fields
    for name, value in values.items():
        if value is not None:
            setattr(dataset, name, value)
    return dataset


def series(
    voxels: np.ndarray,
    *,
    row=(1, 0, 0),
    column=(0, 1, 0),
    step=(0, 0, 2.5),
    origin=(-10, -20, 30),
    **fields: object,
) -> list[Dataset]:
    """One instance a plane of ``voxels`` (I, J, K); positions in LPS millimetres."""
    return [
        instance(
            np.ascontiguousarray(voxels[:, :, k].T),
            ImageOrientationPatient=[*map(float, row), *map(float, column)],
            ImagePositionPatient=[float(o + k * s) for o, s in zip(origin, step, strict=True)],
            PixelSpacing=[0.8, 0.6],
            SliceThickness=2.5,
            **fields,
        )
        for k in range(voxels.shape[2])
    ]


def enhanced(voxels: np.ndarray, order: list[int], **fields: object) -> Dataset:
    """An enhanced multi-frame image of ``voxels`` (I, J, K), whose frames lie in ``order``."""
    frames = np.ascontiguousarray(np.transpose(voxels[:, :, order], (2, 1, 0)))
    dataset = instance(frames[0], NumberOfFrames=len(order), PixelData=frames.tobytes(), **fields)
    orientation, measures, scale = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    measures.PixelSpacing, measures.SliceThickness = [0.8, 0.6], 2.5
    scale.RescaleSlope, scale.RescaleIntercept = 2, -1024
    shared = Dataset()
    shared.PlaneOrientationSequence = Sequence([orientation])
    shared.PixelMeasuresSequence = Sequence([measures])
    shared.PixelValueTransformationSequence = Sequence([scale])
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    groups = []
    for k in order:
        position, group = Dataset(), Dataset()
        position.ImagePositionPatient = [-10, -20, 30 + 2.5 * k]
        group.PlanePositionSequence = Sequence([position])
        groups.append(group)
    dataset.PerFrameFunctionalGroupsSequence = Sequence(groups)
    return dataset


def dicom_bytes(dataset: Dataset) -> bytes:
    stream = BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def written(folder: Path, datasets: list[Dataset]) -> list[Path]:
    """Files whose names run against the order of the planes."""
    paths = [folder / f"{len(datasets) - number:03d}.dcm" for number in range(len(datasets))]
    for path, dataset in zip(paths, datasets, strict=True):
        path.write_bytes(dicom_bytes(dataset))
    return paths
