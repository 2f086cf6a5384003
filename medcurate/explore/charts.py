"""Small bar charts laid out as marks: horizontal bars, stacked bars and histograms on a logarithmic scale."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medcurate.explore.marks import SMALL_PX, Drawing, Line, Rect, Role, Text, compact, shortened, text_width

WIDTH_PX = 560
MAX_BARS = 25
_ROW_PX, _BAR_PX = 22, 14
_LABEL_PX = 190  # the widest label column
_PLOT_PX = 220  # height of a histogram's columns
_EDGE_PX = 24  # beside a histogram, for half of its outer labels

PALETTE = (
    "#4c78a8", "#e8833a", "#54a24b", "#b07aa1", "#e45756", "#72b7b2",
    "#d6a51f", "#9d755d", "#ee8fa5", "#79848f", "#6a5acd",
)  # fmt: skip
_OTHER = "#9aa3ad"
_MODALITIES = (
    "ct", "mr", "ultrasound", "xray", "endoscopy", "fundus",
    "pet", "dermoscopy", "histopathology", "microscopy", "oct",
)  # fmt: skip
FIXED_COLOURS: Mapping[str, Mapping[str, str]] = {
    "modality": dict(zip(_MODALITIES, PALETTE, strict=True)),
    "split": {"train": "#4c78a8", "val": "#d6a51f", "test": "#54a24b"},
    "commercial": {"yes": "#54a24b", "no": "#e45756", "unknown": _OTHER},
    "kind": {"structure": "#4c78a8", "lesion": "#e45756"},
    "stage": {
        "pair": "#79848f", "read": "#e45756", "label": "#b07aa1", "slice": "#d6a51f", "mask": "#4c78a8",
        "pack": "#72b7b2",
    },
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """What to draw: rows and the columns that give category or bin (``x``), length (``y``) and colour."""

    kind: str  # bar, stacked-bar or histogram
    title: str
    x: str
    y: str
    colour: str
    rows: Sequence[Mapping[str, Any]]


def draw(chart: Chart) -> Drawing:
    """Lay out ``chart``. Raises ValueError for an unknown kind."""
    if chart.kind == "histogram":
        return _histogram(chart)
    if chart.kind in {"bar", "stacked-bar"}:
        return _bars(chart)
    raise ValueError(f"unknown chart kind {chart.kind}")


def colours(column: str, values: Sequence[str]) -> dict[str, str]:
    """Colour of each value: fixed for the terms of the ontology, else by sorted order."""
    fixed = FIXED_COLOURS.get(column, {})
    free = [colour for colour in PALETTE if colour not in {fixed.get(value) for value in values}] or [_OTHER]
    others = sorted(set(values) - set(fixed))
    assigned = {value: free[number % len(free)] for number, value in enumerate(others)}
    return {value: fixed.get(value) or assigned[value] for value in sorted(set(values))}


def _bars(chart: Chart) -> Drawing:
    """Horizontal bars, the longest first, one line a category."""
    series = _series(chart)
    palette = colours(chart.colour, series)
    bars = _bar_lines(chart, series)
    drawing = Drawing(chart.title, WIDTH_PX)
    coloured = chart.colour != chart.x
    top = _legend(drawing, chart.colour, palette, series) if coloured else 0.0
    label_px = min(max(text_width(label) for label, _, _ in bars), _LABEL_PX)
    left = label_px + 10
    right = max(text_width(f"{total:,.0f}", SMALL_PX) for _, total, _ in bars) + 8
    longest = max(total for _, total, parts in bars if parts)
    scale = (drawing.width - left - right) / (longest or 1)
    for number, (label, total, parts) in enumerate(bars):
        middle = top + (number + 0.5) * _ROW_PX
        role: Role = "ink" if parts else "muted"
        drawing.marks.append(Text(label_px, middle, shortened(label, label_px), anchor="end", role=role))
        end = left
        for value, count in parts:
            tip = f"{label}: {count:,.0f} {chart.y}" + (f" ({value})" if coloured else "")
            width = max(count * scale, 0.5)
            drawing.marks.append(Rect(end, middle - _BAR_PX / 2, width, _BAR_PX, palette[value], tip))
            end += width
        drawing.marks.append(Text(end + 6, middle, f"{total:,.0f}", SMALL_PX, role="muted"))
    drawing.height = top + len(bars) * _ROW_PX
    return drawing


def _bar_lines(chart: Chart, series: Sequence[str]) -> list[tuple[str, float, list[tuple[str, float]]]]:
    """(label, total, parts) of each line; what does not fit is added up in a last line without a bar."""
    rows = _totals(chart, chart.x)
    shown = rows if len(rows) <= MAX_BARS else rows[: MAX_BARS - 1]
    lines = [(str(value) or "(none)", total, _parts(chart, found, series)) for value, total, found in shown]
    tail = rows[len(shown) :]
    return [*lines, (f"{len(tail)} others", sum(total for _, total, _ in tail), [])] if tail else lines


def _histogram(chart: Chart) -> Drawing:
    """Stacked columns over logarithmic bins; ``x`` holds each bin's lower edge in percent."""
    series = _series(chart)
    palette = colours(chart.colour, series)
    drawing = Drawing(chart.title, WIDTH_PX)
    top = (_legend(drawing, chart.colour, palette, series) if len(series) > 1 else 0.0) + 8
    bins = {edge: total for edge, total, _ in _totals(chart, chart.x)}
    edges = sorted(bins)
    first, last = (_half_decade(edges[0]), _half_decade(edges[-1])) if edges else (-2, 3)
    ceiling, ticks = nice_ticks(max(bins.values(), default=1))
    left = max([_EDGE_PX, *(text_width(compact(tick), SMALL_PX) + 8 for tick in ticks)])
    step = (drawing.width - left - _EDGE_PX) / (last - first + 1)
    bottom = top + _PLOT_PX
    for tick in ticks:
        y = bottom - tick / ceiling * _PLOT_PX
        drawing.marks.append(Line(left, y, drawing.width - _EDGE_PX, y))
        drawing.marks.append(Text(left - 8, y, compact(tick), SMALL_PX, "end", "muted"))
    for edge in edges:
        x, y = left + (_half_decade(edge) - first) * step, bottom
        members = [row for row in chart.rows if row[chart.x] == edge]
        for value, count in _parts(chart, members, series):
            height = count / ceiling * _PLOT_PX
            y -= height
            tip = f"{edge:.3g}% to {edge * math.sqrt(10):.3g}%: {count:,.0f} {chart.y} ({value})"
            drawing.marks.append(Rect(x + 1, y, step - 2, height, palette[value], tip))
    for half in range(first, last + 2):
        if half % 2 == 0:
            x = left + (half - first) * step
            drawing.marks.append(Text(x, bottom + 14, f"{10 ** (half // 2):g}%", SMALL_PX, "middle", "muted"))
    drawing.height = bottom + 26
    return drawing


