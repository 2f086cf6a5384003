"""NRRD: .nrrd, and .nhdr with its data file in the same folder; raw, gzip, bzip2 and ascii encodings.

The header is pynrrd's to parse; the data are read here, because the size must be judged before allocation
and pynrrd verifies no checksum. A list axis (kinds ``list``, ``vector``, ``RGB-color``, …; space direction
``none``) moves to the end, and is dropped where it has one element. A file must end where its voxels end.
Source: "Definition of NRRD File Format" (Teem), sections 3 (data file), 4 (space), 5 and 6 (fields).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import nrrd as pynrrd
import numpy as np

from medcurate.config.source import Strict
from medcurate.errors import CaseRejected, Reason
from medcurate.readers import geometry, voxels
from medcurate.readers.files import CaseFiles
from medcurate.readers.guard import refusing
from medcurate.readers.inflate import bunzip2, gunzip
from medcurate.types import Array, Volume

_SPACES = {
    "right-anterior-superior": geometry.RAS,
    "ras": geometry.RAS,
    "left-anterior-superior": geometry.LAS,
    "las": geometry.LAS,
    "left-posterior-superior": geometry.LPS,
    "lps": geometry.LPS,
}
_TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": (
        "longlong",
        "long long",
        "long long int",
        "signed long long",
        "signed long long int",
        "int64",
        "int64_t",
    ),
    "u8": (
        "ulonglong",
        "unsigned long long",
        "unsigned long long int",
        "uint64",
        "uint64_t",
    ),
    "f4": ("float",),
    "f8": ("double",),
}
_DTYPES = {name: code for code, names in _TYPES.items() for name in names}
_SPATIAL_KINDS = frozenset({"domain", "space", "???", "none"})


class Options(Strict):
    """``space``: the space to assume where the file states none; without it such files are refused."""

    space: Literal["right-anterior-superior", "left-posterior-superior"] | None = None


def read(files: CaseFiles, paths: Sequence[Path], options: Options) -> Volume:
    """One .nrrd or .nhdr as voxels (I, J, K) or (I, J, K, C), native order, read-only where it was raw.

    Raises CaseRejected: UNREADABLE for what is not a 3D NRRD of numbers, GEOMETRY without a stated space
    (see Options), CORRUPT, HEADER_SIZE, OUTSIDE_REFERENCE.
    """
    if len(paths) != 1:
        raise CaseRejected(Reason.UNREADABLE, f"an NRRD image is one file, not {len(paths)}")
    content = files.read(paths[0])
    header, start = _parse(content)
    shape, dtype = _shape(header), _dtype(header)
    axes, extra = _axes(header, len(shape))
    affine = _affine(header, axes, options.space)
    name = header.get("data file", header.get("datafile"))
    if name is not None:
        content, start = files.read(files.sibling(paths[0], _single(name))), 0
    array = _data(files, memoryview(content)[start:], header, shape, dtype)
    if extra is not None:
        array = np.moveaxis(array, extra, -1) if shape[extra] > 1 else array.squeeze(extra)
    return Volume(voxels=array, affine=affine)


def _parse(content: bytes) -> tuple[Mapping[str, Any], int]:
    stream = BytesIO(content)
    with refusing(Reason.UNREADABLE, "pynrrd refuses the NRRD header"):
        return pynrrd.read_header(stream), stream.tell()


def _shape(header: Mapping[str, Any]) -> tuple[int, ...]:
    sizes = tuple(int(side) for side in np.atleast_1d(header.get("sizes", ())))
    if len(sizes) != header.get("dimension") or not sizes:
        raise CaseRejected(Reason.UNREADABLE, "the NRRD fields dimension and sizes disagree")
    return sizes


def _dtype(header: Mapping[str, Any]) -> np.dtype[Any]:
    code = _DTYPES.get(str(header.get("type", "")).lower())
    if code is None:
        raise CaseRejected(Reason.UNREADABLE, "the NRRD type is missing or not a number")
    endian = header.get("endian")
    if endian not in {"little", "big"} and code[1] != "1" and header.get("encoding") not in _ASCII:
        raise CaseRejected(Reason.UNREADABLE, "the NRRD field endian is missing")
    return np.dtype(voxels.byte_order(endian == "big") + code)


def _axes(header: Mapping[str, Any], dimensions: int) -> tuple[list[int], int | None]:
    """Indices of the three spatial axes, and of the one that is not, if any."""
    directions, kinds = header.get("space directions"), header.get("kinds")
    if directions is not None:
        spatial = [axis for axis, row in enumerate(directions) if row is not None and not np.isnan(row).all()]
    elif kinds is not None:
        spatial = [axis for axis, kind in enumerate(kinds) if kind.lower() in _SPATIAL_KINDS]
    else:
        spatial = list(range(dimensions))
    extra = sorted(set(range(dimensions)) - set(spatial))
    if len(spatial) != 3 or len(extra) > 1 or max(spatial) >= dimensions:
        raise CaseRejected(
            Reason.UNREADABLE, f"{len(spatial)} spatial and {len(extra)} other axes; 3 and at most 1 are read"
        )
    return spatial, extra[0] if extra else None


def _affine(header: Mapping[str, Any], axes: list[int], assumed: str | None) -> geometry.Affine:
    space = _SPACES.get(str(header.get("space", assumed)).lower())
    if space is None:
        raise CaseRejected(
            Reason.GEOMETRY, 'no patient space in the NRRD header; state the reader\'s option "space"'
        )
    try:
        if not set(_units(header, axes)) <= {"mm", ""}:
            raise CaseRejected(Reason.GEOMETRY, "the NRRD units of space are not mm")
        if "space directions" in header:
            steps = np.array([header["space directions"][axis] for axis in axes], np.float64)
        else:
            steps = np.diag([header["spacings"][axis] for axis in axes])
        return geometry.affine_from_axes(steps, header.get("space origin", np.zeros(3)), space)
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise CaseRejected(Reason.GEOMETRY, "the NRRD header states no usable voxel size") from error


def _units(header: Mapping[str, Any], axes: list[int]) -> list[str]:
    """Of the space, and of the axes' own spacings where those count."""
    own = [] if "space directions" in header else header.get("units", ())
    return [*header.get("space units", ()), *(own[axis] for axis in axes if own)]


