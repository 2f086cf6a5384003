"""Label planes to measured masks, and masks against a recipe's bounds: measured first, then judged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from medcurate.config.recipe import Masks
from medcurate.errors import Reason
from medcurate.format import rle
from medcurate.stages.components import numbered_2d, numbered_3d
from medcurate.stages.runs import CHUNK_VOXELS, Grid, Int64s, Runs, begins, find_runs
from medcurate.types import Array

_NO_ROWS = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskTable:
    """Every mask of the planes of one label layer, columnar; sorted by (plane, order of terms, instance).

    ``plane``: index of the plane; ``label``: id of the ontology label; ``value``: the stored value;
    ``instance``: number of the component (2D: from 1 inside each plane and label, by the row, then column,
    of its first pixel; 3D: from 1 inside each label, by the plane, row, column of the object's first
    voxel), the value itself where values are instances (sorted by it), 0 for a whole label. ``area_px``:
    pixels. Box [x0, x1) x [y0, y1) in pixels, x along columns, y along rows. ``rle``: COCO compressed RLE.
    ``object_voxels``: voxels, in all planes, of the 3D component ("3d"), of the instance (instances) or of
    the value; ``whole_labels`` makes that the label, which several values may share.
    """

    plane: Int64s
    label: tuple[str, ...]
    value: Int64s
    instance: Int64s
    area_px: Int64s
    x0: Int64s
    y0: Int64s
    x1: Int64s
    y1: Int64s
    touches_border: npt.NDArray[np.bool_]
    object_voxels: Int64s
    rle: tuple[bytes, ...]

    def __len__(self) -> int:
        return len(self.plane)

    @property
    def annotated_planes(self) -> Int64s:
        """Indices of the planes that hold any label, increasing."""
        return np.unique(self.plane)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why one mask (row of the table) is not kept: its first broken bound."""

    row: int
    reason: Reason
    measures: Mapping[str, float]  # "measure" and "bound"


def find_masks(
    planes: Array,
    terms: Mapping[int, str],
    *,
    instances: bool,
    rule: Masks,
    chunk_voxels: int = CHUNK_VOXELS,
) -> MaskTable:
    """Every mask of a label layer, measured and encoded; nothing is refused here.

    ``planes``: (n, height, width) of any integer dtype or bool, any strides and byte order, as a view: it
    is never copied, and temporaries are bounded by ``chunk_voxels`` and the number of runs.
    ``terms``: the values that count and their ontology labels; with ``instances`` every value above 0 is
    one instance of the label under key 0, whole, whatever ``rule.components`` says.
    """
    grid = Grid(*planes.shape[1:])
    chunks = find_runs(planes, terms, instances=instances, chunk_voxels=chunk_voxels)
    components = "none" if instances else rule.components
    numbered = _numbered(chunks, grid, components, full=rule.connectivity == "full")
    parts = [_measured(runs, number, grid) for runs, number in numbered if len(runs)]
    columns = {
        name: np.concatenate([_NO_ROWS, *(part[0][name] for part in parts)])
        for name in ("plane", "key", "instance", "area_px", "x0", "y0", "x1", "y1")
    }
    key = columns.pop("key")
    owner = [key, columns["instance"]] if components == "3d" else [key]
    values, labels = np.array(list(terms), np.int64), list(terms.values())
    return MaskTable(
        **columns | ({"instance": key} if instances else {}),
        label=(terms[0],) * len(key) if instances else tuple(labels[k] for k in key.tolist()),
        value=key if instances else values[key],
        touches_border=_touches_border(columns, grid),
        object_voxels=_totals(owner, columns["area_px"]),
        rle=tuple(text for part in parts for text in part[1]),
    )


def joined(tables: Iterable[MaskTable]) -> MaskTable:
    """Tables of several layers as one, sorted by plane; inside a plane in the order of the layers.

    Objects stay those of the layers; for labels in several of them see ``whole_labels`` and ``told_apart``.
    """
    parts = list(tables)
    if len(parts) == 1:
        return parts[0]
    order = np.argsort(np.concatenate([_NO_ROWS, *(part.plane for part in parts)]), kind="stable")
    columns: dict[str, Any] = {}
    for entry in fields(MaskTable):
        values = [getattr(part, entry.name) for part in parts]
        if entry.name in {"label", "rle"}:
            flat = [value for part in values for value in part]
            columns[entry.name] = tuple(flat[row] for row in order.tolist())
        else:
            empty: Array = np.empty(0, np.bool_ if entry.name == "touches_border" else np.int64)
            columns[entry.name] = np.concatenate([empty, *values])[order]
    return MaskTable(**columns)


def renumbered(table: MaskTable) -> MaskTable:
    """2D components numbered from 1 in every plane and label, also where layers or values share a label."""
    seen: Counter[tuple[int, str]] = Counter()
    numbers = np.empty(len(table), np.int64)
    for row, place in enumerate(zip(table.plane.tolist(), table.label, strict=True)):
        seen[place] += 1
        numbers[row] = seen[place]
    return replace(table, instance=numbers)