def nice_ticks(largest: float) -> tuple[float, list[float]]:
    """A ceiling of at least ``largest`` and three to six round ticks from 0 to it."""
    raw = max(largest, 1) / 4
    power = 10 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw)
    step = max(step, 1)
    count = math.ceil(largest / step) or 1
    return count * step, [number * step for number in range(count + 1)]


def _half_decade(percent: float) -> int:
    return round(math.log10(percent) * 2)


def _series(chart: Chart) -> list[str]:
    """Values of the colour column: known terms in their fixed order, others by total."""
    found = [str(value) for value, _, _ in _totals(chart, chart.colour)]
    known = list(FIXED_COLOURS.get(chart.colour, ()))
    return sorted(found, key=lambda value: known.index(value) if value in known else len(known))


def _totals(chart: Chart, column: str) -> list[tuple[Any, float, list[Mapping[str, Any]]]]:
    """(value, summed y, rows) of each value of ``column``, the largest first, ties by value."""
    found: dict[Any, list[Mapping[str, Any]]] = {}
    for row in chart.rows:
        found.setdefault(row[column], []).append(row)
    summed = [(value, sum(_length(chart, row) for row in rows), rows) for value, rows in found.items()]
    return sorted(summed, key=lambda entry: (-entry[1], str(entry[0])))


def _parts(chart: Chart, rows: Sequence[Mapping[str, Any]], series: Sequence[str]) -> list[tuple[str, float]]:
    """(colour value, summed y) in the order of ``series``."""
    summed: dict[str, float] = {}
    for row in rows:
        summed[str(row[chart.colour])] = summed.get(str(row[chart.colour]), 0) + _length(chart, row)
    return [(value, summed[value]) for value in series if value in summed]


def _length(chart: Chart, row: Mapping[str, Any]) -> float:
    """What the row adds; null, which is counted where a manifest of elsewhere lacks a column's values, is nothing."""
    return row[chart.y] or 0


def _legend(drawing: Drawing, title: str, palette: Mapping[str, str], series: Sequence[str]) -> float:
    """The colours' meaning in lines at the top; returns the height used."""
    drawing.marks.append(Text(0, 10, title, SMALL_PX, role="muted"))
    x = indent = text_width(title, SMALL_PX) + 14
    y = 0.0
    for value in series:
        name = value or "(none)"
        width = 16 + text_width(name, SMALL_PX) + 14
        if x > indent and x + width > drawing.width:
            x, y = indent, y + 20
        drawing.marks.append(Rect(x, y + 4, 11, 11, palette[value]))
        drawing.marks.append(Text(x + 16, y + 10, name, SMALL_PX))
        x += width
    return y + 30
