"""What the readers share about voxels: claimed sizes, and buffers as arrays without copies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from medcurate.errors import CaseRejected, Reason
from medcurate.types import Array, Volume

Buffer = bytes | memoryview | npt.NDArray[np.uint8]


def claimed_bytes(shape: Sequence[int], dtype: np.dtype[Any]) -> int:
    """Bytes that a header claims. Raises CaseRejected (CORRUPT) for a size below 1 on any axis."""
    if not shape or min(shape) < 1:
        raise CaseRejected(Reason.CORRUPT, "the header states an axis without voxels")
    return math.prod(int(side) for side in shape) * dtype.itemsize


def fortran(buffer: Buffer, shape: Sequence[int], dtype: np.dtype[Any], *, offset: int = 0) -> Array:
    """First axis fastest, native byte order: a view of ``buffer`` unless bytes must be swapped or aligned.

    Read-only when the buffer is. A writable buffer is swapped in place: it belongs to the caller alone.
    Raises CaseRejected (CORRUPT) when the buffer is shorter than the shape.
    """
    needed = claimed_bytes(shape, dtype)
    held = len(buffer) - offset
    if held < needed:
        raise CaseRejected(
            Reason.CORRUPT,
            "the file holds fewer bytes than its header states",
            {"measure": held, "bound": needed},
        )
    flat = np.frombuffer(buffer, dtype, count=needed // dtype.itemsize, offset=offset)
    return native(flat if flat.flags.aligned else flat.copy()).reshape(shape, order="F")


def native(array: Array) -> Array:
    """``array`` in the machine's byte order; swapped in place where it is writable."""
    if array.dtype.isnative:
        return array
    swapped = array.byteswap(inplace=array.flags.writeable)
    return swapped.view(array.dtype.newbyteorder("="))


def check_frame(entry: str) -> None:
    """Raise ValueError unless ``entry`` is the index of a frame, from 0."""
    if not (entry.isascii() and entry.isdigit()):
        raise ValueError(f'"{entry}" is no index of a frame: the first is "0"')


def frame(volume: Volume, entry: str) -> Volume:
    """The frame ``entry`` of a 4D volume, as a view (I, J, K). Raises CaseRejected (GEOMETRY)."""
    count = volume.voxels.shape[3] if volume.voxels.ndim == 4 else 0
    if not entry.isdigit() or int(entry) >= count:
        raise CaseRejected(Reason.GEOMETRY, f"no frame {entry[:12]} among {count} on a fourth axis")
    return replace(volume, voxels=volume.voxels[..., int(entry)])


def byte_order(big: bool) -> str:
    """numpy's letter for a stated byte order."""
    return ">" if big else "<"
