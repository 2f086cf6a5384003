"""Whole-volume statistics in one or few passes and bounded memory: extremes and exact order statistics.

Voxels are met in memory order, whatever the strides and the byte order; temporaries do not grow with the
volume.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from medcurate.errors import CaseRejected, Reason
from medcurate.types import Array

BLOCK_VOXELS = 1 << 20  # of one temporary
# cv2.calcHist clears and returns all bins at each call, and counts in float32, which is exact up to 2**24.
_COUNTED_VOXELS = 1 << 23
_DIGIT_BITS = 16

Counts = npt.NDArray[np.int64]


def blocks(voxels: Array, size: int = BLOCK_VOXELS) -> Iterator[Array]:
    """The voxels in memory order, as contiguous 1D pieces of at most ``size``, in native byte order.

    Pieces of a contiguous native array are views; others are valid until the next one is asked for.
    Extended precision (``longdouble``) is narrowed to float64.
    """
    return _pieces([voxels], [["readonly", "contig"]], [_native(voxels.dtype)], size)


def paired_blocks(source: Array, target: Array, size: int = BLOCK_VOXELS) -> Iterator[tuple[Array, Array]]:
    """Contiguous 1D pieces of both arrays at the same places; what is written to the second stays there."""
    flags = [["readonly", "contig"], ["writeonly", "contig"]]
    return _pieces([source, target], flags, [_native(source.dtype), target.dtype], size)


def _pieces(operands: list[Array], op_flags: Any, op_dtypes: Any, size: int) -> Iterator[Any]:
    with np.nditer(
        operands,
        flags=["external_loop", "buffered", "zerosize_ok"],
        op_flags=op_flags,
        op_dtypes=op_dtypes,
        order="K",
        casting="same_kind",
        buffersize=size,
    ) as pieces:
        yield from pieces


def _native(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(np.float64) if dtype.itemsize > 8 else dtype.newbyteorder("=")


def extremes(voxels: Array) -> tuple[float, float]:
    """Smallest and largest stored value.

    Raises CaseRejected(BAD_INTENSITY) for complex or no voxels, and for NaN or infinite ones, counted.
    """
    if voxels.dtype.kind not in "buif" or not voxels.size:
        raise CaseRejected(
            Reason.BAD_INTENSITY, f"{voxels.size} voxels of type {voxels.dtype.name}; real numbers are needed"
        )
    pairs = [(block.min(), block.max()) for block in blocks(voxels)]
    low, high = min(pair[0] for pair in pairs), max(pair[1] for pair in pairs)
    if voxels.dtype.kind == "f" and not np.isfinite(pairs).all():
        wrong = sum(int(np.count_nonzero(~np.isfinite(block))) for block in blocks(voxels))
        raise CaseRejected(
            Reason.BAD_INTENSITY, f"{wrong} voxels are NaN or infinite", {"measure": wrong, "bound": 0}
        )
    return float(low), float(high)


class Distribution:
    """Extremes, signs and exact order statistics of a whole volume.

    ``counted``: integers of up to 16 bits are counted by value in one pass, and all three are read off the counts;
    otherwise, and for wider types, the voxels are looked at for each.
    """

    def __init__(self, voxels: Array, *, counted: bool) -> None:
        self._voxels = voxels
        few = voxels.dtype.kind in "bui" and voxels.dtype.itemsize <= 2 and voxels.size > 0
        self._by_value = _counts_by_value(voxels) if counted and few else None

    def extremes(self) -> tuple[float, float]:
        """As the function of this name; raises as it does."""
        if self._by_value is None:
            return extremes(self._voxels)
        values, _ = self._by_value
        return float(values[0]), float(values[-1])

    def signs(self, slope: float, intercept: float) -> tuple[int, int]:
        """How many physical values ``stored * slope + intercept`` are below zero, and how many are zero."""
        values, counts = self._by_value or (None, None)
        if values is not None and counts is not None:
            physical = values * np.float64(slope) + intercept
            return int(counts[physical < 0].sum()), int(counts[physical == 0].sum())
        negative = zero = 0
        for block in blocks(self._voxels):
            physical = block if (slope, intercept) == (1, 0) else block * np.float64(slope) + intercept
            negative += int(np.count_nonzero(physical < 0))
            zero += physical.size - int(np.count_nonzero(physical))
        return negative, zero

    def order_statistics(self, ranks: Sequence[int]) -> list[float]:
        """The values at 0-based ``ranks`` of the sorted voxels, exactly; the voxels must hold no NaN."""
        if self._by_value is None:
            return _radix_selected(self._voxels, ranks)
        values, counts = self._by_value
        return [float(value) for value in values[np.searchsorted(np.cumsum(counts), ranks, side="right")]]


def _counts_by_value(voxels: Array) -> tuple[Array, Counts]:
    """All values of an integer type of up to 16 bits that occur, ascending, and how often."""
    dtype = _native(voxels.dtype)
    order = _ascending(dtype, 0, 1, 0)
    counts = _digit_counts(voxels, 0, 1, {0})[0][order]
    present = np.flatnonzero(counts)
    return order[present].astype(f"u{dtype.itemsize}").view(dtype), counts[present]


def _radix_selected(voxels: Array, ranks: Sequence[int]) -> list[float]:
    """Radix selection: a histogram of the leading 16 bits finds the bin of every rank, the next pass looks
    only into these bins, until all bits are known: one pass for types of up to 16 bits, two for 32.
    """
    dtype = _native(voxels.dtype)
    digits = max(1, 8 * dtype.itemsize // _DIGIT_BITS)
    patterns, remaining = [0] * len(ranks), list(ranks)
    for place in range(digits):
        counts = _digit_counts(voxels, place, digits, set(patterns))
        for number, pattern in enumerate(patterns):
            order = _ascending(dtype, place, digits, pattern)
            cumulated = np.cumsum(counts[pattern][order])
            bin_ = int(np.searchsorted(cumulated, remaining[number], side="right"))
            remaining[number] -= int(cumulated[bin_ - 1]) if bin_ else 0
            patterns[number] = pattern << _DIGIT_BITS | int(order[bin_])
    return [float(value) for value in np.array(patterns, f"u{dtype.itemsize}").view(dtype)]


def _digit_counts(voxels: Array, place: int, digits: int, prefixes: set[int]) -> dict[int, Counts]:
    """By prefix: how often each value of digit number ``place`` follows it in the bit patterns."""
    bins = 1 << (_DIGIT_BITS if voxels.itemsize > 1 else 8)
    counts = {prefix: np.zeros(bins, np.int64) for prefix in prefixes}
    index = place if sys.byteorder == "big" else digits - 1 - place
    for block in blocks(voxels, _COUNTED_VOXELS if digits == 1 else BLOCK_VOXELS):
        digit = block.view("u2")[index::digits] if block.itemsize > 1 else block.view("u1")
        leading = block.view(f"u{block.itemsize}") >> _DIGIT_BITS * (digits - place) if place else None
        for prefix, count in counts.items():
            chosen = digit if leading is None else digit[leading == prefix]
            if chosen.size:
                images: Any = [np.ascontiguousarray(chosen).reshape(1, -1)]
                count += cv2.calcHist(images, [0], None, [bins], [0, bins]).ravel().astype(np.int64)
    return counts


def _ascending(dtype: np.dtype[Any], place: int, digits: int, prefix: int) -> Counts:
    """The values of digit number ``place``, in the order of the numbers whose bit patterns hold them."""
    bins = 1 << (_DIGIT_BITS if dtype.itemsize > 1 else 8)
    ascending = np.arange(bins, dtype=np.int64)
    if dtype.kind in "bu":
        return ascending
    positive, negative = ascending[: bins // 2], ascending[bins // 2 :]
    if place == 0:
        # Two's complement counts up from the least number; IEEE 754 stores sign and magnitude.
        return np.concatenate([negative if dtype.kind == "i" else negative[::-1], positive])
    is_negative_float = dtype.kind == "f" and prefix >> (_DIGIT_BITS * place - 1)
    return ascending[::-1] if is_negative_float else ascending