def _single(name: object) -> str:
    if not isinstance(name, str) or name.startswith("LIST") or "%" in name:
        raise CaseRejected(Reason.UNREADABLE, "NRRD data in several files are not supported")
    return name


_RAW, _GZIP, _BZIP2, _ASCII = {"raw"}, {"gzip", "gz"}, {"bzip2", "bz2"}, {"ascii", "text", "txt"}


def _data(
    files: CaseFiles,
    stored: memoryview,
    header: Mapping[str, Any],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
) -> Array:
    encoding, size = str(header.get("encoding", "")).lower(), voxels.claimed_bytes(shape, dtype)
    stored = _skipped(stored, header, encoding, size)
    if encoding in _GZIP:
        data: voxels.Buffer = gunzip(bytes(stored), limit=files.volume_bytes, expected_bytes=size)
    elif encoding in _BZIP2:
        data = bunzip2(bytes(stored), limit=files.volume_bytes, expected_bytes=size)
    elif encoding in _ASCII:
        files.check_claim(size, (len(stored) + 1) // 2 * dtype.itemsize)
        data = _ascii(stored, size, dtype)
    elif encoding in _RAW:
        files.check_claim(size, len(stored))
        data = stored
    else:
        raise CaseRejected(Reason.UNREADABLE, "the NRRD encoding is not raw, gzip, bzip2 or ascii")
    if len(data) != size:
        raise CaseRejected(
            Reason.CORRUPT, "the file does not end with its last voxel", {"measure": len(data), "bound": size}
        )
    return voxels.fortran(data, shape, dtype)


def _skipped(stored: memoryview, header: Mapping[str, Any], encoding: str, size: int) -> memoryview:
    lines = int(header.get("line skip", header.get("lineskip", 0)))
    count = int(header.get("byte skip", header.get("byteskip", 0)))
    if not lines and not count:
        return stored
    if encoding not in _RAW or lines < 0 or count < -1:
        raise CaseRejected(Reason.UNREADABLE, "NRRD line skip or byte skip in compressed data")
    if count == -1:
        return stored[max(0, len(stored) - size) :]
    start, whole = 0, bytes(stored) if lines else b""
    for _ in range(lines):
        start = whole.find(b"\n", start) + 1
        if start == 0:
            raise CaseRejected(Reason.CORRUPT, "the NRRD line skip goes beyond the file")
    return stored[start + count :]


def _ascii(stored: memoryview, size: int, dtype: np.dtype[Any]) -> voxels.Buffer:
    try:
        values = np.array(bytes(stored).split()).astype(dtype)
    except (ValueError, OverflowError) as error:
        raise CaseRejected(Reason.CORRUPT, "the ascii data hold something that is not a number") from error
    return values.view(np.uint8)
