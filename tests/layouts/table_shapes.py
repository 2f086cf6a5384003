"""Cases that a table names: rows first, then the files that they lead to."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from layouts.shapes import CHANNEL, LABEL, Place, Placed, Shape, channels, filled, tokens_of
from layouts.tables import SPLITS, Row
from layouts.tables import filled as said
from medcurate.config.source import Source
from medcurate.config.table import Table

ROWS = 3
_COLUMN = re.compile(r"<([^<>:]+)(:0\d+)?>")


def table(source: Source, options: Mapping[str, Any]) -> Shape:
    """A row a case, or a case an entry of a row; the first two rows are one patient where a column names it."""
    cases = {name: (row, entry) for row in _rows(source, options) for name, entry in _entries(row, options)}

    def place(match: re.Match[str], number: int) -> Placed:
        row, entry = cases[match[0]]
        image, label = (
            filled(said(options[side], row), ()).removeprefix("./") for side in ("image", "label")
        )
        return Placed(
            {
                token: Place(image.replace(CHANNEL, token), entry)
                for token in tokens_of(CHANNEL, (image,), channels(source))
            },
            {
                token: [Place(label.replace(LABEL, token), entry)]
                for token in tokens_of(LABEL, (label,), tuple(source.labels))
            },
        )

    return Shape(
        ".*",
        place,
        names=tuple(cases),
        patients={name: said(options.get("group", ""), row) for name, (row, _) in cases.items()},
        splits={name: _split(row, options) for name, (row, _) in cases.items()},
        rows={name: row for name, (row, _) in cases.items()},
        table=Table(**{key: value for key, value in options.items() if key in Table.model_fields}),
    )


def _rows(source: Source, options: Mapping[str, Any]) -> Iterator[Row]:
    """Values of all columns that templates speak of: numbers where they are padded or count entries."""
    entries: Sequence[str] = options.get("entries", ())
    templates = [options["case"], options["image"], options["label"], options.get("group", ""), *entries]
    found = [place for template in templates for place in _COLUMN.finditer(template)]
    counts = [place[1] for entry in entries for place in _COLUMN.finditer(entry)]
    start = zlib.crc32(f"{source.id}/{options['image']}".encode()) % 900
    for number in range(ROWS):
        row = {place[1]: str(start + number) if place[2] else f"K{start + number}" for place in found}
        row |= {column: str(2 * at + number) for at, column in enumerate(counts)}
        group = _COLUMN.fullmatch(options.get("group", ""))
        if group and group[1] not in options["case"]:
            row[group[1]] = str(start + max(1, number))
        if column := _COLUMN.fullmatch(options.get("split", "")):
            words = {meaning: word for word, meaning in options.get("splits", {}).items()}
            row[column[1]] = words.get(SPLITS[number], SPLITS[number])
        yield row


def _entries(row: Row, options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The names of a row's cases, and what is read of its files for each."""
    name = said(options["case"], row)
    if not options.get("entries"):
        yield name, ""
    for template in options.get("entries", ()):
        yield f"{name}/{said(template, row)}", said(template, row)


def _split(row: Row, options: Mapping[str, Any]) -> str:
    word = said(options.get("split", ""), row)
    return str(options.get("splits", {}).get(word, word))
