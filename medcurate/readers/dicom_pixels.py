"""One DICOM frame to pixels, through pydicom's decoders, which clear the bits above Bits Stored.

Sources: DICOM PS3.3 C.7.6.3.1.2 (photometric interpretation), C.7.9 (Palette Color Lookup Table), C.11.1
(Modality LUT).
"""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID

from medcurate.errors import CaseRejected, Reason
from medcurate.readers.dicom_parse import Frame
from medcurate.readers.guard import refusing
from medcurate.readers.voxels import native
from medcurate.types import Array

_COLOUR = {"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"}
_GREY = {"MONOCHROME1", "MONOCHROME2"}


def claimed_bytes(dataset: Dataset) -> int:
    """Bytes that all frames of a dataset decode to, palette look-up included."""
    sides = [int(dataset.get(name) or 0) for name in ("Rows", "Columns", "BitsAllocated")]
    frames = int(dataset.get("NumberOfFrames") or 1)
    samples = int(dataset.get("SamplesPerPixel") or 1)
    if min(*sides, frames, samples) < 1:
        raise CaseRejected(Reason.CORRUPT, "the DICOM header states an image without pixels")
    rows, columns, bits = sides
    channels = 3 if dataset.get("PhotometricInterpretation") == "PALETTE COLOR" else samples
    return rows * columns * frames * channels * max(1, bits // 8)


def check_stored(dataset: Dataset) -> None:
    """Refuse what will not decode: no decoder (UNREADABLE), too few bytes of native pixels (CORRUPT)."""
    with refusing(Reason.UNREADABLE, "the DICOM transfer syntax is missing or unknown"):
        syntax = UID(dataset.file_meta.TransferSyntaxUID)
        if not get_decoder(syntax).is_available:
            raise CaseRejected(Reason.UNREADABLE, f'no decoder for {syntax.name}; install "medcurate[dicom]"')
    interpretation = dataset.get("PhotometricInterpretation")
    if dataset.get("HighBit", 0) >= dataset.get("BitsStored", 64):
        raise CaseRejected(Reason.UNREADABLE, "the DICOM pixels do not use the lowest bits")
    if interpretation not in _COLOUR | _GREY | {"PALETTE COLOR"}:
        raise CaseRejected(Reason.UNREADABLE, "the DICOM photometric interpretation is not supported")
    if (syntax.is_compressed and not syntax.is_deflated) or "PixelData" not in dataset:
        return
    samples = 2 if interpretation == "YBR_FULL_422" else int(dataset.get("SamplesPerPixel") or 1)
    frames = int(dataset.get("NumberOfFrames") or 1)
    needed = (dataset.Rows * dataset.Columns * samples * frames * dataset.BitsAllocated + 7) // 8
    if len(dataset.PixelData) < needed:
        raise CaseRejected(
            Reason.CORRUPT,
            "fewer pixel bytes than the header states",
            {"measure": len(dataset.PixelData), "bound": needed},
        )


def decode(frame: Frame) -> Array:
    """(rows, columns) or (rows, columns, 3) RGB: stored values, or the Modality LUT's where there is one.

    MONOCHROME1 is inverted so that larger is brighter, unless a rescale or a LUT gives the values a
    physical meaning. Raises CaseRejected (CORRUPT).
    """
    dataset = frame.dataset
    interpretation = dataset.PhotometricInterpretation
    with refusing(Reason.CORRUPT, "the DICOM pixels do not decode"):
        pixels = native(pixel_array(dataset, index=frame.index))
        if interpretation == "PALETTE COLOR":
            return _eight_bits(apply_color_lut(pixels, dataset))
        if dataset.get("ModalityLUTSequence"):
            return np.asarray(apply_modality_lut(pixels, dataset))
    if interpretation == "MONOCHROME1" and (frame.slope, frame.intercept) == (1.0, 0.0):
        return _inverted(pixels, int(dataset.BitsStored))
    return pixels


def _inverted(pixels: Array, bits: int) -> Array:
    if pixels.dtype.kind == "i":
        return ~pixels
    return np.asarray(pixels.dtype.type(2**bits - 1) - pixels)


def _eight_bits(pixels: Array) -> Array:
    return (pixels >> 8).astype(np.uint8) if pixels.dtype.itemsize == 2 else pixels
