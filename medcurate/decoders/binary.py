"""Files that show one structure each: foreground by a threshold, and many such files in few layers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from medcurate.config.source import Strict
from medcurate.decoders.values import BLOCK_VOXELS, Stored, blocks, holds_only, stored
from medcurate.errors import CaseRejected, Reason
from medcurate.types import Array, LabelLayer, Volume

VALUES_SHOWN = 8


class BinaryOptions(Strict):
    """``several``: whether several files of one class are one object each, or one object together."""

    inverted: bool = False
    several: Literal["objects", "union"] = "objects"


def foreground(volume: Volume, above: float, *, inverted: bool) -> npt.NDArray[np.bool_]:
    """Where the physical value is strictly greater than ``above`` (``inverted``: where it is not).

    Same shape and memory order as the voxels; slope and intercept move the bound, not the voxels. Raises
    CaseRejected (BAD_LABEL) for NaN.
    """
    content = stored(volume)
    if content.voxels.dtype.kind == "f":
        _refuse_nan(content.voxels)
    return _greater(content, above, inverted=inverted)


def sole_value(volume: Volume, *, inverted: bool) -> npt.NDArray[np.bool_]:
    """Where a mask of 0 and one greater physical value holds the greater one (``inverted``: where it does not).

    Raises CaseRejected (BAD_LABEL) for every other content: two structures would become one, and where a soft
    edge ends nobody has said. ``measures``: ``measure``, the least value that is too many, and ``count``, its voxels'.
    """
    content = stored(volume)
    highest = _highest(content)
    if not holds_only(content, (0.0, highest)):
        raise _several(content, highest)
    # Half way, for a slope may have moved what stands for 0 a little above it.
    return _greater(content, highest / 2 if highest else 0.5, inverted=inverted)


def _greater(content: Stored, above: float, *, inverted: bool) -> npt.NDArray[np.bool_]:
    bound = content.number(above)
    mask: npt.NDArray[np.bool_]
    if content.voxels.dtype.kind == "f":
        mask = np.greater(content.voxels, above)
    elif content.slope < 0:  # a greater value is stored as a smaller number
        mask = np.less(content.voxels, math.ceil(bound))
    else:
        mask = np.greater(content.voxels, math.floor(bound))
    return np.logical_not(mask, out=mask) if inverted else mask


def _highest(content: Stored) -> float:
    """The greatest physical value, 0 where none is above it. Raises CaseRejected (BAD_LABEL) for NaN and infinities."""
    ends = [end for block in blocks(content.voxels) for end in (block.min(), block.max())]
    physical = content.labels(np.array(ends or [0]))
    if not np.isfinite(physical).all():
        count = sum(int(block.size - np.isfinite(block).sum()) for block in blocks(content.voxels))
        raise CaseRejected(Reason.BAD_LABEL, f"NaN or infinity in {count} voxels", {"count": count})
    return max(0.0, float(physical.max()))


def _several(content: Stored, highest: float) -> CaseRejected:
    counts: Counter[float] = Counter()
    for block in blocks(content.voxels):
        values, numbers = np.unique(block, return_counts=True)
        counts.update(dict(zip(content.labels(values).tolist(), numbers.tolist(), strict=True)))
    others = sorted(value for value in counts if value != 0)
    shown = ", ".join(f"{value:g}" for value in others[:VALUES_SHOWN])
    rest = f" and {len(others) - VALUES_SHOWN} more" if len(others) > VALUES_SHOWN else ""
    return CaseRejected(
        Reason.BAD_LABEL,
        f"values {shown}{rest} in a file of one class, which is to hold 0 and one value above it; "
        "the decoder's option above says from where on values count",
        {"measure": others[0], "count": sum(counts[value] for value in others if value != highest)},
    )


def _refuse_nan(voxels: Array) -> None:
    count = sum(int(np.isnan(block).sum()) for block in blocks(voxels) if np.isnan(block.min()))
    if count:
        raise CaseRejected(Reason.BAD_LABEL, f"NaN in {count} voxels", {"count": count})


@dataclass(slots=True)
class _Layer:
    """``flat``: view of ``labels`` in the order of ``axes``, so that masks of any memory order fit."""

    labels: Array
    flat: Array
    terms: dict[int, str] = field(default_factory=dict)


def pack(
    masks: Iterable[tuple[str, npt.NDArray[np.bool_]]], count: int, *, union: bool
) -> tuple[LabelLayer, ...]:
    """``count`` pairs of term and mask in as few layers as overlaps allow; no masks are kept meanwhile.

    Every mask gets a value of its own (with ``union``: every term). It goes to the first layer where it
    touches no other value, so disjoint structures share one array. At least one layer comes back. Raises
    CaseRejected (GEOMETRY) where shapes differ.
    """
    dtype = np.uint8 if count <= np.iinfo(np.uint8).max else np.uint16
    layers: list[_Layer] = []
    values: dict[str, int] = {}
    axes: tuple[int, ...] = ()
    for number, (term, mask) in enumerate(masks, start=1):
        if not layers:
            axes = tuple(sorted(range(mask.ndim), key=lambda axis: -abs(mask.strides[axis])))
            layers.append(_layer(mask, axes, dtype))
        if mask.shape != layers[0].labels.shape:
            raise CaseRejected(Reason.GEOMETRY, "label files of the case differ in shape")
        value = values.setdefault(term, len(values) + 1) if union else number
        _place(layers, mask.transpose(axes).reshape(-1), value, term, axes)
    return tuple(LabelLayer(labels=layer.labels, terms=layer.terms) for layer in layers)


def _layer(like: Array, axes: tuple[int, ...], dtype: npt.DTypeLike) -> _Layer:
    ordered = np.zeros([like.shape[axis] for axis in axes], dtype)
    return _Layer(ordered.transpose(np.argsort(axes)), ordered.reshape(-1))


def _place(
    layers: list[_Layer], mask: npt.NDArray[np.bool_], value: int, term: str, axes: tuple[int, ...]
) -> None:
    """Write ``value`` where ``mask`` (flat, in the order of ``axes``) is set: into the first layer with room."""
    for layer in layers:
        if _has_room(layer.flat, mask, value):
            break
    else:
        layer = _layer(layers[0].labels, axes, layers[0].labels.dtype)
        layers.append(layer)
    np.putmask(layer.flat, mask, value)
    layer.terms[value] = term


def _has_room(flat: Array, mask: npt.NDArray[np.bool_], value: int) -> bool:
    """Whether ``flat`` holds nothing but 0 and ``value`` under ``mask``; a block at a time, so as to copy little."""
    for start in range(0, len(flat), BLOCK_VOXELS):
        taken = flat[start : start + BLOCK_VOXELS][mask[start : start + BLOCK_VOXELS]]
        if taken.any() and not bool(((taken == 0) | (taken == value)).all()):
            return False
    return True
