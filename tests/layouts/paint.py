"""Decoders backwards: from the strips that a case shows to arrays of label files. One function a kind.

Strip number n is 2 x (3 + n) pixels on 1, 2 or 3 planes, apart from all others: its area says which it is, so
a label that takes another's place is seen.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from medcurate.config.source import Source

Options = Mapping[str, Any]
Shown = dict[str, list[np.ndarray]]  # by key ("" for all), one array (planes, rows, columns[, 3]) a file

PLANES = 4
LEAST_SIDE = 24
NO_STRUCTURE = 200  # the number of an object that is background


@dataclass(frozen=True)
class Strip:
    """One region of one key: rows ``top`` and the next, columns 2 to 2 + ``width``, planes first to last."""

    key: str
    label: str
    top: int
    width: int
    planes: tuple[int, ...]

    @property
    def area_px(self) -> int:
        return 2 * self.width

    def on(self, shape: tuple[int, int, int]) -> np.ndarray:
        """bool (planes, rows, columns)."""
        mask = np.zeros(shape, np.bool_)
        mask[list(self.planes), self.top : self.top + 2, 2 : 2 + self.width] = True
        return mask


@dataclass(frozen=True)
class Canvas:
    """What a case shows; ``files``: label files a key may have."""

    source: Source
    strips: tuple[Strip, ...]
    shape: tuple[int, int, int]
    files: int

    def of(self, key: str) -> list[np.ndarray]:
        return [strip.on(self.shape) for strip in self.strips if strip.key == key]


def canvas(source: Source, *, whole: bool, files: int, only: str = "") -> Canvas:
    """The strips of a case: of all keys, or of the first three only, or of the key ``only``."""
    objects = files
    if source.label.decoder in OBJECT_DECODERS:
        objects = 3 if len(source.labels) == 1 else 2
    keys = [key for key in source.labels for _ in range(1 if _is_one_number(source, key) else objects)]
    shown = len(keys) if whole or only else min(len(keys), 3)
    planes = PLANES if source.dimensions == 3 or source.frames else 1
    strips = tuple(
        Strip(
            key=key,
            label=source.labels[key],
            top=4 * number + 2,
            width=3 + number,
            planes=tuple(range(number % 2, number % 2 + 1 + number % 3)) if planes > 1 else (0,),
        )
        for number, key in enumerate(keys[:shown])
        if not only or key == only
    )
    shape = (planes, max(4 * len(keys) + 4, LEAST_SIDE), max(len(keys) + 8, LEAST_SIDE))
    return Canvas(source, strips, shape, files)


def _is_one_number(source: Source, key: str) -> bool:
    """Whether a key of ``instance`` is a single value, which two objects cannot have."""
    return source.label.decoder == "instance" and key != "*" and ".." not in key


def _smallest(values: Sequence[float]) -> np.dtype[Any]:
    if any(value != int(value) for value in values):
        return np.dtype(np.float32)
    return next(
        np.dtype(kind)
        for kind in (np.uint8, np.uint16, np.int16, np.int32, np.int64)
        if np.iinfo(kind).min <= min(values) and max(values) <= np.iinfo(kind).max
    )


def index(canvas: Canvas, options: Options) -> Shown:
    """The key as a number; a corner holds what is ignored."""
    ignored = [int(value) for value in options.get("ignore", ())]
    values = np.zeros(canvas.shape, _smallest([0, *ignored, *(int(key) for key in canvas.source.labels)]))
    values[:, 0, : len(ignored)] = ignored
    for strip in canvas.strips:
        values[strip.on(canvas.shape)] = int(strip.key)
    return {"": [values]}


def value_map(canvas: Canvas, options: Options) -> Shown:
    """Both ends of a range, on a ground of the first background value; a corner holds the others."""
    ground = [_ends(text) for text in options.get("background", ("0",))]
    numbers = [number for key in canvas.source.labels for number in _ends(key)]
    values = np.full(
        canvas.shape, ground[0][0], _smallest([*numbers, *(end for ends in ground for end in ends)])
    )
    corner = [end for ends in ground for end in ends]
    values[:, 0, : len(corner)] = corner
    for strip in canvas.strips:
        low, high = _ends(strip.key)
        values[strip.on(canvas.shape)] = low
        values[list(strip.planes), strip.top, 2 : 2 + strip.width] = high
    return {"": [values]}


def _ends(text: str) -> tuple[float, float]:
    low, _, high = text.partition("..")
    return float(low), float(high or low)


def colour_map(canvas: Canvas, options: Options) -> Shown:
    """The key's colour on the first background colour."""
    ground = options.get("background", ("#000000",))
    values = np.full((*canvas.shape, 3), _colour(ground[0]), np.uint8)
    values[:, 0, : len(ground)] = [_colour(text) for text in ground]
    for strip in canvas.strips:
        values[strip.on(canvas.shape)] = _colour(strip.key)
    return {"": [values]}


def _colour(text: str) -> list[int]:
    return [*bytes.fromhex(text[1:])]


def instance(canvas: Canvas, options: Options) -> Shown:
    """A number an object, with gaps; of a range, its first and every third."""
    values = np.zeros(canvas.shape, np.uint16)
    used: Counter[str] = Counter()
    for number, strip in enumerate(canvas.strips):
        first = 1 if strip.key == "*" else int(strip.key.partition("..")[0])
        values[strip.on(canvas.shape)] = first + 3 * (number if strip.key == "*" else used[strip.key])
        used[strip.key] += 1
    return {"": [values.astype(_smallest([0, int(values.max())]))]}


