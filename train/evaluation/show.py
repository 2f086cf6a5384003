"""An evaluation's tables on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from medcurate.train.evaluation.tables import BY, Row, VolumeRow

_NONE = "-"
_Row = TypeVar("_Row", Row, VolumeRow)


def show(rows: Sequence[Row], volumes: Sequence[VolumeRow], console: Console) -> None:
    """All masks and all volumes; Dice by everything there is more than one value of."""
    console.print(_masks([row for row in rows if row.by == "all"]))
    for by in BY[1:]:
        _matrices(
            f"Dice % by {by}, per mask / per patient", "masks", [row for row in rows if row.by == by], console
        )
    if volumes:
        console.print(_volumes([row for row in volumes if row.by == "all"]))
    _matrices("3D Dice % by organ", "volumes", [row for row in volumes if row.by == "organ"], console)


def _matrices(title: str, counted: str, rows: Sequence[_Row], console: Console) -> None:
    """One table a model, where there is more than one value."""
    if len({row.value for row in rows}) > 1:
        for model in dict.fromkeys(row.model for row in rows):
            console.print(_matrix(f"{model}: {title}", counted, [row for row in rows if row.model == model]))


def _masks(rows: Sequence[Row]) -> Table:
    pixels = any(row.nsd_px is not None for row in rows)
    figures = ["Dice %", "per patient", "per label", "IoU %", "NSD %", *(["NSD px %"] if pixels else [])]
    table = _table(
        f"all masks: {rows[0].masks:,}, patients: {rows[0].patients:,}", ["prompt", "model"], figures
    )
    for row in _sorted(rows):
        means = [row.dice, row.dice_per_patient, row.dice_per_label, row.iou, row.nsd, row.nsd_px]
        table.add_row(row.prompt, row.model, *map(_percent, means[: len(figures)]))
    return table


def _volumes(rows: Sequence[VolumeRow]) -> Table:
    title = f"volumes (3D), labels: {rows[0].volumes:,}"
    table = _table(title, ["prompt", "model"], ["Dice %", "IoU %", "NSD %"])
    for row in _sorted(rows):
        table.add_row(row.prompt, row.model, *map(_percent, (row.dice, row.iou, row.nsd)))
    return table


def _matrix(title: str, counted: str, rows: Sequence[_Row]) -> Table:
    """A row a value, a column a prompt."""
    prompts: list[str] = list(dict.fromkeys(row.prompt for row in rows))
    table = _table(title, [""], [counted, *prompts])
    for value in dict.fromkeys(row.value for row in rows):
        here = {row.prompt: row for row in rows if row.value == value}
        first = here[prompts[0]]
        count = first.masks if isinstance(first, Row) else first.volumes
        table.add_row(value, f"{count:,}", *(_cell(here[prompt]) for prompt in prompts))
    return table


def _cell(row: Row | VolumeRow) -> str:
    if isinstance(row, Row):
        return f"{_percent(row.dice)} / {_percent(row.dice_per_patient)}"
    return _percent(row.dice)


def _table(title: str, names: Sequence[str], figures: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, min_width=len(title))
    for name in names:
        table.add_column(name, no_wrap=True)
    for name in figures:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _sorted(rows: Sequence[_Row]) -> list[_Row]:
    """By prompt in their order; models beside one another."""
    prompts = list(dict.fromkeys(row.prompt for row in rows))
    return sorted(rows, key=lambda row: prompts.index(row.prompt))


def _percent(value: float | None) -> str:
    return _NONE if value is None else f"{100 * value:.2f}"
