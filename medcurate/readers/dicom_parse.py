"""DICOM bytes to frames: header facts only, no pixel is decoded here.

A frame is one single-frame file, or one frame of an enhanced multi-frame file. Sources: DICOM PS3.3
C.7.6.2.1.1 (Image Position and Orientation (Patient)), 10.7.1.3 (order of Pixel Spacing), C.7.6.16.2.1,
.3, .4 and .9 (functional groups Pixel Measures, Plane Position, Plane Orientation, Pixel Value
Transformation), C.11.1 (Modality LUT); PS3.5 A.5 (deflated transfer syntax); PS3.10 7.1 (file meta).
"""

from __future__ import annotations

import logging
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import dcmread
from pydicom.config import disable_value_validation
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from medcurate.errors import CaseRejected, Reason
from medcurate.readers.guard import refusing

Vector = npt.NDArray[np.float64]

_TRANSFER_SYNTAX, _SOP_CLASS, _SERIES = 0x00020010, 0x00080016, 0x0020000E
_FRAMES, _PER_FRAME = 0x00280008, 0x52009230
_PIXEL_DATA, _UNDEFINED = b"\xe0\x7f\x10\x00", 0xFFFFFFFF  # tag and length, in little-endian syntaxes
_PREAMBLE_BYTES = 132  # with the prefix "DICM"
_GROUP_LENGTH_END = _PREAMBLE_BYTES + 12  # where what the group length counts begins
# Objects that hold pixels but are not images of the patient; their own readers understand them.
_DERIVED = {
    "1.2.840.10008.5.1.4.1.1.66.4",  # Segmentation
    "1.2.840.10008.5.1.4.1.1.66.7",  # Label Map Segmentation
    "1.2.840.10008.5.1.4.1.1.481.2",  # RT Dose
}
logging.getLogger("pydicom").propagate = False  # its messages quote values too
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")


@dataclass(frozen=True, slots=True)
class StoredPixels:
    """Pixels that are still in their file: the first of them, how many bytes, and the header that says so."""

    path: Path
    start: int
    length: int
    header: bytes