def mask_per_class(canvas: Canvas, options: Options) -> Shown:
    """One file a strip of the key; a key that is not shown has none."""
    keys = dict.fromkeys(strip.key for strip in canvas.strips)
    turned = {
        key: {**options, "inverted": not options.get("inverted")}
        for key in options.get("inverted_labels", ())
    }
    return {key: [_binary(mask, turned.get(key, options), 0.0) for mask in canvas.of(key)] for key in keys}


def threshold(canvas: Canvas, options: Options) -> Shown:
    """One file a strip, or one with all of them."""
    (key,) = canvas.source.labels
    masks = canvas.of(key)
    if canvas.files == 1:
        masks = [np.any(masks, axis=0)]
    return {"": [_binary(mask, options, None) for mask in masks]}


def _binary(mask: np.ndarray, options: Options, default: float | None) -> np.ndarray:
    above = float(options.get("above", default))
    bright = 255 if 0 <= above < 255 else math.floor(above) + 1
    dark = 0 if above >= 0 else math.floor(above) - 1
    shown = ~mask if options.get("inverted") else mask
    return np.where(shown, bright, dark).astype(_smallest([bright, dark]))


def _numbered(canvas: Canvas) -> list[tuple[int, Strip]]:
    """Numbers of objects, with gaps."""
    return [(1 + 3 * number, strip) for number, strip in enumerate(canvas.strips)]


def numbered(canvas: Canvas) -> list[tuple[int, str]]:
    """Numbers of objects and their keys; where words are background, one object of the first of them."""
    words = canvas.source.label.options.get("background", ())[:1]
    return [(number, strip.key) for number, strip in _numbered(canvas)] + [
        (NO_STRUCTURE, word) for word in words
    ]


def instance_table(canvas: Canvas, options: Options) -> Shown:
    """A number an object; a corner holds one that a table calls background."""
    values = np.zeros(canvas.shape, np.uint16)
    for number, strip in _numbered(canvas):
        values[strip.on(canvas.shape)] = number
    values[:, 0, : len(options.get("background", ())[:1])] = NO_STRUCTURE
    return {"": [values]}


def instance_channels(canvas: Canvas, options: Options) -> Shown:
    """A channel a key, objects numbered over all of them; what is ignored holds numbers too."""
    keys = [int(key) for key in canvas.source.labels]
    ignored = [int(channel) for channel in options.get("ignore", ())]
    values = np.zeros((*canvas.shape, max(1, *keys, *ignored) + 1), np.uint16)
    for number, strip in _numbered(canvas):
        values[..., int(strip.key)][strip.on(canvas.shape)] = number
    for channel in ignored:
        values[..., channel] = 1
    return {"": [values]}


def instance_class(canvas: Canvas, options: Options) -> Shown:
    """Two channels: the number of the object, and its class."""
    places = [int(options.get(name, place)) for place, name in enumerate(("instances", "classes"))]
    values = np.zeros((*canvas.shape, max(places) + 1), np.int16)
    for number, strip in _numbered(canvas):
        values[strip.on(canvas.shape), places[0]] = number
        values[strip.on(canvas.shape), places[1]] = int(strip.key)
    return {"": [values]}


def colour_instance(canvas: Canvas, options: Options) -> Shown:
    """A colour an object."""
    ground = [_colour(text) for text in options.get("background", ("#000000",))]
    values = np.full((*canvas.shape, 3), ground[0], np.uint8)
    for number, strip in _numbered(canvas):
        values[strip.on(canvas.shape)] = (10 * number % 256, 7, 255 - number)
    return {"": [values]}


def bits(canvas: Canvas, options: Options) -> Shown:
    """A bit an object: the first that its key names, the next where the key's was used."""
    values = np.zeros(canvas.shape, np.uint32)
    used: dict[str, int] = {}
    for strip in canvas.strips:
        low, _, high = strip.key.partition("..")
        bit = used.get(strip.key, int(low))
        used[strip.key] = min(bit + 1, int(high or low))
        values[strip.on(canvas.shape)] |= np.uint32(1 << bit)
    return {"": [values]}


def structures(canvas: Canvas, options: Options) -> Shown:
    """One file of all strips; a writer of drawings takes the strips, not the array."""
    return {"": [np.zeros(canvas.shape, np.uint8)]}


OBJECT_DECODERS = {"instance", "instance-table", "instance-channels", "instance-class", "colour-instance"}
PAINTERS: dict[str, Callable[[Canvas, Options], Shown]] = {
    "bits": bits,
    "colour-instance": colour_instance,
    "colour-map": colour_map,
    "index": index,
    "instance": instance,
    "instance-channels": instance_channels,
    "instance-class": instance_class,
    "instance-table": instance_table,
    "mask-per-class": mask_per_class,
    "structures": structures,
    "threshold": threshold,
    "value-map": value_map,
}


def painted(canvas: Canvas) -> Shown:
    """The arrays of a case's label files."""
    decoder = canvas.source.label.decoder
    assert decoder in PAINTERS, f"decoder {decoder}: add its layout to tests/layouts/paint.py"
    paint, options = PAINTERS[decoder], canvas.source.label.options
    if canvas.files == 1 or decoder in {"mask-per-class", "threshold", "structures"}:
        return paint(canvas, options)
    parts = [replace(canvas, strips=canvas.strips[start :: canvas.files]) for start in range(canvas.files)]
    return {"": [array for part in parts for array in paint(part, options)[""]]}
