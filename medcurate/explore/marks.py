"""Marks of small drawings: rectangles, lines and text, written as SVG or painted with Pillow.

Lengths are CSS pixels; y grows downwards. Text is measured with Pillow's built-in font, and a margin is kept
for the reader's own fonts. Equal marks give equal bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from html import escape
from typing import Literal

from PIL import ImageDraw, ImageFont

Anchor = Literal["start", "middle", "end"]
Role = Literal["ink", "muted", "grid"]

TEXT_PX = 13
SMALL_PX = 12
_MARGIN = 1.2  # a reader's font may be wider than the one that measures


@dataclass(frozen=True, slots=True)
class Rect:
    """A filled rectangle; ``tip`` is its text for a pointer and for screen readers."""

    x: float
    y: float
    width: float
    height: float
    fill: str
    tip: str = ""


@dataclass(frozen=True, slots=True)
class Text:
    """One line of text; (x, y) is the middle of its height at its anchor."""

    x: float
    y: float
    text: str
    size: float = TEXT_PX
    anchor: Anchor = "start"
    role: Role = "ink"


@dataclass(frozen=True, slots=True)
class Line:
    """A straight hairline."""

    x1: float
    y1: float
    x2: float
    y2: float
    role: Role = "grid"


Mark = Rect | Text | Line


@dataclass(slots=True)
class Drawing:
    """A chart: its size and its marks, painted in order."""

    title: str
    width: float
    height: float = 0
    marks: list[Mark] = field(default_factory=list)


def text_width(text: str, size: float = TEXT_PX) -> float:
    """Width of ``text`` in pixels, with a margin for other fonts."""
    return font(size).getlength(text) * _MARGIN


@cache
def font(size: float) -> ImageFont.FreeTypeFont:
    """Pillow's built-in TrueType font, so that pictures need no system fonts."""
    found = ImageFont.load_default(size)
    if not isinstance(found, ImageFont.FreeTypeFont):
        raise TypeError("Pillow was built without FreeType; install a wheel of Pillow")
    return found


def shortened(text: str, width: float, size: float = TEXT_PX) -> str:
    """``text``, cut with an ellipsis where it is wider than ``width`` pixels."""
    if text_width(text, size) <= width:
        return text
    while text and text_width(text + "…", size) > width:
        text = text[:-1]
    return text + "…"


def compact(number: float) -> str:
    """12,345,678 as "12.3M": at most three digits and a letter."""
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= limit * 0.9995:
            value = number / limit
            return f"{value:.0f}{letter}" if value >= 99.95 else f"{value:.1f}".removesuffix(".0") + letter
    return f"{number:g}"


def svg(drawing: Drawing, identifier: str) -> str:
    """``drawing`` as an SVG element; colours of text and grid come from the page's style sheet."""
    body = "".join(_svg_mark(mark) for mark in drawing.marks)
    box = f"0 0 {_n(drawing.width)} {_n(drawing.height)}"
    title = f'<title id="{identifier}">{escape(drawing.title)}</title>'
    return f'<svg viewBox="{box}" role="img" aria-labelledby="{identifier}">{title}{body}</svg>'


def _svg_mark(mark: Mark) -> str:
    match mark:
        case Rect():
            tip = f"<title>{escape(mark.tip)}</title>" if mark.tip else ""
            box = f'x="{_n(mark.x)}" y="{_n(mark.y)}" width="{_n(mark.width)}" height="{_n(mark.height)}"'
            return f'<rect {box} fill="{mark.fill}">{tip}</rect>'
        case Line():
            ends = f'x1="{_n(mark.x1)}" y1="{_n(mark.y1)}" x2="{_n(mark.x2)}" y2="{_n(mark.y2)}"'
            return f'<line {ends} class="{mark.role}"/>'
        case Text():
            place = f'x="{_n(mark.x)}" y="{_n(mark.y)}" font-size="{_n(mark.size)}"'
            return f'<text {place} text-anchor="{mark.anchor}" class="{mark.role}">{escape(mark.text)}</text>'


def _n(number: float) -> str:
    return f"{number:.2f}".rstrip("0").rstrip(".")


PNG_COLOURS: Mapping[Role, str] = {"ink": "#1f2933", "muted": "#5b6773", "grid": "#e1e6eb"}
_PNG_ANCHORS: Mapping[Anchor, str] = {"start": "lm", "middle": "mm", "end": "rm"}


def paint(canvas: ImageDraw.ImageDraw, drawing: Drawing, left: float, top: float, scale: float) -> None:
    """Paint ``drawing`` at (left, top) CSS pixels of a canvas with ``scale`` device pixels a CSS pixel."""
    for mark in drawing.marks:
        match mark:
            case Rect():
                x, y = (left + mark.x) * scale, (top + mark.y) * scale
                right, bottom = x + mark.width * scale, y + mark.height * scale
                box = (round(x), round(y), max(round(right) - 1, round(x)), max(round(bottom) - 1, round(y)))
                canvas.rectangle(box, fill=mark.fill)
            case Line():
                start = ((left + mark.x1) * scale, (top + mark.y1) * scale)
                end = ((left + mark.x2) * scale, (top + mark.y2) * scale)
                canvas.line((start, end), fill=PNG_COLOURS[mark.role], width=max(round(scale), 1))
            case Text():
                spot = ((left + mark.x) * scale, (top + mark.y) * scale)
                canvas.text(
                    spot,
                    mark.text,
                    fill=PNG_COLOURS[mark.role],
                    font=font(mark.size * scale),
                    anchor=_PNG_ANCHORS[mark.anchor],
                )
