"""One DICOM frame to pixels, through pydicom's decoders, which clear the bits above Bits Stored.

Sources: DICOM PS3.3 C.7.6.3.1.2 (photometric interpretation), C.7.9 (Palette Color Lookup Table), C.11.1
(Modality LUT).
"""

from __future__ import annotations

from copy import copy

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from medcurate.errors import CaseRejected, Reason
from medcurate.readers.dicom_parse import Frame, StoredPixels, text, whole
from medcurate.readers.guard import refusing
from medcurate.readers.voxels import native
from medcurate.types import Array

_TRANSFER_SYNTAX, _PIXEL_DATA, _MODALITY_LUT = 0x00020010, 0x7FE00010, 0x00283000
_SAMPLES, _INTERPRETATION, _FRAMES, _ROWS, _COLUMNS = (
    0x00280002,
    0x00280004,
    0x00280008,
    0x00280010,
    0x00280011,
)
_BITS_ALLOCATED, _BITS_STORED, _HIGH_BIT, _SIGNED = 0x00280100, 0x00280101, 0x00280102, 0x00280103
_LITTLE_ENDIAN = {ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian}
_COLOUR = {"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"}
_GREY = {"MONOCHROME1", "MONOCHROME2"}


def claimed_bytes(dataset: Dataset) -> int:
    """Bytes that all frames of a dataset decode to, palette look-up included."""
    sides = [whole(dataset, tag) for tag in (_ROWS, _COLUMNS, _BITS_ALLOCATED)]
    frames = whole(dataset, _FRAMES) or 1
    samples = whole(dataset, _SAMPLES) or 1
    if min(*sides, frames, samples) < 1:
        raise CaseRejected(Reason.CORRUPT, "the DICOM header states an image without pixels")
    rows, columns, bits = sides
    channels = 3 if text(dataset, _INTERPRETATION) == "PALETTE COLOR" else samples
    return rows * columns * frames * channels * max(1, bits // 8)


def grid(dataset: Dataset) -> tuple[int, int, int, str]:
    """(rows, columns, samples a pixel, photometric interpretation): what the planes of a volume share."""
    rows, columns, samples = (whole(dataset, tag) for tag in (_ROWS, _COLUMNS, _SAMPLES))
    return rows, columns, samples, text(dataset, _INTERPRETATION)


def check_stored(dataset: Dataset, stored: StoredPixels | None = None) -> None:
    """Refuse what will not decode: no decoder (UNREADABLE), too few bytes of native pixels (CORRUPT).

    ``stored``: the pixels, where they are not in the dataset.
    """
    with refusing(Reason.UNREADABLE, "the DICOM transfer syntax is missing or unknown"):
        syntax = UID(text(dataset.file_meta, _TRANSFER_SYNTAX))
        if not get_decoder(syntax).is_available:
            raise CaseRejected(Reason.UNREADABLE, f'no decoder for {syntax.name}; install "medcurate[dicom]"')
    interpretation = text(dataset, _INTERPRETATION)
    if whole(dataset, _HIGH_BIT) >= whole(dataset, _BITS_STORED, 64):
        raise CaseRejected(Reason.UNREADABLE, "the DICOM pixels do not use the lowest bits")
    if interpretation not in _COLOUR | _GREY | {"PALETTE COLOR"}:
        raise CaseRejected(Reason.UNREADABLE, "the DICOM photometric interpretation is not supported")
    if stored is None and ((syntax.is_compressed and not syntax.is_deflated) or _PIXEL_DATA not in dataset):
        return
    samples = 2 if interpretation == "YBR_FULL_422" else whole(dataset, _SAMPLES) or 1
    count = whole(dataset, _ROWS) * whole(dataset, _COLUMNS) * samples * (whole(dataset, _FRAMES) or 1)
    needed, held = (count * whole(dataset, _BITS_ALLOCATED) + 7) // 8, _held_bytes(dataset, stored)
    if held < needed:
        raise CaseRejected(
            Reason.CORRUPT, "fewer pixel bytes than the header states", {"measure": held, "bound": needed}
        )


def _held_bytes(dataset: Dataset, stored: StoredPixels | None) -> int:
    if stored is not None:
        return stored.length
    value = dataset.get_item(_PIXEL_DATA).value
    return len(value) if isinstance(value, bytes) else len(dataset.PixelData)


def decode(frame: Frame, content: bytes = b"") -> Array:
    """(rows, columns) or (rows, columns, 3) RGB: stored values, or the Modality LUT's where there is one.

    MONOCHROME1 is inverted so that larger is brighter, unless a rescale or a LUT gives the values a
    physical meaning. ``content``: of the file, where the frame's dataset is a header alone. May be a read-only
    view of it. Raises CaseRejected (CORRUPT).
    """
    dataset = frame.dataset
    interpretation = text(dataset, _INTERPRETATION)
    with refusing(Reason.CORRUPT, "the DICOM pixels do not decode"):
        value = _stored_bytes(frame.stored, content) if frame.stored else _own_bytes(dataset)
        pixels = _plain(dataset, frame.index, value) if interpretation in _GREY and value else None
        if pixels is None:
            if frame.stored and value:
                dataset = copy(dataset)
                dataset.PixelData = bytes(value)
            pixels = native(pixel_array(dataset, index=frame.index))
        if interpretation == "PALETTE COLOR":
            return _eight_bits(apply_color_lut(pixels, dataset))
        if _MODALITY_LUT in dataset and dataset.get("ModalityLUTSequence"):
            return np.asarray(apply_modality_lut(pixels, dataset))
    if interpretation == "MONOCHROME1" and (frame.slope, frame.intercept) == (1.0, 0.0):
        return _inverted(pixels, int(dataset.BitsStored))
    return pixels


def _own_bytes(dataset: Dataset) -> memoryview | None:
    value = dataset.get_item(_PIXEL_DATA).value if _PIXEL_DATA in dataset else None
    return memoryview(value) if isinstance(value, bytes) else None


def _stored_bytes(stored: StoredPixels, content: bytes) -> memoryview:
    if not content.startswith(stored.header):
        raise CaseRejected(Reason.CORRUPT, "the file changed while it was read")
    held = len(content) - stored.start
    if held < stored.length:
        measures = {"measure": held, "bound": stored.length}
        raise CaseRejected(Reason.CORRUPT, "fewer pixel bytes than the header states", measures)
    return memoryview(content)[stored.start : stored.start + stored.length]


def _plain(dataset: Dataset, index: int, value: memoryview) -> Array | None:
    """A frame of whole, little-endian greys as a view of ``value``; None for what pydicom must decode.

    Bits above Bits Stored are cleared, of signed pixels filled with the sign (PS3.5 8.1.1 leaves them open).
    """
    bits, stored = whole(dataset, _BITS_ALLOCATED), whole(dataset, _BITS_STORED)
    plain = bits in {8, 16, 32} and 0 < stored <= bits and whole(dataset, _SAMPLES, 1) == 1
    if not plain or text(dataset.file_meta, _TRANSFER_SYNTAX) not in _LITTLE_ENDIAN:
        return None
    rows, columns = whole(dataset, _ROWS), whole(dataset, _COLUMNS)
    dtype = np.dtype(f"<{'i' if whole(dataset, _SIGNED) else 'u'}{bits // 8}")
    start = index * rows * columns * dtype.itemsize
    pixels = np.frombuffer(value, dtype, rows * columns, start).reshape(rows, columns)
    unused = bits - stored
    return native(pixels << unused >> unused if unused else pixels)


def _inverted(pixels: Array, bits: int) -> Array:
    if pixels.dtype.kind == "i":
        return ~pixels
    return np.asarray(pixels.dtype.type(2**bits - 1) - pixels)


def _eight_bits(pixels: Array) -> Array:
    return (pixels >> 8).astype(np.uint8) if pixels.dtype.itemsize == 2 else pixels
