"""MetaImage: .mha, and .mhd with its .raw or .zraw in the same folder; uncompressed or zlib.

The geometry is ITK's reading of the tags: row a of TransformMatrix is the direction of axis a in LPS, Offset
the centre of the first element, ElementSpacing the distance of centres. A file must end where its elements
end, and a compressed one must be intact to its checksum.
Source: "MetaIO Documentation" (ITK), "Reference: Tags of MetaImage"; aliases as MetaIO accepts them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from medcurate.config.source import Strict
from medcurate.errors import CaseRejected, Reason
from medcurate.readers import geometry, voxels
from medcurate.readers.files import CaseFiles
from medcurate.readers.inflate import GZIP_MAGIC, gunzip, inflate
from medcurate.types import Array, Volume

_MAX_HEADER_BYTES = 1 << 16
_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",  # MetaIO's long has 4 bytes on every system
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}


class Options(Strict):
    """``channels``: "k" where a file of three axes is a picture whose third axis is red, green and blue."""

    channels: Literal["", "k"] = ""


def read(files: CaseFiles, paths: Sequence[Path], options: Options) -> Volume:
    """One .mha or .mhd as voxels (I, J, K) or (I, J, K, C); NDims = 2 as (H, W) or (H, W, 3).

    Native byte order, read-only where it was not compressed. Elements without TransformMatrix lie along
    LPS. Raises CaseRejected: UNREADABLE, CORRUPT, HEADER_SIZE, GEOMETRY, OUTSIDE_REFERENCE.
    """
    if len(paths) != 1:
        raise CaseRejected(Reason.UNREADABLE, f"a MetaImage is one file, not {len(paths)}")
    content = files.read(paths[0])
    tags, start = _parse(content)
    channels, sides, dtype = _layout(tags)
    dimensions = len(sides)
    name = tags["ElementDataFile"]
    if name.upper() != "LOCAL":
        content, start = files.read(files.sibling(paths[0], _single(name))), 0
    array = _elements(files, memoryview(content)[start:], tags, (channels, *sides), dtype)
    slope = _numbers(tags, 1, "ElementToIntensityFunctionSlope")
    intercept = _numbers(tags, 1, "ElementToIntensityFunctionOffset")
    if options.channels == "k":
        array, sides = _picture_of(array, channels), sides[:2]
    flat = len(sides) == 2
    return Volume(
        voxels=_image(array) if flat else _volume(array),
        affine=None if flat else _affine(tags),
        slope=slope[0] if slope else 1.0,
        intercept=intercept[0] if intercept else 0.0,
        spacing_mm=_spacing_mm(tags, dimensions)[1::-1] if flat else None,  # type: ignore[arg-type]
    )


def _parse(content: bytes) -> tuple[Mapping[str, str], int]:
    """The tags, and where the header ends: with ElementDataFile, which MetaIO requires to be the last."""
    tags: dict[str, str] = {}
    start, limit = 0, min(len(content), _MAX_HEADER_BYTES)
    while "ElementDataFile" not in tags:
        end = content.find(b"\n", start, limit)
        end = limit if end < 0 else end  # the last line of an .mhd may lack its newline
        key, equals, value = content[start:end].partition(b"=")
        if start >= limit or (key.strip() and not equals):
            raise CaseRejected(Reason.UNREADABLE, "not a MetaImage header")
        if equals:
            tags[key.strip().decode("latin-1")] = value.strip().decode("latin-1")
        start = end + 1
    return tags, start


def _layout(tags: Mapping[str, str]) -> tuple[int, tuple[int, ...], np.dtype[Any]]:
    """Channels, sides (i first) and element type."""
    dimensions = int(_required(tags, 1, "NDims")[0])
    if dimensions not in {2, 3}:
        raise CaseRejected(Reason.UNREADABLE, f"MetaImage of {dimensions} dimensions; 2 and 3 are supported")
    sides = tuple(int(side) for side in _required(tags, dimensions, "DimSize"))
    channels = int((_numbers(tags, 1, "ElementNumberOfChannels") or (1.0,))[0])
    code = _TYPES.get(tags.get("ElementType", "").removesuffix("_ARRAY"))
    if code is None or not _flag(tags, "BinaryData", default=True):
        raise CaseRejected(Reason.UNREADABLE, "the MetaImage elements are not binary numbers of a known type")
    big = _flag(tags, "BinaryDataByteOrderMSB", "ElementByteOrderMSB", default=False)
    return channels, sides, np.dtype(voxels.byte_order(big) + code)


def _elements(
    files: CaseFiles,
    stored: memoryview,
    tags: Mapping[str, str],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
) -> Array:
    size = voxels.claimed_bytes(shape, dtype)
    compressed = _flag(tags, "CompressedData", default=False)
    skip = int((_numbers(tags, 1, "HeaderSize") or (0.0,))[0])
    if skip < -1 or (skip == -1 and compressed):
        raise CaseRejected(Reason.UNREADABLE, "the MetaImage HeaderSize is impossible")
    stored = stored[skip:] if skip >= 0 else stored[max(0, len(stored) - size) :]
    if compressed:
        data: voxels.Buffer = _inflated(stored, files.volume_bytes, size)
    else:
        files.check_claim(size, len(stored))
        data = stored
    if len(data) != size:
        raise CaseRejected(
            Reason.CORRUPT,
            "the file does not end with its last element",
            {"measure": len(data), "bound": size},
        )
    return voxels.fortran(data, shape, dtype)


def _inflated(stored: memoryview, limit: int, size: int) -> voxels.Buffer:
    if stored[:2] == GZIP_MAGIC:  # MetaIO's inflate accepts both wrappers
        return gunzip(bytes(stored), limit=limit, expected_bytes=size)
    return inflate(stored, "zlib", limit=limit, expected_bytes=size)


def _picture_of(array: Array, channels: int) -> Array:
    """(1, I, J, 3) -> (3, I, J)."""
    if channels != 1 or array.ndim != 4 or array.shape[3] != 3:
        raise CaseRejected(Reason.UNREADABLE, "the third axis does not hold red, green and blue")
    return np.moveaxis(array[0], -1, 0)


def _volume(array: Array) -> Array:
    """(C, I, J, K) -> (I, J, K) or (I, J, K, C)."""
    return array[0] if array.shape[0] == 1 else np.moveaxis(array, 0, -1)


def _image(array: Array) -> Array:
    """(C, I, J) -> (H, W) or (H, W, 3): rows are the second axis."""
    if array.shape[0] not in {1, 3}:
        raise CaseRejected(
            Reason.UNREADABLE, f"a 2D image of {array.shape[0]} channels; 1 and 3 are supported"
        )
    return array[0].T if array.shape[0] == 1 else array.transpose(2, 1, 0)


def _affine(tags: Mapping[str, str]) -> geometry.Affine:
    directions = _numbers(tags, 9, "TransformMatrix", "Rotation", "Orientation") or tuple(np.eye(3).flat)
    steps = np.reshape(directions, (3, 3)) * np.reshape(_spacing_mm(tags, 3), (3, 1))
    origin = _numbers(tags, 3, "Offset", "Position", "Origin") or (0.0, 0.0, 0.0)
    return geometry.affine_from_axes(steps, origin, geometry.LPS)


def _spacing_mm(tags: Mapping[str, str], count: int) -> tuple[float, ...]:
    """Per axis, i first; ElementSize stands in where there is no ElementSpacing, as in MetaIO."""
    spacing = _numbers(tags, count, "ElementSpacing", "ElementSize")
    if spacing is None or not all(0 < step < np.inf for step in spacing):
        raise CaseRejected(Reason.GEOMETRY, "the MetaImage states no positive ElementSpacing")
    return spacing


def _single(name: str) -> str:
    if name.upper().startswith("LIST") or "%" in name or not name:
        raise CaseRejected(Reason.UNREADABLE, "MetaImage data in several files are not supported")
    return name


def _required(tags: Mapping[str, str], count: int, name: str) -> tuple[float, ...]:
    found = _numbers(tags, count, name)
    if found is None:
        raise CaseRejected(Reason.UNREADABLE, f"the MetaImage tag {name} is missing")
    return found


def _numbers(tags: Mapping[str, str], count: int, *names: str) -> tuple[float, ...] | None:
    """The numbers of the first tag present, None where none is."""
    for name in names:
        if name in tags:
            break
    else:
        return None
    try:
        values = tuple(float(word) for word in tags[name].split())
    except ValueError:
        values = ()
    if len(values) != count or not np.isfinite(values).all():
        raise CaseRejected(Reason.UNREADABLE, f"the MetaImage tag {name} does not hold {count} numbers")
    return values


def _flag(tags: Mapping[str, str], *names: str, default: bool) -> bool:
    for name in names:
        if name in tags:
            return tags[name][:1] in {"T", "t", "1"}
    return default
