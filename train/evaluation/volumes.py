"""Slices put back together: scores of a label in a whole volume, as MedSAM reports them.

A volume is a source's case, channel and axis; all masks of one label in it count together, since instances of slices
are numbered slice by slice. What a dataset left out (masks below a recipe's bounds, slices without a mask) is
background on both sides.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from medcurate.condition import literal
from medcurate.errors import ConfigError
from medcurate.format import rle
from medcurate.format.tables import table
from medcurate.train.evaluation.collected import Collected
from medcurate.train.evaluation.columns import VOLUME_FACTS, VOLUMES
from medcurate.train.evaluation.metrics import dice_and_iou, surface_dice
from medcurate.train.evaluation.scoring import Bools

Texts = list[bytes]
"""COCO run lengths of the masks of a unit."""

_VOLUME = ("source", "case", "channel", "axis")
_UNIT = (*_VOLUME, "label")
_BUNDLE = 8  # units
_MEASURED = pa.schema([
    ("slices", pa.uint32()),
    ("masks", pa.uint32()),
    ("dice", pa.float64()),
    ("iou", pa.float64()),
    ("nsd", pa.float64()),
])


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


def check_sizes(facts: pa.Table, manifest: str) -> None:
    """Raise ConfigError where slices of one volume differ in size. ``manifest``: of ``facts``, for messages."""
    sizes: dict[tuple[str, ...], list[str]] = {}
    volumes = facts.filter(pc.not_equal(facts["axis"], ""))
    kinds = volumes.group_by([*_VOLUME, "height", "width"]).aggregate([])
    for *volume, height, width in zip(*(kinds[name].to_pylist() for name in kinds.column_names), strict=True):
        sizes.setdefault(tuple(volume), []).append(f"{height} x {width}")
    for (source, case, channel, axis), found in sorted(sizes.items()):
        if len(found) > 1:
            without = f'NOT (source = {literal(source)} AND "case" = {literal(case)})'
            raise ConfigError(
                f"{manifest}: slices of one volume have one size, but those of case {case} of source {source}"
                f"{f', channel {channel},' if channel else ''} along {axis} are of {' and '.join(sorted(found))} "
                f"pixels (height x width). Build the dataset again, or leave the case out: "
                f"--where {shlex.quote(without)}"
            )


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


def bundles(found: Sequence[Unit]) -> list[Sequence[Unit]]:
    """``found`` cut into bundles that are scored together."""
    return [found[start : start + _BUNDLE] for start in range(0, len(found), _BUNDLE)]


@dataclass(frozen=True, slots=True)
class Bundle:
    """Units with what their scores are taken of: run lengths of all masks, by unit, and by prompt and unit."""

    number: int
    units: Sequence[Unit]
    truth: list[Texts]
    predicted: list[list[Texts]]


def bundle(number: int, of: Sequence[Unit], truth: pa.ChunkedArray, collected: Collected) -> Bundle:
    """Bundle ``number``. ``truth``: run lengths of all rows."""
    counts = [truth, *map(collected.counts, collected.prompts)]
    texts = [[column.take(pa.array(unit.rows)).to_pylist() for unit in of] for column in counts]
    return Bundle(number, of, texts[0], texts[1:])


def score_bundle(given: Bundle, tolerance_mm: float) -> pa.Table:
    """Slices, masks and scores: a row a unit and prompt."""
    rows = []
    for place, unit in enumerate(given.units):
        truth = _stack(given.truth[place], unit)
        for texts in given.predicted:
            rows.append(_scores(unit, truth, _stack(texts[place], unit), tolerance_mm))
    return pa.Table.from_pylist(rows, schema=_MEASURED)


def volume_tables(
    model: str,
    prompts: Sequence[str],
    found: Sequence[Unit],
    scored: Iterable[pa.Table],
    facts: pa.Table,
    more: Mapping[str, pa.Array],
) -> Iterator[pa.Table]:
    """Rows of ``VOLUMES``, one a unit and prompt. ``scored``: of all bundles in order; ``more``: as for scores."""
    for of, measured in zip(bundles(found), scored, strict=True):
        firsts = np.repeat([unit.rows[0] for unit in of], len(prompts))
        rows = pa.array(firsts)
        columns = {name: facts[name].take(rows) for name in VOLUME_FACTS}
        columns |= {"leaked": more["leaked"].take(rows)}
        columns |= {name: measured[name] for name in _MEASURED.names}
        columns |= {"model": [model] * len(firsts), "prompt": [*prompts] * len(of)}
        yield table(VOLUMES, {name: _plain(values) for name, values in columns.items()})


def _plain(values: Any) -> Any:
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


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


def _stack(texts: Texts, unit: Unit) -> Bools:
    """bool (slices, H, W) from the first to the last slice with a mask; masks of one slice are joined."""
    first = int(unit.slices.min())
    stack = np.zeros((int(unit.slices.max()) - first + 1, unit.height, unit.width), np.bool_)
    for text, index in zip(texts, unit.slices.tolist(), strict=True):
        stack[index - first] |= rle.decode(text, unit.height, unit.width)
    return stack
