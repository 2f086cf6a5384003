"""Grey values or ranges of them stand for structures: 85, 170, 255, or "55..70" where values scatter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import field_validator

from medcurate.config.source import Strict
from medcurate.decoders.values import Stored, blocks, dense, stored
from medcurate.errors import CaseRejected, Reason
from medcurate.types import Array, LabelFiles, LabelLayer, Volume

RANGE = ".."


class Options(Strict):
    """``background``: values or ranges that are no structure; all others must be keys of [labels]."""

    background: tuple[str, ...] = ("0",)

    @field_validator("background")
    @classmethod
    def _intervals(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            interval(text)
        return value


@dataclass(frozen=True, slots=True)
class Interval:
    """Physical values from ``low`` to ``high``, both included."""

    low: float
    high: float


def interval(text: str) -> Interval:
    """ "85" or "55..70". Raises ValueError."""
    parts = text.split(RANGE)
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        numbers = []
    if len(numbers) not in {1, 2} or not np.isfinite(numbers).all() or numbers[0] > numbers[-1]:
        raise ValueError(f'"{text}" is neither a number nor a range low..high')
    return Interval(numbers[0], numbers[-1])


def check(labels: Mapping[str, str]) -> None:
    """Raise ValueError unless every key is a number or a range and no two of them meet."""
    _table(labels, ())


def decode(files: LabelFiles, labels: Mapping[str, str], options: Options) -> tuple[LabelLayer, ...]:
    """One layer a file: value n for the n-th key of [labels]. Raises CaseRejected (BAD_LABEL)."""
    table = _table(labels, options.background)
    terms = dict(enumerate(labels.values(), start=1))
    return tuple(LabelLayer(labels=_classes(volume, table), terms=terms) for _, volume in files)


@dataclass(frozen=True, slots=True)
class _Table:
    """Disjoint intervals, ascending, and the class of each (0 background)."""

    lows: npt.NDArray[np.float64]
    highs: npt.NDArray[np.float64]
    classes: npt.NDArray[np.uint16]


def _table(labels: Mapping[str, str], background: Sequence[str]) -> _Table:
    """Raises ValueError where two intervals meet; a background value that is also a key is the key's."""
    keyed = [(interval(key), number) for number, key in enumerate(labels, start=1)]
    taken = {found for found, _ in keyed}
    keyed += [(found, 0) for text in background if (found := interval(text)) not in taken]
    keyed.sort(key=lambda item: item[0].low)
    lows, highs = ([getattr(found, end) for found, _ in keyed] for end in ("low", "high"))
    for index in range(1, len(keyed)):
        if lows[index] <= highs[index - 1]:
            raise ValueError(f"values {lows[index]:g} and {highs[index - 1]:g} of two labels meet")
    classes = np.array([number for _, number in keyed], np.uint16)
    return _Table(np.array(lows, np.float64), np.array(highs, np.float64), classes)


UNDECLARED = np.iinfo(np.uint16).max


def _classes(volume: Volume, table: _Table) -> Array:
    """(shape of the voxels) of class numbers, uint8 where they fit."""
    content = stored(volume)
    voxels = dense(content.voxels)
    narrow = voxels.dtype.kind in "ui" and voxels.dtype.itemsize <= 2
    lut = _classify(_every(voxels.dtype), content, table) if narrow else None
    labels = np.empty_like(voxels, dtype=np.uint16)
    count, smallest = 0, np.inf
    for block, out in zip(blocks(voxels), blocks(labels), strict=True):
        out[...] = _classify(block, content, table) if lut is None else lut[_unsigned(block)]
        if out.max() == UNDECLARED:
            odd = block[out == UNDECLARED]
            count += odd.size
            smallest = min(smallest, content.physical(np.fmin.reduce(odd).item()))
    if count:
        raise _undeclared(count, smallest)
    return labels if len(table.classes) > np.iinfo(np.uint8).max else labels.astype(np.uint8)


def _classify(values: Array, content: Stored, table: _Table) -> npt.NDArray[np.uint16]:
    physical = content.labels(values)
    place = np.searchsorted(table.lows, physical, side="right") - 1
    known = (place >= 0) & (physical <= table.highs[place])
    return np.where(known, table.classes[place], np.uint16(UNDECLARED))


def _every(dtype: np.dtype[Any]) -> Array:
    """All values of an integer type, in the order of its bit patterns."""
    bits = 8 * dtype.itemsize
    return np.arange(1 << bits, dtype=f"u{dtype.itemsize}").view(dtype)


def _unsigned(block: Array) -> Array:
    return block.view(f"u{block.dtype.itemsize}")


def _undeclared(count: int, smallest: float) -> CaseRejected:
    finite = bool(np.isfinite(smallest))
    value = f"{smallest:g}" if finite else "NaN or infinity"
    return CaseRejected(
        Reason.BAD_LABEL,
        f"label value {value} is not declared; {count} voxels hold such values",
        {"measure": smallest, "count": count} if finite else {"count": count},
    )
