"""Small data trees in the true layouts of sets, made from nothing but the sets' own TOML.

``make(source, folder)`` writes files named by the source's pairings and its pattern of case names, in the
formats of its readers, with every key of ``[labels]`` as its decoder wants it, and says what a build of them
must give. It shares no code with the parts that read: what both sides take from the documentation of a
source must agree. One registry each: ``shapes.SHAPES`` (pairings), ``paint.PAINTERS`` (decoders),
``writers.WRITERS`` (readers).
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from layouts.cases import Name, names
from layouts.paint import Canvas, canvas, painted
from layouts.shapes import Place, Placed, shape
from layouts.writers import File, Piece, write
from medcurate.config.source import Source
from medcurate.format.keys import pseudonym

COLOURED = {"dermoscopy", "endoscopy", "fundus", "pathology"}


@dataclass
class ExpectedCase:
    """``masks``: how many masks of which label and area a build cuts for each channel, on axis z."""

    group: str
    split: str
    masks: Counter[tuple[str, int]]  # (ontology label, area in pixels) -> planes
    slices: int  # annotated planes, a channel


@dataclass
class Expected:
    """What a build of the tree must give, by the id that it writes."""

    channels: tuple[str, ...]
    cases: dict[str, ExpectedCase] = field(default_factory=dict)


@dataclass(frozen=True)
class _Write:
    reader: str
    place: Place
    piece: Piece


def make(source: Source, folder: Path) -> Expected:
    """Write the tree of ``source`` into ``folder``. AssertionError where its TOML cannot be a set's."""
    expected = Expected(tuple(channel.name for channel in source.channels) or ("",))
    taken: set[str] = set()
    writes: list[_Write] = []
    for number, pairing in enumerate(source.pairings):
        made = shape(source, pairing)
        for running, name in enumerate(names(source, made.structure, number, taken)):
            match = re.fullmatch(made.structure, name.text)
            assert match
            shown = canvas(source, whole=running == 0, files=made.several)
            writes += _writes(source, name, shown, made.place(match, running))
            expected.cases[_written(source, name.case)] = ExpectedCase(
                group=f"{source.namespace}:{_written(source, name.patient)}",
                split=pairing.split,
                masks=Counter({(strip.label, strip.area_px): len(strip.planes) for strip in shown.strips}),
                slices=len({plane for strip in shown.strips for plane in strip.planes}),
            )
    _write_all(source, folder, writes)
    return expected


def _written(source: Source, identifier: str) -> str:
    return identifier if source.case.identifiers == "keep" else pseudonym(source.namespace, identifier)


def _writes(source: Source, name: Name, shown: Canvas, placed: Placed) -> Iterator[_Write]:
    for channel, place in placed.images.items():
        piece = Piece(_image(source, name, shown, channel), False, place.entry, channel, source.dimensions)
        yield _Write(source.image.reader, place, piece)
    for key, arrays in painted(shown).items():
        places = placed.labels[key if key in placed.labels else ""]
        for place, array in zip(places, arrays, strict=True):
            piece = Piece(array, True, place.entry, key, source.dimensions)
            yield _Write(source.label.reader, place, piece)


def _image(source: Source, name: Name, shown: Canvas, channel: str) -> np.ndarray:
    """Noise that no other image of any source shows; the strips are brighter."""
    rng = np.random.default_rng(zlib.crc32(f"{source.id}/{name.text}/{channel}".encode()))
    components = [c.component for c in source.channels if c.component is not None]
    raster = source.image.reader == "raster"
    coloured = raster and not source.image.options.get("stack") and source.modality in COLOURED
    extra = (3,) if coloured and not source.image.options.get("grey") else ()
    extra = (max(components) + 1,) if components else extra
    pixels = rng.integers(0, 120, (*shown.shape, *extra))
    for strip in shown.strips:
        pixels[strip.on(shown.shape)] += 100
    return pixels.astype(np.uint8 if raster else np.int16)


def _write_all(source: Source, folder: Path, writes: list[_Write]) -> None:
    """Every file once, with all that it holds, and beside it what archivers of macOS leave."""
    by_path: dict[str, list[_Write]] = {}
    for entry in writes:
        by_path.setdefault(entry.place.path, []).append(entry)
    options = {False: source.image.options, True: source.label.reader_options}
    for path, entries in by_path.items():
        first = entries[0]
        file = File(
            path=folder / path,
            is_folder=path.endswith("/"),
            pieces=[entry.piece for entry in entries],
            options=options[first.piece.is_label],
        )
        write(first.reader, file)
        if not file.is_folder:
            file.path.with_name(f"._{file.path.name}").write_bytes(b"\0\5\x16\7")