def whole_labels(table: MaskTable) -> MaskTable:
    """``object_voxels`` of labels, in all values and layers that hold them; where masks overlap, each counts."""
    numbers = {label: number for number, label in enumerate(dict.fromkeys(table.label))}
    owner = np.array([numbers[label] for label in table.label], np.int64)
    return replace(table, object_voxels=_totals([owner], table.area_px))


def told_apart(tables: Iterable[MaskTable]) -> Iterator[MaskTable]:
    """3D objects numbered on where several layers or values share a label: a number is one object of its label."""
    taken: Counter[str] = Counter()
    for table in tables:
        instance = table.instance.copy()
        for value in np.unique(table.value).tolist():
            rows = np.flatnonzero(table.value == value)
            label = table.label[rows[0]]
            instance[rows] += taken[label]
            taken[label] = int(instance[rows].max())
        yield replace(table, instance=instance)


def judge(
    table: MaskTable, rule: Masks, height: int, width: int
) -> tuple[npt.NDArray[np.bool_], list[Refusal]]:
    """Which masks keep the rule's bounds, and why the others do not.

    Returns bool (len(table),) and one refusal per mask that is not kept, in table order. A mask is kept
    when its area and its object's voxels are at or above their bounds; one that breaks both is refused by
    AREA. ``height``, ``width``: sides of the image that the area bound is meant for, in pixels.
    """
    min_area_px = rule.min_area.pixels_in(height, width)
    is_small = table.area_px < min_area_px
    is_slight = table.object_voxels < rule.min_voxels
    refusals = [
        Refusal(row, Reason.AREA, {"measure": int(table.area_px[row]), "bound": min_area_px})
        if is_small[row]
        else Refusal(row, Reason.VOLUME, {"measure": int(table.object_voxels[row]), "bound": rule.min_voxels})
        for row in np.flatnonzero(is_small | is_slight).tolist()
    ]
    return ~(is_small | is_slight), refusals


def _numbered(
    chunks: Iterator[Runs], grid: Grid, components: str, *, full: bool
) -> Iterator[tuple[Runs, Int64s]]:
    """Each chunk with the mask number of its runs inside their plane and label."""
    if components == "3d":
        return numbered_3d(chunks, grid, full=full)
    if components == "2d":
        return ((runs, numbered_2d(runs, grid, full=full)) for runs in chunks)
    return ((runs, np.zeros(len(runs), np.int64)) for runs in chunks)


def _measured(runs: Runs, number: Int64s, grid: Grid) -> tuple[dict[str, Int64s], list[bytes]]:
    """Columns and RLE of the masks of a chunk: runs of equal (plane, label, number), sorted by these."""
    order = np.lexsort((number, runs.label, runs.plane))  # stable: runs of a mask stay in RLE order
    runs, number = runs.take(order), number[order]
    is_first = begins([runs.plane, runs.label, number])
    first = np.flatnonzero(is_first)
    last = np.append(first[1:], len(runs)) - 1
    columns = {
        "plane": runs.plane[first],
        "key": runs.label[first],
        "instance": number[first],
        "area_px": np.add.reduceat(runs.bottom - runs.top, first, dtype=np.int64),
        "x0": runs.column[first],
        "x1": runs.column[last] + 1,
        "y0": np.minimum.reduceat(runs.top, first),
        "y1": np.maximum.reduceat(runs.bottom, first),
    }
    return {k: v.astype(np.int64) for k, v in columns.items()}, _encoded(runs, is_first, grid)


def _encoded(runs: Runs, is_first: npt.NDArray[np.bool_], grid: Grid) -> list[bytes]:
    """RLE of masks given as sorted runs; ``is_first`` marks the first run of each mask."""
    foot = runs.column.astype(np.int64) * grid.height
    start, stop = foot + runs.top, foot + runs.bottom
    goes_on = np.zeros(len(runs) + 1, np.bool_)  # from the foot of a column to the head of the next
    goes_on[1:-1] = (start[1:] == stop[:-1]) & ~is_first[1:]
    pixels = grid.height * grid.width
    is_change = np.stack([~goes_on[:-1], ~goes_on[1:] & (stop != pixels)], axis=1)
    sizes = np.add.reduceat(is_change.sum(axis=1), np.flatnonzero(is_first))
    return rle.from_changes(np.stack([start, stop], axis=1)[is_change], sizes, pixels)


def _touches_border(columns: Mapping[str, Int64s], grid: Grid) -> npt.NDArray[np.bool_]:
    at_start = (columns["x0"] == 0) | (columns["y0"] == 0)
    at_end = (columns["x1"] == grid.width) | (columns["y1"] == grid.height)
    touches: npt.NDArray[np.bool_] = at_start | at_end
    return touches


def _totals(owner: Sequence[Int64s], area_px: Int64s) -> Int64s:
    """Summed area of all masks of the same owner (equal values of all keys), for each mask."""
    order = np.lexsort(owner)
    group = np.empty(len(order), np.int64)
    group[order] = np.cumsum(begins([key[order] for key in owner])) - 1
    total = np.zeros(len(order), np.int64)
    np.add.at(total, group, area_px)
    return total[group]
