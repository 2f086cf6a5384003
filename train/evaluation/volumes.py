"""Slices put back together: scores of a label in a whole volume, as MedSAM reports them.

A volume is a source's case, channel and axis; all masks of one label in it count together, since instances of slices
are numbered slice by slice. What a dataset left out (masks below a recipe's bounds, slices without a mask) is
background on both sides.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from medcurate.format import rle
from medcurate.format.tables import table
from medcurate.train.evaluation.collected import Collected
from medcurate.train.evaluation.columns import VOLUME_FACTS, VOLUMES
from medcurate.train.evaluation.metrics import dice_and_iou, surface_dice
from medcurate.train.evaluation.scoring import Bools

_UNIT = ("source", "case", "channel", "axis", "label")


@dataclass(frozen=True, slots=True)
class Unit:
    """One label in one volume: its rows in ``mask_facts`` and the slice of each.

    ``spacing_mm``: (slice, row, column); None where one of them is unknown.
    """

    rows: npt.NDArray[np.int64]
    slices: npt.NDArray[np.int64]
    height: int
    width: int
    spacing_mm: tuple[float, float, float] | None


def units(facts: pa.Table, slice_spacing_mm: npt.NDArray[np.float64]) -> list[Unit]:
    """All units of the selection; pictures are none. ``slice_spacing_mm`` (N,): NaN where unknown."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for row, unit in enumerate(zip(*(facts[name].to_pylist() for name in _UNIT), strict=True)):
        if unit[_UNIT.index("axis")]:
            groups.setdefault(unit, []).append(row)
    columns = {
        name: facts[name].to_numpy()
        for name in ("slice_index", "height", "width", "row_spacing_mm", "col_spacing_mm")
    } | {"slice_spacing_mm": slice_spacing_mm}
    return [_unit(np.array(rows), columns) for rows in groups.values()]


def volume_tables(
    collected: Collected,
    truth: pa.ChunkedArray,
    facts: pa.Table,
    found: list[Unit],
    more: Mapping[str, pa.Array],
    tolerance_mm: float,
) -> Iterator[pa.Table]:
    """Rows of ``VOLUMES``, one a unit and prompt. ``truth``: run lengths of all rows; ``more``: as for scores."""
    for unit in found:
        whole = _stack(truth, unit)
        rows = [
            _scores(unit, whole, _stack(collected.counts(prompt), unit), tolerance_mm)
            | {"model": collected.model, "prompt": prompt}
            for prompt in collected.prompts
        ]
        first = int(unit.rows[0])
        shared = {name: facts[name][first].as_py() for name in VOLUME_FACTS}
        shared["leaked"] = more["leaked"][first].as_py()
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        yield table(VOLUMES, columns | {name: [value] * len(rows) for name, value in shared.items()})


def _scores(unit: Unit, truth: Bools, predicted: Bools, tolerance_mm: float) -> dict[str, object]:
    dice, iou = dice_and_iou(truth, predicted)
    known = unit.spacing_mm
    return {
        "slices": len(np.unique(unit.slices)),
        "masks": len(unit.rows),
        "dice": dice,
        "iou": iou,
        "nsd": surface_dice(truth, predicted, known, tolerance_mm) if known else None,
    }


def _unit(rows: npt.NDArray[np.int64], columns: Mapping[str, npt.NDArray[np.float64]]) -> Unit:
    first = rows[0]
    steps = [float(columns[f"{name}_spacing_mm"][first]) for name in ("slice", "row", "col")]
    known = bool(np.isfinite(steps).all())
    return Unit(
        rows,
        columns["slice_index"][rows].astype(np.int64),
        int(columns["height"][first]),
        int(columns["width"][first]),
        (steps[0], steps[1], steps[2]) if known else None,
    )


def _stack(counts: pa.ChunkedArray, unit: Unit) -> Bools:
    """bool (slices, H, W) from the first to the last slice with a mask; masks of one slice are joined."""
    first = int(unit.slices.min())
    stack = np.zeros((int(unit.slices.max()) - first + 1, unit.height, unit.width), np.bool_)
    texts = counts.take(pa.array(unit.rows)).to_pylist()
    for text, index in zip(texts, unit.slices.tolist(), strict=True):
        stack[index - first] |= rle.decode(text, unit.height, unit.width)
    return stack
