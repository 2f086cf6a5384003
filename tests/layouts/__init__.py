"""Small data trees in the true layouts of sets, made from nothing but the sets' own TOML.

``make(source, folder)`` writes files named by the source's pairings and its pattern of case names, in the
formats of its readers, with every key of ``[labels]`` as its decoder wants it, and says what a build of them
must give. It shares no code with the parts that read: what both sides take from the documentation of a
source must agree. One registry each: ``registry.SHAPES`` (pairings), ``paint.PAINTERS`` (decoders),
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
from layouts.paint import Canvas, canvas, numbered, painted
from layouts.pieces import File, Piece
from layouts.registry import shape
from layouts.shapes import Place, Placed
from layouts.tables import CaseSheet, Sheets
from layouts.writers import write
from medcurate.config.source import Source
from medcurate.format.keys import pseudonym
from medcurate.library import lineage

COLOURED = {"dermoscopy", "endoscopy", "fundus", "histopathology"}


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
    sheet = CaseSheet(source.case.table) if source.case.table else None
    sheets = Sheets()
    for number, pairing in enumerate(source.pairings):
        made = shape(source, pairing, rater=next(iter(source.label.raters), ""))
        for running, name in enumerate(names(source, made, number, taken, pairing.select)):
            only = made.keys.get(name.text, "")
            shown = canvas(source, whole=running == 0, files=made.several, only=only)
            for turn, rater in enumerate(source.label.raters or ("",)):
                by_rater = shape(source, pairing, rater)
                match = re.fullmatch(by_rater.structure, name.text)
                assert match
                placed = by_rater.place(match, running)
                if turn == 0:
                    writes += _image_writes(source, name, shown, placed)
                writes += _label_writes(source, shown, placed)
            for path, text in made.files.items():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_text(text)
            sheets.add(made.table, made.rows.get(name.text, {}))
            sheets.add_classes(source.label.classes, name.case, numbered(shown))
            patient, split = sheet.add(name.case, name.own) if sheet else ("", "")
            expected.cases[_written(source, name.case)] = ExpectedCase(
                group=_group(source, name.own or patient or name.patient),
                split=split or made.splits.get(name.text, "") or pairing.split,
                masks=_masks(source, shown),
                slices=len({plane for strip in shown.strips for plane in strip.planes}),
            )
    _write_all(source, folder, writes)
    if sheet:
        sheet.write(folder)
    sheets.write(folder)
    return expected


def _written(source: Source, identifier: str) -> str:
    return identifier if source.case.identifiers == "keep" else pseudonym(source.namespace, identifier)


def _group(source: Source, patient: str) -> str:
    """The patient under the name that lineage.toml shares between sources, else under the source's own."""
    for rule in lineage().rules:
        if source.id in rule.ids and (match := re.search(rule.ids[source.id], patient)):
            shared = match["patient"]
            shared = str(int(shared)) if shared.isdecimal() else shared
            keep = source.case.identifiers == "keep"
            return f"{rule.patients}:{shared if keep else pseudonym(rule.patients, shared)}"
    return f"{source.namespace}:{_written(source, patient)}"


def _masks(source: Source, shown: Canvas) -> Counter[tuple[str, int]]:
    """The strips, and once more under the name of every region that unites them with others."""
    found = Counter({(strip.label, strip.area_px): len(strip.planes) for strip in shown.strips})
    for region, labels in source.regions.items():
        for strip in shown.strips:
            if strip.label in labels:
                found[region, strip.area_px] += len(strip.planes)
    return found


def _image_writes(source: Source, name: Name, shown: Canvas, placed: Placed) -> Iterator[_Write]:
    for channel, place in placed.images.items():
        piece = Piece(
            _image(source, name, shown, channel),
            False,
            place.entry,
            channel,
            source.dimensions,
            source.image.options,
            frames=source.frames,
        )
        yield _Write(source.image.reader, place, piece)
    for place, text in placed.texts:
        yield _Write("array", place, Piece(np.empty(0), False, place.entry, text, is_text=True))


def _label_writes(source: Source, shown: Canvas, placed: Placed) -> Iterator[_Write]:
    by_key = painted(shown)
    if "" in by_key and "" not in placed.labels:  # drawings: a file a key where names have keys
        by_key = {strip.key: by_key[""] for strip in shown.strips}
    for key, arrays in by_key.items():
        places = placed.labels[key if key in placed.labels else ""]
        for place, array in zip(places, arrays, strict=True):
            piece = Piece(
                array,
                True,
                place.entry,
                key,
                source.dimensions,
                source.label.reader_options,
                strips=[strip for strip in shown.strips if key in {"", strip.key}],
                turned=source.label.axes or "",
                on_dicom=source.image.reader == "dicom" and source.label.geometry == "file",
                frames=source.frames,
            )
            yield _Write(source.label.reader, place, piece)


def _image(source: Source, name: Name, shown: Canvas, channel: str) -> np.ndarray:
    """Noise that no other image of any source shows; the strips are brighter."""
    rng = np.random.default_rng(zlib.crc32(f"{source.id}/{name.text}/{channel}".encode()))
    components = [c.component for c in source.channels if c.component is not None]
    options = source.image.options
    raster = source.image.reader == "raster"
    coloured = raster and not options.get("stack") and source.modality in COLOURED
    coloured = coloured or (source.image.reader == "array" and "c" in options.get("axes", "hw"))
    coloured = coloured or options.get("channels") == "k"
    extra = (3,) if coloured and not options.get("grey") else ()
    extra = (max(components) + 1,) if components else extra
    pixels = rng.integers(0, 120, (*shown.shape, *extra))
    for strip in shown.strips:
        pixels[strip.on(shown.shape)] += 100
    return pixels.astype(np.uint8 if raster or source.dimensions == 2 else np.int16)


def _write_all(source: Source, folder: Path, writes: list[_Write]) -> None:
    """Every file once, with all that it holds, and beside it what archivers of macOS leave."""
    by_path: dict[str, list[_Write]] = {}
    for entry in writes:
        by_path.setdefault(entry.place.path, []).append(entry)
    for path, entries in by_path.items():
        first = entries[0]
        pieces = [entry.piece for entry in entries]
        file = File(folder / path, path.endswith("/"), pieces)
        write(first.reader, file)
        if not file.is_folder:
            file.path.with_name(f"._{file.path.name}").write_bytes(b"\0\5\x16\7")
