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
from medcurate.stages.runs import CHUNK_VOXELS, Grid, Int32s, Int64s, Runs, begins, find_runs
from medcurate.stages.texts import Names, Texts
from medcurate.types import Array

Bools = npt.NDArray[np.bool_]
Uint16s = npt.NDArray[np.uint16]

# Noise has a mask every few voxels, so that a byte more here is a large share of its volume.
_MEASURED = {
    "plane": np.int32,
    "key": np.int32,  # as ``Runs.label``
    "instance": np.int32,
    "area_px": np.uint32,
    **dict.fromkeys(("x0", "y0", "x1", "y1"), np.uint16),
    "text_size": np.int32,
    "text": np.uint8,  # of all masks, one after another
}
_MEASURED_INSTANCES = _MEASURED | {"key": np.int64}  # a stored value
MOST_PIXELS_A_SIDE = 65_535


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskTable:
    """Every mask of the planes of one label layer, columnar; sorted by (plane, order of terms, instance).

    ``plane``: index of the plane; ``label``: id of the ontology label; ``value``: the stored value;
    ``instance``: number of the component (2D: from 1 inside each plane and label, by the row, then column,
    of its first pixel; 3D: from 1 inside each label, by the plane, row, column of the object's first
    voxel), the value itself where values are instances (sorted by it), 0 for a whole label. ``area_px``:
    pixels. Box [x0, x1) x [y0, y1) in pixels, x along columns, y along rows. ``rle``: COCO compressed RLE,
    empty for a mask below the rule's bound of area, which is never kept.
    ``object_voxels``: voxels, in all planes, of the 3D component ("3d"), of the instance (instances) or of
    the value; ``whole_labels`` makes that the label, which several values may share.
    """

    plane: Int32s
    label: Names
    value: Int64s
    instance: Int32s | Int64s
    area_px: npt.NDArray[np.uint32]
    x0: Uint16s
    y0: Uint16s
    x1: Uint16s
    y1: Uint16s
    touches_border: Bools
    object_voxels: Int64s
    rle: Texts

    def __len__(self) -> int:
        return len(self.plane)

    @property
    def annotated_planes(self) -> Int32s:
        """Indices of the planes that hold any label, increasing."""
        return np.unique(self.plane)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Which masks of a table miss which bound. Area is asked first: a mask that misses both is refused by AREA.

    ``is_small``, ``is_slight`` bool (n,): below ``min_area_px``, and belonging to an object below ``min_voxels``.
    """

    is_small: Bools
    is_slight: Bools
    min_area_px: float
    min_voxels: int

    @property
    def kept(self) -> Bools:
        """Which masks miss no bound, bool (n,)."""
        return ~(self.is_small | self.is_slight)

    def reasons(self, table: MaskTable, rows: Array) -> tuple[Names, Int64s, Array]:
        """Why ``rows`` of the judged ``table``, none of them kept, are not: (reason, measure, bound) of each."""
        is_small = self.is_small[rows]
        reason = Names((~is_small).astype(np.int32), (Reason.AREA, Reason.VOLUME))
        measure = np.where(is_small, table.area_px[rows], table.object_voxels[rows])
        return reason, measure, np.where(is_small, self.min_area_px, self.min_voxels)


def find_masks(
    planes: Array,
    terms: Mapping[int, str],
    *,
    instances: bool,
    rule: Masks,
    chunk_voxels: int = CHUNK_VOXELS,
) -> MaskTable:
    """Every mask of a label layer, measured; those that may be kept are encoded. Nothing is refused here.

    ``planes``: (n, height, width) of any integer dtype or bool, any strides and byte order, as a view: it
    is never copied, and temporaries are bounded by ``chunk_voxels`` and the number of runs. Raises ValueError
    for sides over 65,535.
    ``terms``: the values that count and their ontology labels; with ``instances`` every value above 0 is
    one instance of the label under key 0, whole, whatever ``rule.components`` says.
    """
    grid = Grid(*planes.shape[1:])
    if max(grid.height, grid.width) > MOST_PIXELS_A_SIDE:
        raise ValueError(
            f"planes of {grid.height} x {grid.width}; a side has at most {MOST_PIXELS_A_SIDE} pixels"
        )
    chunks = find_runs(planes, terms, instances=instances, chunk_voxels=chunk_voxels)
    components = "none" if instances else rule.components
    numbered = _numbered(chunks, grid, components, full=rule.connectivity == "full")
    min_area_px = rule.min_area.pixels_in(grid.height, grid.width)
    measured = (_measured(runs, number, grid, min_area_px) for runs, number in numbered if len(runs))
    columns = _gathered(measured, _MEASURED_INSTANCES if instances else _MEASURED)
    key = columns.pop("key")
    if components == "3d" or instances:
        owner = [key, columns["instance"]] if components == "3d" else [key]
        object_voxels = _totals(owner, columns["area_px"])
    else:
        object_voxels = _totals_by_code(key, columns["area_px"], len(terms))
    texts = Texts(columns.pop("text"), np.cumsum(columns.pop("text_size")))
    return MaskTable(
        **columns | ({"instance": key} if instances else {}),
        label=Names.of(list(terms.values()), np.zeros(len(key), np.int32) if instances else key),
        value=key if instances else np.array(list(terms), np.int64)[key],
        touches_border=_touches_border(columns, grid),
        object_voxels=object_voxels,
        rle=texts,
    )


def joined(tables: Iterable[MaskTable]) -> MaskTable:
    """Tables of several layers as one, sorted by plane; inside a plane in the order of the layers.

    Objects stay those of the layers; for labels in several of them see ``whole_labels`` and ``told_apart``.
    """
    parts = list(tables) or [_no_masks()]
    if len(parts) == 1:
        return parts[0]
    columns: dict[str, Any] = {}
    for entry in fields(MaskTable):
        columns[entry.name] = _concatenated([getattr(part, entry.name) for part in parts])
    order = np.argsort(columns["plane"], kind="stable")
    for name, values in columns.items():
        columns[name] = values.take(order)
    return MaskTable(**columns)


def renumbered(table: MaskTable) -> MaskTable:
    """2D components numbered from 1 in every plane and label, also where layers or values share a label."""
    place = table.plane.astype(np.int64) * len(table.label.names) + table.label.code
    order = np.argsort(place, kind="stable")
    index = np.arange(len(table))
    start = np.maximum.accumulate(np.where(begins([place[order]]), index, 0))
    numbers = np.empty(len(table), np.int32)
    numbers[order] = index - start + 1
    return replace(table, instance=numbers)


def whole_labels(table: MaskTable) -> MaskTable:
    """``object_voxels`` of labels, in all values and layers that hold them; where masks overlap, each counts."""
    voxels = _totals_by_code(table.label.code, table.area_px, len(table.label.names))
    return replace(table, object_voxels=voxels)


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


def judge(table: MaskTable, rule: Masks, height: int, width: int) -> Verdict:
    """Which masks keep the rule's bounds: area and the object's voxels at or above them.

    ``height``, ``width``: sides of the image that the area bound is meant for, in pixels.
    """
    min_area_px = rule.min_area.pixels_in(height, width)
    return Verdict(
        is_small=table.area_px < min_area_px,
        is_slight=table.object_voxels < rule.min_voxels,
        min_area_px=min_area_px,
        min_voxels=rule.min_voxels,
    )


def _numbered(
    chunks: Iterator[Runs], grid: Grid, components: str, *, full: bool
) -> Iterator[tuple[Runs, Int64s]]:
    """Each chunk with the mask number of its runs inside their plane and label."""
    if components == "3d":
        return numbered_3d(chunks, grid, full=full)
    if components == "2d":
        return ((runs, numbered_2d(runs, grid, full=full)) for runs in chunks)
    return ((runs, np.zeros(len(runs), np.int64)) for runs in chunks)


def _gathered(parts: Iterable[dict[str, Array]], dtypes: Mapping[str, Any]) -> dict[str, Array]:
    """The columns of all parts, which grow in place: there is never a second copy of them."""
    grown = {name: bytearray() for name in dtypes}
    for part in parts:
        for name, dtype in dtypes.items():
            grown[name] += part[name].astype(dtype).data
    return {name: np.frombuffer(grown[name], dtype) for name, dtype in dtypes.items()}


def _measured(runs: Runs, number: Int64s, grid: Grid, min_area_px: float) -> dict[str, Array]:
    """Columns of the masks of a chunk: runs of equal (plane, label, number), sorted by these."""
    order = np.lexsort((number, runs.label, runs.plane))  # stable: runs of a mask stay in RLE order
    runs, number = runs.take(order), number[order]
    is_first = begins([runs.plane, runs.label, number])
    first = np.flatnonzero(is_first)
    last = np.append(first[1:], len(runs)) - 1
    area_px = np.add.reduceat(runs.bottom - runs.top, first, dtype=np.int64)
    is_wanted = area_px >= min_area_px
    wanted = np.repeat(is_wanted, last - first + 1)
    texts = _encoded(runs.take(wanted), is_first[wanted], grid) if is_wanted.any() else []
    text_size = np.zeros(len(first), np.int64)
    text_size[is_wanted] = [len(text) for text in texts]
    return {
        "plane": runs.plane[first],
        "key": runs.label[first],
        "instance": number[first],
        "area_px": area_px,
        "x0": runs.column[first],
        "x1": runs.column[last] + 1,
        "y0": np.minimum.reduceat(runs.top, first),
        "y1": np.maximum.reduceat(runs.bottom, first),
        "text_size": text_size,
        "text": np.frombuffer(b"".join(texts), np.uint8),
    }


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


def _touches_border(columns: Mapping[str, Array], grid: Grid) -> npt.NDArray[np.bool_]:
    at_start = (columns["x0"] == 0) | (columns["y0"] == 0)
    at_end = (columns["x1"] == grid.width) | (columns["y1"] == grid.height)
    touches: npt.NDArray[np.bool_] = at_start | at_end
    return touches


def _totals(owner: Sequence[Array], area_px: npt.NDArray[np.uint32]) -> Int64s:
    """Summed area of all masks of the same owner (equal values of all keys), for each mask."""
    order = np.lexsort(owner)
    group = np.empty(len(order), np.int64)
    group[order] = np.cumsum(begins([key[order] for key in owner])) - 1
    total = np.zeros(len(order), np.int64)
    np.add.at(total, group, area_px)
    return total[group]


def _totals_by_code(code: Array, area_px: npt.NDArray[np.uint32], number: int) -> Int64s:
    """``_totals`` of owners that are numbered from 0 and few."""
    total = np.zeros(number, np.int64)
    np.add.at(total, code, area_px)
    return total[code]


def _concatenated(values: list[Any]) -> Any:
    if isinstance(values[0], (Names, Texts)):
        return type(values[0]).joined(values)
    return np.concatenate(values)


def _no_masks() -> MaskTable:
    return find_masks(np.empty((0, 1, 1), np.uint8), {}, instances=False, rule=Masks())
