"""Tables of a set, backwards: from what they must say of each case to their rows."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from layouts.automaton import drawn
from medcurate.config.table import CaseTable, ClassTable, Table

Row = dict[str, str]
SPLITS = ("train", "val", "test")
_PLACE = re.compile(r"<([^<>:]+)(?::0(\d+))?>")


@dataclass
class CaseSheet:
    """The table of ``[case]`` while cases are added: the first two are one patient, all others their own."""

    table: CaseTable
    rows: list[Row] = field(default_factory=list)

    def add(self, case: str, patient: str = "") -> tuple[str, str]:
        """Patient and split of ``case`` as the table will say them; ``patient``: what its name says already."""
        number = max(1, len(self.rows))
        row = columns(self.table.case, case)
        patient = self._said(row, self.table.group, patient or str(70 + number))
        split = SPLITS[number % len(SPLITS)] if self.table.split else ""
        words = {meaning: word for word, meaning in self.table.splits.items()}
        self._said(row, self.table.split, words.get(split, split))
        self.rows.append(row)
        return patient, split

    def _said(self, row: Row, template: str, text: str) -> str:
        """What ``template`` gives: what other columns decide already, else ``text``, which goes to the row."""
        named = {place[1] for place in _PLACE.finditer(template)}
        if not named <= row.keys():
            row.update(columns(template, text))
        return filled(template, row) if template else ""

    def write(self, folder: Path) -> None:
        write(self.table, self.rows, folder)


@dataclass
class Sheets:
    """The other tables of a set: those that name cases, and those that say what values mean."""

    tables: dict[str, tuple[Table, list[Row]]] = field(default_factory=dict)

    def add(self, table: Table | None, row: Row) -> None:
        """A row, once."""
        if table:
            rows = self.tables.setdefault(table.file, (table, []))[1]
            rows += [row] if row not in rows else []

    def add_classes(self, table: ClassTable | None, case: str, objects: Iterable[tuple[int, str]]) -> None:
        """A row an object of ``case``: the value in its label file, and the key of [labels]."""
        for value, key in objects if table else ():
            assert table
            said = {table.case: case, table.value: str(value), table.key: key}
            self.add(
                table,
                {name: text for template, of in said.items() for name, text in columns(template, of).items()},
            )

    def write(self, folder: Path) -> None:
        for table, rows in self.tables.values():
            write(table, rows, folder)


def columns(template: str, text: str) -> Row:
    """The columns that make ``template`` say ``text``: "LNDb-<ID:04>" and "LNDb-0012" are {"ID": "12"}."""
    pattern, at = "", 0
    for number, place in enumerate(_PLACE.finditer(template)):
        pattern += re.escape(template[at : place.start()]) + f"(?P<c{number}>.+?)"
        at = place.end()
    match = re.fullmatch(pattern + re.escape(template[at:]), text)
    assert match, f"the template {template!r} cannot say {text!r}"
    return {
        place[1]: str(int(match[f"c{number}"])) if place[2] else match[f"c{number}"]
        for number, place in enumerate(_PLACE.finditer(template))
    }


def filled(template: str, row: Mapping[str, str]) -> str:
    """``template`` with the columns of ``row``."""
    return _PLACE.sub(lambda place: row[place[1]].zfill(int(place[2] or 0)), template)


def write(table: Table, rows: Sequence[Row], folder: Path) -> None:
    """The file of ``table``; with ``where``, also rows that must be passed over, which say nonsense."""
    numbered = all("row" in row for row in rows)
    ordered = sorted(rows, key=lambda row: int(row["row"])) if numbered else list(rows)
    assert not numbered or [int(row["row"]) for row in ordered] == list(range(len(rows))), "a row is missing"
    whole = [_whole(table, row) for row in ordered]
    if table.where:
        whole = [dict.fromkeys(whole[0], "9999") | dict.fromkeys(table.where, "-"), *whole]
    path = folder / table.file
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".json":
        path.write_text(json.dumps({table.records: whole} if table.records else whole), encoding="utf-8")
        return
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(whole[0]), delimiter=table.delimiter)
        writer.writeheader()
        writer.writerows(whole)


def _whole(table: Table, row: Row) -> Row:
    """``row`` as it stands in the file: captured columns inside the texts that hold them."""
    row = {name: text for name, text in row.items() if name != "row"}
    row |= {name: values[0] for name, values in table.where.items()}
    for number, (column, pattern) in enumerate(table.capture.items()):
        groups = [name for name in re.compile(pattern).groupindex if name in row]
        fixed = {name: row.pop(name) for name in groups}
        row[column] = next(text for text in _texts(pattern, number, fixed) if _captures(pattern, text, fixed))
    return row


def _texts(pattern: str, seed: int, fixed: Mapping[str, str]) -> Iterator[str]:
    for attempt in range(20):
        yield from drawn("[^,;]*", pattern, seed + 97 * attempt, dict(fixed))


def _captures(pattern: str, text: str, wanted: Mapping[str, str]) -> bool:
    match = re.search(pattern, text)
    return match is not None and all(match[name] == value for name, value in wanted.items())
