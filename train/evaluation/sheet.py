"""A picture of predictions beside the truth: a row an image, with the Dice of each."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash
from PIL import Image, ImageDraw, ImageFont

from medcurate.format import rle
from medcurate.train.evaluation.collected import Collected
from medcurate.train.evaluation.samples import Scored
from medcurate.train.prediction.overlay import Colour, colours, overlaid

TILE_PX = 224
_GAP_PX, _TEXT_PX, _LINE_PX = 12, 13, 18
_GROUND, _INK, _MUTED = (24, 29, 35), (232, 236, 240), (150, 161, 173)


@dataclass(frozen=True, slots=True)
class Column:
    """One column of predictions."""

    collected: Collected
    prompt: str

    @property
    def title(self) -> str:
        return f"{self.collected.model}, {self.prompt}"


def choose(facts: pa.Table, count: int, seed: int) -> list[int]:
    """First rows of up to ``count`` images, in turn from every modality and organ; by hash, not by score."""
    keys = facts["key"].to_pylist()
    first = {key: row for row, key in reversed(list(enumerate(keys)))}
    draws = {key: xxhash.xxh3_64_intdigest(f"{seed} {key}".encode()) for key in first}
    strata: dict[tuple[str, str], set[str]] = {}
    for *stratum, key in zip(facts["modality"].to_pylist(), facts["organ"].to_pylist(), keys, strict=True):
        strata.setdefault((stratum[0], stratum[1]), set()).add(key)
    ordered = [sorted(strata[name], key=draws.__getitem__) for name in sorted(strata)]
    turns = (names[turn] for turn in range(len(first)) for names in ordered if turn < len(names))
    return [first[key] for key in list(dict.fromkeys(turns))[:count]]


def sheet(samples: Sequence[Scored], columns: Sequence[Column], facts: pa.Table) -> bytes:
    """PNG bytes: image, truth, and a tile for each of ``columns``."""
    labels = facts["label"].to_pylist()
    names = sorted({labels[row] for one in samples for row in _rows(one)})
    palette = dict(zip(names, colours(len(names)), strict=True))
    width = (len(columns) + 2) * (TILE_PX + _GAP_PX) + _GAP_PX
    row_px = TILE_PX + 2 * _LINE_PX + _GAP_PX
    page = Image.new("RGB", (width, len(samples) * row_px + _LINE_PX + 2 * _GAP_PX), _GROUND)
    canvas = ImageDraw.Draw(page)
    for number, title in enumerate(["image", "truth", *(column.title for column in columns)]):
        canvas.text((_left(number), _GAP_PX), _shortened(title), fill=_INK, font=_font())
    for number, one in enumerate(samples):
        top = _GAP_PX + _LINE_PX + _GAP_PX + number * row_px
        shown = [palette[labels[row]] for row in _rows(one)]
        for place, (tile, text) in enumerate(_tiles(one, columns, shown)):
            page.paste(tile, (_left(place), top))
            canvas.text((_left(place), top + TILE_PX + 2), _shortened(text), fill=_MUTED, font=_font())
        here = sorted({labels[row] for row in _rows(one)})
        _write_labels(canvas, [(name, palette[name]) for name in here], (_left(1), top + TILE_PX + 2))
    stream = io.BytesIO()
    page.save(stream, "PNG")
    return stream.getvalue()


def _tiles(
    one: Scored, columns: Sequence[Column], shown: Sequence[Colour]
) -> Iterator[tuple[Image.Image, str]]:
    """(tile, caption) of one image."""
    height, width = one.image.shape[:2]
    yield _tile(one.image, [], []), one.key
    yield _tile(one.image, list(one.masks), shown), ""
    rows = np.array(_rows(one))
    for column in columns:
        texts = column.collected.counts(column.prompt).take(pa.array(rows)).to_pylist()
        dice = column.collected.values(column.prompt, "dice")[rows].mean()
        predicted = list(rle.decode_many(texts, height, width))
        yield _tile(one.image, predicted, shown), f"Dice {100 * dice:.1f}"


def _tile(
    image: npt.NDArray[np.uint8], masks: Sequence[npt.NDArray[np.bool_]], shown: Sequence[Colour]
) -> Image.Image:
    tile = Image.new("RGB", (TILE_PX, TILE_PX))
    drawn = Image.fromarray(overlaid(image, masks, shown, TILE_PX / max(image.shape[:2])))
    tile.paste(drawn, ((TILE_PX - drawn.width) // 2, (TILE_PX - drawn.height) // 2))
    return tile


def _write_labels(
    canvas: ImageDraw.ImageDraw, names: Sequence[tuple[str, Colour]], place: tuple[float, float]
) -> None:
    left, top = place
    for name, colour in names:
        length = _font().getlength(name)
        if left + length > place[0] + TILE_PX:
            left, top = place[0], top + _LINE_PX - 3
        canvas.text((left, top), name, fill=colour, font=_font())
        left += length + 8


def _rows(one: Scored) -> range:
    return range(one.first_row, one.first_row + len(one.annotations))


def _left(column: int) -> int:
    return _GAP_PX + column * (TILE_PX + _GAP_PX)


def _shortened(text: str) -> str:
    """``text``, cut with an ellipsis where it is wider than a tile."""
    if _font().getlength(text) <= TILE_PX:
        return text
    while _font().getlength(text + "…") > TILE_PX:
        text = text[:-1]
    return text + "…"


def _font() -> ImageFont.FreeTypeFont:
    found = ImageFont.load_default(_TEXT_PX)
    if not isinstance(found, ImageFont.FreeTypeFont):
        raise TypeError("Pillow was built without FreeType; install a wheel of Pillow")
    return found
