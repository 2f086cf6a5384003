"""What the decoders of objects share: ids checked, and layers of the ids of one term each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from medcurate.decoders.values import as_integers, blocks, dense, stored
from medcurate.errors import CaseRejected, Reason
from medcurate.types import Array, LabelLayer, Volume

EXACT = float(1 << 53)  # whole floats up to here are exact
MAX_ID = 2**32 - 1  # what the manifest's ``instance`` column holds


def ids(volume: Volume) -> Array:
    """The object ids as stored, 0 to 32 bits. Raises CaseRejected (BAD_LABEL) for what is no id."""
    content = stored(volume)
    if content.slope != 1 or content.intercept != 0:
        raise CaseRejected(Reason.BAD_LABEL, "instance ids with a slope or an intercept")
    extremes = [0.0]
    for block in blocks(content.voxels):
        low, high = block.min().item(), block.max().item()
        if not low >= 0 or (block.dtype.kind == "f" and not high <= EXACT):
            raise CaseRejected(Reason.BAD_LABEL, "an instance id is negative, NaN or infinite")
        if block.dtype.kind == "f" and not np.array_equal(block, np.rint(block)):
            raise CaseRejected(Reason.BAD_LABEL, "an instance id is no whole number")
        if high > MAX_ID:
            raise CaseRejected(
                Reason.BAD_LABEL, "an instance id is over 32 bits", {"measure": float(high), "bound": MAX_ID}
            )
        extremes.append(high)
    return as_integers(content.voxels, [0, int(max(extremes))])


def channels(volume: Volume) -> list[Volume]:
    """The channels (last axis) of a picture (H, W, C) or volume (I, J, K, C), as views.

    Raises CaseRejected (BAD_LABEL) where there is only one.
    """
    axes = 2 if volume.affine is None else 3
    if volume.voxels.ndim != axes + 1:
        raise CaseRejected(Reason.BAD_LABEL, "the label has one channel where several are expected")
    return [
        Volume(
            voxels=volume.voxels[..., index],
            affine=volume.affine,
            slope=volume.slope,
            intercept=volume.intercept,
            spacing_mm=volume.spacing_mm,
        )
        for index in range(volume.voxels.shape[-1])
    ]


def by_term(found: Array, terms: Mapping[int, str]) -> tuple[LabelLayer, ...]:
    """One layer a term: the ids of ``found`` that mean it, as they are; ids outside ``terms`` are background.

    At least one layer, which is blank where no id means anything: whoever cuts it needs its shape.
    """
    found = dense(found)
    return tuple(
        LabelLayer(labels=_only(found, values), terms={0: term}, instances=True)
        for term, values in _values(terms)
    ) or (blank(found),)


def blank(found: Array) -> LabelLayer:
    """A layer of the shape of ``found`` that shows nothing."""
    return LabelLayer(labels=np.zeros_like(found, np.uint8), terms={})


def _values(terms: Mapping[int, str]) -> Iterator[tuple[str, npt.NDArray[np.int64]]]:
    for term in dict.fromkeys(terms.values()):
        yield term, np.array(sorted(value for value, named in terms.items() if named == term), np.int64)


def _only(found: Array, values: npt.NDArray[np.int64]) -> Array:
    labels = np.zeros_like(found)
    for block, out in zip(blocks(found), blocks(labels), strict=True):
        np.copyto(out, block, where=np.isin(block, values))
    return labels


def whole(text: str) -> range:
    """ "7" or "1..10" as whole numbers, both ends included. Raises ValueError."""
    parts = text.split("..")
    if len(parts) not in {1, 2} or not all(part.isascii() and part.isdigit() for part in parts):
        raise ValueError(f'"{text}" is neither a whole number nor a range low..high')
    low, high = int(parts[0]), int(parts[-1])
    if low > high or high > MAX_ID:
        raise ValueError(f'"{text}": a range goes from low to high, up to {MAX_ID}')
    return range(low, high + 1)


def check_disjoint(keys: list[str]) -> None:
    """Raise ValueError unless every key is a whole number or a range and no two of them meet."""
    ranges = sorted((whole(key) for key in keys), key=lambda values: values.start)
    for before, after in pairwise(ranges):
        if after.start < before.stop:
            raise ValueError(f"values {after.start} of two labels meet")


def undeclared(what: str, value: int, count: int) -> CaseRejected:
    """The refusal of a value that the source does not declare."""
    return CaseRejected(
        Reason.BAD_LABEL,
        f"{what} {value} is not declared; {count} voxels hold such values",
        {"measure": value, "count": count},
    )