@dataclass(frozen=True, slots=True)
class Frame:
    """One plane. Geometry is None where the file does not state it; ``index`` counts the file's frames."""

    dataset: Dataset
    index: int
    position_mm: Vector | None  # (3,) LPS, centre of the first pixel
    orientation: Vector | None  # (2, 3): direction of a row (column index grows), of a column
    spacing_mm: Vector | None  # (2,): between rows, between columns
    thickness_mm: float | None  # between slices where stated, else of the slice
    slope: float
    intercept: float
    stored: StoredPixels | None = None  # where ``dataset`` is a header alone


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings, which quote values: pydicom converts a value, and warns, when it is first asked for."""
    with disable_value_validation(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def parse(content: bytes, limit: int) -> Dataset:
    """One file's dataset, pixels undecoded. ``limit`` bounds what a deflated file may inflate to.

    Raises CaseRejected: UNREADABLE for what is not DICOM or makes the parser fail, CORRUPT and
    HEADER_SIZE for a deflated dataset that is cut or too large.
    """
    with refusing(Reason.UNREADABLE, "not a DICOM file that pydicom reads"):
        if DeflatedExplicitVRLittleEndian.encode() not in content:  # anywhere: then it is not deflated
            return dcmread(BytesIO(content))
        stream = BytesIO(content)
        stream.seek(_PREAMBLE_BYTES)
        meta = read_dataset(stream, False, True, stop_when=lambda tag, vr, length: tag.group != 2)
        if text(meta, _TRANSFER_SYNTAX) != DeflatedExplicitVRLittleEndian:
            return dcmread(BytesIO(content))
        start = _GROUP_LENGTH_END + int(meta.FileMetaInformationGroupLength)
        dataset = read_dataset(BytesIO(_inflated(content[start:], limit)), False, True)
        dataset.file_meta = meta  # type: ignore[assignment]
        dataset.set_original_encoding(False, True)
        return dataset


def parse_header(head: bytes, path: Path) -> tuple[Dataset, StoredPixels | None] | None:
    """The header in the first bytes of a file, and where its pixels are if these are not compressed.

    None where the header does not end in ``head``, where no pixels follow it, and where the parser fails:
    ``parse`` of the whole file then tells.
    """
    stream = BytesIO(head)
    if DeflatedExplicitVRLittleEndian.encode() in head:
        return None
    try:
        dataset = dcmread(stream, stop_before_pixels=True)
    except Exception:  # where it is cut it fails in any way
        return None
    element = head[stream.tell() : stream.tell() + 12]
    if element[:4] != _PIXEL_DATA or len(element) < 12:
        return None
    syntax = text(dataset.file_meta, _TRANSFER_SYNTAX)
    if syntax == ExplicitVRLittleEndian and element[4:6] in {b"OW", b"OB"}:
        start, length = stream.tell() + 12, int.from_bytes(element[8:], "little")
    elif syntax == ImplicitVRLittleEndian:
        start, length = stream.tell() + 8, int.from_bytes(element[4:8], "little")
    else:
        return dataset, None
    return dataset, None if length == _UNDEFINED else StoredPixels(path, start, length, head[:start])


def _inflated(content: bytes, limit: int) -> bytes:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        data = inflater.decompress(content, limit + 1)
    except zlib.error as error:
        raise CaseRejected(Reason.CORRUPT, "the deflated dataset is damaged") from error
    if len(data) > limit:
        raise CaseRejected(
            Reason.HEADER_SIZE,
            "the deflated dataset exceeds the limit",
            {"measure": len(data), "bound": limit},
        )
    # One byte of padding is allowed; old writers leave gzip's trailer, which must then be right.
    trailer = struct.pack("<II", zlib.crc32(data), len(data) % 2**32)
    if not inflater.eof or inflater.unused_data not in {b"", b"\0", trailer}:
        raise CaseRejected(Reason.CORRUPT, "the deflated dataset is cut or followed by other bytes")
    return data


def has_pixels(dataset: Dataset) -> bool:
    """Whether a whole dataset holds pixels."""
    return any(name in dataset for name in _PIXELS)


def has_frames(dataset: Dataset) -> bool:
    """Whether a file holds several planes."""
    return whole(dataset, _FRAMES) > 1 or _PER_FRAME in dataset


def is_image(dataset: Dataset) -> bool:
    """Whether what has pixels is an image of the patient: no segmentation and no dose."""
    return text(dataset, _SOP_CLASS) not in _DERIVED


def series_uid(dataset: Dataset) -> str:
    """The Series Instance UID, "" where it is absent."""
    return text(dataset, _SERIES)


def kind(dataset: Dataset) -> str:
    """The registered name of a dataset's SOP class, for messages."""
    uid = UID(dataset.get("SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID") or "")
    return uid.name if uid.name != uid else "an unregistered object"


def frames(dataset: Dataset, stored: StoredPixels | None = None) -> list[Frame]:
    """The planes of one dataset, whose pixels may be ``stored`` apart.

    Raises CaseRejected (UNREADABLE) for several frames without positions of their own.
    """
    count = whole(dataset, _FRAMES) or 1
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence") if _PER_FRAME in dataset else None
    if per_frame is None and count > 1:
        raise CaseRejected(
            Reason.UNREADABLE, f"{count} frames without positions (cine); only still images are read"
        )
    if per_frame is None:
        return [_frame(dataset, 0, [dataset], stored)]
    if len(per_frame) != count:
        raise CaseRejected(Reason.CORRUPT, "as many functional groups as frames are needed")
    shared = list(dataset.get("SharedFunctionalGroupsSequence") or ())
    return [_frame(dataset, index, [group, *shared], stored) for index, group in enumerate(per_frame)]


