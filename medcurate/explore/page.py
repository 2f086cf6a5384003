"""The statistics of a dataset as one self-contained HTML page, or as one PNG.

The page asks for nothing from anywhere (its content policy forbids it), follows the reader's light or dark
setting, and holds every number of its charts as a table too.
"""

from __future__ import annotations

import io
from html import escape

from PIL import Image, ImageDraw

from medcurate.explore.charts import WIDTH_PX, Chart, draw
from medcurate.explore.marks import PNG_COLOURS, Drawing, font, paint, svg
from medcurate.explore.stats import Answer, Statistics, readable

_STYLE = """
:root { color-scheme: light dark; --page: #f4f6f8; --card: #ffffff; --ink: #1f2933; --muted: #5b6773;
  --grid: #e1e6eb; }
@media (prefers-color-scheme: dark) { :root { --page: #12161b; --card: #1b2128; --ink: #e8ecf0;
  --muted: #a3aeb9; --grid: #313a44; } }
* { box-sizing: border-box; }
body { margin: 0; padding: 32px 24px 48px; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
header, main, footer { max-width: 1240px; margin: 0 auto; }
h1 { font-size: 26px; line-height: 1.2; margin: 0 0 20px; font-weight: 650; overflow-wrap: anywhere; }
h2 { font-size: 17px; margin: 0 0 14px; font-weight: 600; }
dl { display: flex; flex-wrap: wrap; gap: 10px 36px; margin: 0 0 28px; }
dl div { display: flex; flex-direction: column-reverse; }
dt { color: var(--muted); font-size: 13px; }
dd { margin: 0; font-size: 24px; font-weight: 600; line-height: 1.25; font-variant-numeric: tabular-nums; }
main { columns: 2 460px; column-gap: 20px; }
section { background: var(--card); border: 1px solid var(--grid); border-radius: 10px; padding: 20px 22px;
  margin: 0 0 20px; break-inside: avoid; }
svg { display: block; width: 100%; height: auto; }
svg text { font-family: inherit; dominant-baseline: central; font-variant-numeric: tabular-nums; }
text.ink { fill: var(--ink); } text.muted { fill: var(--muted); } line.grid { stroke: var(--grid); }
details { margin-top: 14px; } summary { cursor: pointer; color: var(--muted); font-size: 13px; }
.table { max-height: 420px; overflow: auto; margin-top: 8px; }
table { border-collapse: collapse; width: 100%; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 4px 10px 4px 0; border-bottom: 1px solid var(--grid);
  white-space: nowrap; }
th { position: sticky; top: 0; background: var(--card); font-weight: 600; }
.number { text-align: right; }
footer, .note { color: var(--muted); font-size: 13px; }
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_SCALE = 2  # device pixels a CSS pixel of the PNG
_PAD_PX, _GAP_PX, _TITLE_PX = 36, 44, 30


def html(statistics: Statistics) -> str:
    """The whole page. Every text of the dataset is escaped."""
    name = escape(statistics.dataset)
    sections = "".join(_section(answer) for answer in statistics.answers)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{name} - dataset statistics</title><style>{_STYLE}</style></head>\n"
        f"<body><header><h1>{name}</h1><dl>{_figures(statistics)}</dl></header>\n<main>{sections}</main>\n"
        f"<footer>{_note(statistics)}</footer></body></html>\n"
    )


def png(statistics: Statistics) -> bytes:
    """The charts in two columns on a light ground, as PNG bytes at two device pixels a CSS pixel."""
    drawings = [draw(_chart(answer)) for answer in statistics.answers if _drawable(answer)]
    places, bottom = _arranged(drawings)
    width = 2 * (_PAD_PX + WIDTH_PX) + _GAP_PX
    image = Image.new("RGB", (round(width * _SCALE), round((bottom + _PAD_PX) * _SCALE)), "#ffffff")
    canvas = ImageDraw.Draw(image)
    _write(canvas, _PAD_PX, 44, statistics.dataset, 26)
    totals = "     ".join(f"{count:,} {name}" for name, count in statistics.totals.items())
    _write(canvas, _PAD_PX, 76, totals, 15, "muted")
    for drawing, (left, top) in zip(drawings, places, strict=True):
        _write(canvas, left, top + 8, drawing.title, 17)
        paint(canvas, drawing, left, top + _TITLE_PX, _SCALE)
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return stream.getvalue()


def _arranged(drawings: list[Drawing]) -> tuple[list[tuple[float, float]], float]:
    """(left, top) of each chart, always under the shorter column, and the bottom of the longer one."""
    bottoms = [104.0, 104.0]
    places: list[tuple[float, float]] = []
    for drawing in drawings:
        column = 0 if bottoms[0] <= bottoms[1] else 1
        places.append((_PAD_PX + column * (WIDTH_PX + _GAP_PX), bottoms[column]))
        bottoms[column] += _TITLE_PX + drawing.height + _GAP_PX
    return places, max(bottoms) - _GAP_PX if drawings else bottoms[0]


def _write(
    canvas: ImageDraw.ImageDraw, x: float, y: float, text: str, size: float, role: str = "ink"
) -> None:
    fill = PNG_COLOURS["muted" if role == "muted" else "ink"]
    bold = 0 if role == "muted" else 0.02 * size * _SCALE
    canvas.text(
        (x * _SCALE, y * _SCALE), text, fill=fill, font=font(size * _SCALE), anchor="lm", stroke_width=bold
    )


def _drawable(answer: Answer) -> bool:
    return answer.query.chart != "none" and bool(answer.rows)


def _chart(answer: Answer) -> Chart:
    query = answer.query
    return Chart(
        kind=query.chart, title=query.title, x=query.x, y=query.y, colour=query.colour, rows=answer.rows
    )


def _figures(statistics: Statistics) -> str:
    return "".join(
        f"<div><dt>{escape(name)}</dt><dd>{count:,}</dd></div>" for name, count in statistics.totals.items()
    )


def _section(answer: Answer) -> str:
    title = f"<h2>{escape(answer.query.title)}</h2>"
    if not answer.rows:
        return f'<section>{title}<p class="note">None.</p></section>'
    chart = svg(draw(_chart(answer)), f"chart-{answer.query.name}") if _drawable(answer) else ""
    count = f"{len(answer.rows):,} row{'' if len(answer.rows) == 1 else 's'}"
    opened = "" if chart else " open"
    table = f'<summary>Table, {count}</summary><div class="table" tabindex="0">{_table(answer)}</div>'
    return f"<section>{title}{chart}<details{opened}>{table}</details></section>"


def _table(answer: Answer) -> str:
    numeric = {name for name in answer.columns if isinstance(answer.rows[0][name], int | float)}
    style = {name: ' class="number"' if name in numeric else "" for name in answer.columns}
    head = "".join(
        f'<th scope="col"{style[name]}>{escape(name.replace("_", " "))}</th>' for name in answer.columns
    )
    body = "".join(
        "<tr>"
        + "".join(f"<td{style[name]}>{escape(readable(row[name]))}</td>" for name in answer.columns)
        + "</tr>"
        for row in answer.rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _note(statistics: Statistics) -> str:
    if not statistics.left_out:
        return ""
    names = ", ".join(query.name for query in statistics.left_out)
    return escape(f"Left out at this size, because they count distinct values; run them by name: {names}.")
