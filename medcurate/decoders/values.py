"""What label files hold, as numbers: shared by the decoders. No array-sized temporaries.

A label volume is mostly long runs of equal values, so its distinct values are read from where runs start
(and most blocks need only their extremes), instead of from a histogram of every voxel.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from medcurate.errors import CaseRejected, Reason
from medcurate.types import Array, Volume

BLOCK_VOXELS = 1 << 20
_ROUNDING = Fraction(1, 20)  # how far from a label its nearest stored number may lie
FEW_MISSING = 2  # values that are searched one by one; more cost more than finding all runs


def scalar_voxels(volume: Volume) -> Array:
    """The label voxels as stored, native byte order: (I, J, K) or (H, W); without copy where possible.

    A picture (H, W, 3) whose three channels are equal is grey. Raises CaseRejected for real colours, for
    volumes of several components and for what is no real number.
    """
    voxels = volume.voxels
    if voxels.dtype.kind not in "buif":
        raise CaseRejected(Reason.BAD_LABEL, f"label values of type {voxels.dtype} are no numbers")
    if voxels.ndim == (3 if volume.affine is None else 4):
        voxels = _one_component(voxels)
    if voxels.dtype == np.bool_:
        return voxels.view(np.uint8)
    return voxels if voxels.dtype.isnative else voxels.astype(voxels.dtype.newbyteorder("="))


def _one_component(voxels: Array) -> Array:
    first = voxels[..., 0]
    if any(not np.array_equal(first, voxels[..., index]) for index in range(1, voxels.shape[-1])):
        raise CaseRejected(
            Reason.BAD_LABEL, f"labels of {voxels.shape[-1]} different components where one value is expected"
        )
    return np.ascontiguousarray(first) if voxels.flags.c_contiguous else first


@dataclass(frozen=True, slots=True)
class Stored:
    """Label voxels with the rule from stored to physical value: physical = stored * slope + intercept."""

    voxels: Array  # integers, or floats with slope 1 and intercept 0
    slope: Fraction = Fraction(1)
    intercept: Fraction = Fraction(0)

    def physical(self, value: float) -> float:
        """The physical value of a stored one."""
        return (
            float(value)
            if self.slope == 1 and self.intercept == 0
            else float(Fraction(value) * self.slope + self.intercept)
        )

    def number(self, physical: float) -> Fraction:
        """The stored number (perhaps no integer) that stands for ``physical``, without rounding."""
        return (Fraction(physical) - self.intercept) / self.slope

    def label(self, value: float) -> Fraction:
        """The stored number for a label: the nearest whole one where a slope only rounded the label.

        What saves floats as integers (nibabel, SPM) spreads them over the type's range: of labels 0, 1, 2 as uint8,
        1 comes back as 1.004.
        """
        exact = self.number(value)
        nearest = Fraction(round(exact))
        return nearest if abs(nearest - exact) * abs(self.slope) <= _ROUNDING else exact

    def labels(self, values: Array) -> npt.NDArray[np.float64]:
        """Physical values of stored ones; whole where ``label`` has the stored value stand for a whole number."""
        physical: npt.NDArray[np.float64] = values * float(self.slope) + float(self.intercept)
        if self.slope == 1:
            return physical
        nearest = np.rint(physical)
        rounded = np.abs(physical - nearest) <= float(min(abs(self.slope) / 2, _ROUNDING))
        return np.where(rounded, nearest, physical)


def stored(volume: Volume) -> Stored:
    """The voxels of a label file for exact comparison; slope and intercept are never applied to integers.

    Raises CaseRejected where slope and intercept are no usable numbers.
    """
    voxels = scalar_voxels(volume)
    slope, intercept = volume.slope, volume.intercept
    if not (math.isfinite(slope) and math.isfinite(intercept) and slope != 0):
        raise CaseRejected(Reason.BAD_LABEL, "the label file's slope or intercept is no usable number")
    if voxels.dtype.kind != "f":
        return Stored(voxels, Fraction(slope), Fraction(intercept))
    if slope == 1 and intercept == 0:
        return Stored(voxels)
    return Stored(voxels.astype(np.float64) * slope + intercept)


def blocks(array: Array) -> Iterator[Array]:
    """Views of at most about ``BLOCK_VOXELS`` voxels in memory order, so that each stays in the cache."""
    if not array.size:
        return
    ordered = array.transpose(sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis])))
    if ordered.flags.c_contiguous:
        ordered = ordered.reshape(-1)
    step = max(1, BLOCK_VOXELS * len(ordered) // ordered.size)
    for start in range(0, len(ordered), step):
        yield ordered[start : start + step]


def dense(array: Array) -> Array:
    """``array`` itself where its voxels fill one piece of memory in some axis order, else such a copy."""
    ordered = array.transpose(sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis])))
    return array if ordered.flags.c_contiguous else array.copy(order="K")


def refuse_undeclared(content: Stored, declared: Sequence[float]) -> None:
    """Raise CaseRejected (BAD_LABEL) if a voxel holds none of the physical values ``declared``.

    ``measures``: ``measure``, the smallest offending stored number in physical units (absent for NaN and
    infinities), and ``count``, the number of offending voxels.
    """
    known = _stored_values(content, declared)
    for block in blocks(content.voxels):
        if not _within(block, known):
            raise _undeclared(content, known)


def holds_only(content: Stored, declared: Sequence[float]) -> bool:
    """Whether every voxel holds one of the physical values ``declared``."""
    known = _stored_values(content, declared)
    return all(_within(block, known) for block in blocks(content.voxels))


def _stored_values(content: Stored, declared: Sequence[float]) -> Array:
    """The stored values of ``declared`` that can occur, sorted, in a type that holds them exactly."""
    numbers = [content.label(value) for value in declared]
    if content.voxels.dtype.kind == "f":
        return np.unique(np.array([float(number) for number in numbers], np.float64))
    return stored_integers(content.voxels.dtype, numbers)


def stored_integers(dtype: np.dtype[Any], numbers: Sequence[Fraction]) -> Array:
    """The numbers that ``dtype`` can hold, sorted, as that type."""
    limits = np.iinfo(dtype)
    whole = {int(n) for n in numbers if n.denominator == 1 and limits.min <= n <= limits.max}
    return np.array(sorted(whole), dtype)


def _within(block: Array, known: Array) -> bool:
    """Whether all values of ``block`` are in ``known``; the cheapest test that can tell comes first."""
    low = known[0] if len(known) and known[0] == _least(block.dtype) else block.min()
    high = block.max()
    if not (_contains(known, low) and _contains(known, high)):
        return False
    if low == high:
        return True
    if block.dtype.kind != "f":
        between = known[np.searchsorted(known, low) : np.searchsorted(known, high) + 1]
        missing = int(high) - int(low) + 1 - len(between)
        if missing == 0:
            return True
        if missing <= FEW_MISSING:
            absent = np.setdiff1d(np.arange(int(low), int(high) + 1, dtype=block.dtype), between)
            return not any(bool((block == value).any()) for value in absent)
    return bool(np.isin(distinct(block), known).all())


def _least(dtype: np.dtype[Any]) -> int | None:
    """The least value of an integer type: where it is declared, no block needs to be searched for its least."""
    return int(np.iinfo(dtype).min) if dtype.kind in "iu" else None


def _contains(known: Array, value: np.generic) -> bool:
    place = int(np.searchsorted(known, value))
    return place < len(known) and bool(known[place] == value)


def distinct(block: Array) -> Array:
    """The sorted distinct values of one block."""
    flat = block.reshape(-1)
    starts = np.zeros(-(-flat.size // 8) * 8, np.bool_)
    starts[:1] = True
    np.not_equal(flat[1:], flat[:-1], out=starts[1 : flat.size])
    # eight flags at a time: runs are long, so nearly all words are zero
    words = np.flatnonzero(starts.view(np.uint64) != 0)
    inside, offset = np.nonzero(starts.reshape(-1, 8)[words])
    return np.unique(flat[words[inside] * 8 + offset])


def _undeclared(content: Stored, known: Array) -> CaseRejected:
    """What is wrong with the whole array, however its blocks lie in memory."""
    count, infinite, smallest = 0, 0, math.inf
    for block in blocks(content.voxels):
        odd = block[~np.isin(block, known)]
        finite = odd[np.isfinite(odd)]
        count, infinite = count + odd.size, infinite + odd.size - finite.size
        smallest = min(smallest, content.physical(finite.min().item())) if finite.size else smallest
    if infinite:
        return CaseRejected(Reason.BAD_LABEL, f"NaN or infinity in {infinite} voxels", {"count": infinite})
    what = "is not declared" if smallest == int(smallest) else "is no declared whole number"
    detail = f"label value {smallest:g} {what}; {count} voxels hold such values"
    return CaseRejected(Reason.BAD_LABEL, detail, {"measure": smallest, "count": count})


def as_integers(voxels: Array, values: npt.ArrayLike) -> Array:
    """``voxels`` itself where integer; else a copy in the smallest integer type that holds ``values``.

    ``values``: all values that occur, whole numbers (already checked).
    """
    if voxels.dtype.kind in "ui":
        return voxels
    low, high = int(np.min(values)), int(np.max(values))
    dtype = np.result_type(np.min_scalar_type(min(low, 0)), np.min_scalar_type(max(high, 0)))
    labels = np.empty_like(voxels, dtype=dtype)
    np.copyto(labels, voxels, casting="unsafe")
    return labels