def text(dataset: Dataset, tag: int) -> str:
    """An attribute of plain text as stored, "" where it is absent; several times as fast as pydicom's own way."""
    raw = dataset.get_item(tag) if tag in dataset else None
    value = None if raw is None else raw.value
    return value.decode("ascii", "replace").strip(" \0") if isinstance(value, bytes) else str(value or "")


def whole(dataset: Dataset, tag: int, default: int = 0) -> int:
    """An attribute that is one unsigned short (US) or integer string (IS); ``default`` where it is absent or empty."""
    raw = dataset.get_item(tag) if tag in dataset else None
    value = None if raw is None else raw.value
    if value is None or value == b"" or value == "":
        return default
    # Implicit syntaxes state no VR, and "1 " or "10" of an integer string has two bytes too.
    vr = (raw.VR if raw else None) or dictionary_VR(tag)
    if isinstance(value, bytes) and len(value) == 2 and vr != "IS":
        return int.from_bytes(value, "little" if getattr(raw, "is_little_endian", True) else "big")
    return int(dataset[tag].value)


@lru_cache(maxsize=1 << 12)
def _decimals(stored: bytes) -> Vector:
    """Decimal strings; planes of a series repeat most of them. The array is shared and read-only."""
    numbers = np.array([float(piece) for piece in stored.strip(b" \0").split(b"\\")], np.float64)
    numbers.flags.writeable = False
    return numbers


_MACROS = {
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
    "SliceThickness": "PixelMeasuresSequence",
    "SpacingBetweenSlices": "PixelMeasuresSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
}


def _frame(dataset: Dataset, index: int, groups: Sequence[Dataset], stored: StoredPixels | None) -> Frame:
    orientation = _numbers(groups, "ImageOrientationPatient", 6)
    spacing = _numbers(groups, "PixelSpacing", 2)
    # Imager Pixel Spacing is measured at the detector: what projection X-ray states.
    spacing = _numbers([dataset], "ImagerPixelSpacing", 2) if spacing is None else spacing
    between, thickness = (_numbers(groups, name, 1) for name in ("SpacingBetweenSlices", "SliceThickness"))
    step = thickness if between is None else between
    slope, intercept = (_numbers(groups, name, 1) for name in ("RescaleSlope", "RescaleIntercept"))
    return Frame(
        dataset=dataset,
        index=index,
        position_mm=_numbers(groups, "ImagePositionPatient", 3),
        orientation=None if orientation is None else orientation.reshape(2, 3),
        spacing_mm=spacing,
        thickness_mm=None if step is None else float(step[0]),
        slope=1.0 if slope is None else float(slope[0]),
        intercept=0.0 if intercept is None else float(intercept[0]),
        stored=stored,
    )


def _numbers(groups: Sequence[Dataset], name: str, count: int) -> Vector | None:
    """An attribute's numbers, from the first group that states it, plainly or in its macro."""
    tag, macro_tag = _TAGS[name], _TAGS.get(_MACROS.get(name, ""), 0)
    for group in groups:
        macro: Any = group[macro_tag].value if macro_tag in group else None
        holder: Dataset = macro[0] if macro else group
        raw = holder.get_item(tag) if tag in holder else None
        if raw is None or raw.value in {None, "", b""}:
            continue
        stored = raw.value
        numbers = _decimals(stored) if isinstance(stored, bytes) else np.array(stored, np.float64).reshape(-1)
        if len(numbers) != count or not np.isfinite(numbers).all():
            raise CaseRejected(Reason.UNREADABLE, f"{name} does not hold {count} finite numbers")
        return numbers
    return None


def _tag(name: str) -> int:
    found = tag_for_keyword(name)
    assert found is not None  # all names here are DICOM's
    return found


_TAGS = {name: _tag(name) for name in {*_MACROS, *_MACROS.values(), "ImagerPixelSpacing"}}
