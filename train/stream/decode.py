"""From a sample's bytes to its rows of a batch: the image, some of its masks, and how they lie in the square."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from medcurate.format import png, rle
from medcurate.format.sample import BLOCK_BYTES, SampleError
from medcurate.train.geometry import Colour, Fit, Interpolation, frame_of, place_columns, place_image
from medcurate.train.stream.mixing import below, mixed
from medcurate.train.types import Frame

_MASKS, _REPLACED = 3, 4  # what hashes are for
_SIZE = slice(124, 135)  # of a USTAR header: octal digits


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What becomes of a sample: see ``medcurate.train.config.data.DataTable``."""

    side: int
    masks_per_image: int
    masks: Literal["every", "with-replacement"]
    repeat_masks: bool
    fit: Fit
    interpolation: Interpolation
    padding: Colour  # around images
    images: bool  # false: only masks are wanted
    seed: int


@dataclass(frozen=True, slots=True)
class Draw:
    """One showing of one sample. ``earlier``: how often it was shown before; ``seed``: of all else that is drawn."""

    annotations: npt.NDArray[np.uint16]
    digest: int
    earlier: int
    seed: int


@dataclass(frozen=True, slots=True)
class Row:
    """Where a sample goes, K masks of S x S: uint8 (3, S, S), bool (K, S, S), bool (K,), int64 (K,)."""

    image: npt.NDArray[np.uint8]
    masks: npt.NDArray[np.bool_]
    valid: npt.NDArray[np.bool_]
    annotations: npt.NDArray[np.int64]

    def clear(self) -> None:
        """An empty row: zeros, no valid mask."""
        self.image[...] = 0
        self.masks[...] = False
        self.valid[...] = False
        self.annotations[...] = -1


@dataclass(frozen=True, slots=True)
class Opened:
    """A sample whose image stands in ``row``; ``listed``: its JSON's annotations."""

    frame: Frame
    listed: Sequence[Any]
    draw: Draw
    row: Row


def open_sample(blob: memoryview, draw: Draw, rules: Rules, row: Row) -> Opened:
    """Put the image of a sample into ``row``; its digest was checked. Raises SampleError for no sample."""
    try:
        image_png, text = _members(blob)
        info = json.loads(text)
        frame = frame_of(info["image"]["height"], info["image"]["width"], rules.side, rules.fit)
        if (frame.scaled_height, frame.scaled_width) != (rules.side, rules.side):
            row.clear()
        if rules.images:
            _fill_image(image_png, frame, rules, row)
        return Opened(frame, info["annotations"], draw, row)
    except (KeyError, TypeError, ValueError) as error:
        raise SampleError(f"not a sample: {error}") from error


def paint(samples: Sequence[Opened], rules: Rules) -> int:
    """Put masks of all samples into their rows; returns how many were lost by resizing.

    Masks of equal size are decoded together, which costs little more than those of one sample. A mask without
    a pixel left in the square is not shown: others of its image stand in for it where none of the chosen ones
    is left, and its place is repeated or not valid. Raises SampleError for bytes that are no masks.
    """
    by_size: dict[tuple[int, int], list[Opened]] = {}
    for one in samples:
        by_size.setdefault((one.frame.height, one.frame.width), []).append(one)
    try:
        return sum(_paint_equal(group, rules) for group in by_size.values())
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise SampleError(f"not a sample: {error}") from error


def chosen(draw: Draw, rules: Rules) -> list[int]:
    """Which of the sample's masks are shown, as places in ``draw.annotations``; the rest follows in turn.

    "every": a circle of all masks in a scattered order of the sample's own; each showing takes the next K, so
    that ceil(n / K) showings in a row hold every mask. "with-replacement": K independent draws.
    """
    count, wanted = len(draw.annotations), rules.masks_per_image
    if rules.masks == "with-replacement":
        return list(below(mixed(draw.seed, _REPLACED, np.arange(wanted)), count).tolist())
    if count <= wanted:
        circle = list(range(count))
    else:
        bits = mixed(rules.seed, _MASKS, np.uint64(draw.digest), np.arange(count))
        circle = np.argsort(bits, kind="stable").tolist()
    start = (draw.earlier * wanted) % count
    return circle[start:] + circle[:start]


def _fill_image(image_png: bytes, frame: Frame, rules: Rules, row: Row) -> None:
    image = png.decode(image_png)
    if image.shape[:2] != (frame.height, frame.width):
        raise ValueError(f"its image is {image.shape[:2]}, where its JSON says {(frame.height, frame.width)}")
    place_image(image, frame, rules.interpolation, row.image, rules.padding)


def _paint_equal(samples: Sequence[Opened], rules: Rules) -> int:
    """``paint`` for images of one size."""
    wanted = rules.masks_per_image
    circles = [[int(one.draw.annotations[place]) for place in chosen(one.draw, rules)] for one in samples]
    firsts = [circle[:wanted] for circle in circles]
    columns = _columns(samples[0].frame, zip(samples, firsts, strict=True))
    start = lost = 0
    for one, circle, first in zip(samples, circles, firsts, strict=True):
        kept = _place(one, first, columns[start : start + len(first)])
        start += len(first)
        lost += len(first) - len(kept)
        for later in range(wanted, 0 if kept else len(circle), wanted):
            others = circle[later : later + wanted]
            kept = _place(one, others, _columns(one.frame, [(one, others)]))
            lost += len(others) - len(kept)
            if kept:
                break
        _finish(one.row, kept, rules.repeat_masks)
    return lost


def _columns(frame: Frame, asked: Iterable[tuple[Opened, list[int]]]) -> npt.NDArray[np.uint8]:
    """The annotations that are asked for of each sample, uint8 (N, W, H)."""
    texts = [
        one.listed[number]["segmentation"]["counts"].encode() for one, numbers in asked for number in numbers
    ]
    return rle.decode_columns(texts, frame.height, frame.width)


def _place(one: Opened, annotations: list[int], columns: npt.NDArray[np.uint8]) -> list[int]:
    """Put masks into the sample's row, those that have a pixel left first; returns the annotations of these."""
    frame, out = one.frame, one.row.masks[: len(annotations)]
    place_columns(columns, frame, out)
    if frame.scaled_height >= frame.height and frame.scaled_width >= frame.width:
        return annotations
    alive = [place for place in range(len(annotations)) if out[place].any()]
    for target, place in enumerate(alive):
        if target != place:
            out[target] = out[place]
    return [annotations[place] for place in alive]


def _finish(row: Row, kept: list[int], repeat: bool) -> None:
    """Repeat masks into the places that are left, or mark these as not valid."""
    wanted, count = len(row.masks), len(kept)
    filled = wanted if repeat and count else count
    for place in range(count, filled):
        row.masks[place] = row.masks[place % count]
    row.masks[filled:] = False
    row.valid[:filled], row.valid[filled:] = True, False
    row.annotations[filled:] = -1
    row.annotations[:filled] = [kept[place % count] for place in range(filled)]


def _members(blob: memoryview) -> tuple[bytes, bytes]:
    """Payloads of the sample's two tar members, PNG and JSON. Raises ValueError."""
    size = int(bytes(blob[_SIZE]), 8)
    start = BLOCK_BYTES + size + -size % BLOCK_BYTES
    text_size = int(bytes(blob[start + _SIZE.start : start + _SIZE.stop]), 8)
    text = blob[start + BLOCK_BYTES : start + BLOCK_BYTES + text_size]
    return bytes(blob[BLOCK_BYTES : BLOCK_BYTES + size]), bytes(text)
