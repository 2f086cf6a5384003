"""What a source adds to what its pairings find: several raters, tables of patients and of classes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medcurate.config.source import Pairing, Source
from medcurate.config.table import ClassTable
from medcurate.errors import ConfigError
from medcurate.pairings import PAIRINGS
from medcurate.pairings.found import Found, Names
from medcurate.pairings.records import fill, read_rows
from medcurate.pairings.table import split_of
from medcurate.registry import load

RATER = "{rater}"


def found_by(source: Source, pairing: Pairing, root: Path) -> list[Found]:
    """The cases that one pairing finds and selects. Raises ConfigError, DataMissing."""
    names = Names(
        channels=tuple(channel.name for channel in source.channels),
        components=tuple(channel.component for channel in source.channels),
        labels=tuple(source.labels),
    )
    module = load(PAIRINGS, pairing.kind, "pairing")
    readings = [
        (rater, module.find(root, module.Options(**read_by(pairing.options, rater)), names))
        for rater in source.label.raters or ("",)
    ]
    found = _merged(readings) if source.label.raters else list(readings[0][1])
    return [entry for entry in found if re.search(pairing.select, entry.name)]


def read_by(options: Any, rater: str) -> Any:
    """``options`` with a rater's name in the place of ``{rater}``."""
    if isinstance(options, str):
        return options.replace(RATER, rater)
    if isinstance(options, Mapping):
        return {key: read_by(value, rater) for key, value in options.items()}
    return [read_by(value, rater) for value in options] if isinstance(options, list | tuple) else options


def _merged(readings: Sequence[tuple[str, Iterator[Found]]]) -> list[Found]:
    """Cases with the labels of all raters; one that a rater did not label is a problem."""
    cases: dict[str, dict[str, Found]] = {}
    for rater, found in readings:
        for entry in found:
            cases.setdefault(entry.name, {})[rater] = entry
    return [_all_raters(cases[name], [rater for rater, _ in readings]) for name in sorted(cases)]


def _all_raters(found: Mapping[str, Found], raters: Sequence[str]) -> Found:
    missing = [rater for rater in raters if rater not in found or not found[rater].labels]
    first = next((found[rater] for rater in raters if rater in found and found[rater].images), None)
    labels = [
        replace(label, rater=rater) for rater in raters if rater in found for label in found[rater].labels
    ]
    first = first or next(iter(found.values()))
    problem = next((entry.problem for entry in found.values() if entry.problem), "")
    if missing and first.images and len(missing) < len(raters):
        problem = f"no label of rater {', '.join(missing)}"
    return replace(first, labels=tuple(labels), problem=problem)


@dataclass(frozen=True, slots=True)
class Tables:
    """What the tables of a source say, by the case's id as its pattern reads it."""

    source: Source
    patients: Mapping[str, tuple[str, str]]  # patient and split
    classes: Mapping[str, tuple[tuple[int, str], ...]]

    def patient(self, case: str, found: Found) -> str:
        """The patient, "" where no table names one. Raises ConfigError for a usable case that the table leaves out."""
        if found.problem and case not in self.patients:
            return ""
        return self._row(case)[0]

    def split(self, case: str) -> str:
        """The official split, "" where no table names one."""
        return self._row(case)[1]

    def labelled(self, found: Found, case: str) -> Found:
        """``found`` with what values mean in its label files."""
        if self.source.label.classes is None:
            return found
        known = self.classes.get(case, ())
        return replace(found, labels=tuple(replace(label, classes=known) for label in found.labels))

    def _row(self, case: str) -> tuple[str, str]:
        table = self.source.case.table
        if table is None:
            return "", ""
        if case not in self.patients:
            raise ConfigError(
                f'{self.source.id}: case.table: {table.file} has no row for case "{case}" '
                f'(rows are called "{table.case}"). Mend the template or the table.'
            )
        return self.patients[case]


def read_tables(source: Source, root: Path) -> Tables:
    """The tables that ``source`` declares. Raises ConfigError, DataMissing."""
    patients: dict[str, tuple[str, str]] = {}
    if table := source.case.table:
        for row in read_rows(root, table):
            facts = (fill(table.group, row, table.file), split_of(table, row))
            if patients.setdefault(fill(table.case, row, table.file), facts) != facts:
                raise ConfigError(
                    f'{table.file}: two rows of case "{fill(table.case, row, table.file)}" differ in patient or split'
                )
    return Tables(source, patients, _classes(source.label.classes, root) if source.label.classes else {})


def _classes(table: ClassTable, root: Path) -> dict[str, tuple[tuple[int, str], ...]]:
    found: dict[str, dict[int, str]] = {}
    for row in read_rows(root, table):
        text, key = (fill(template, row, table.file) for template in (table.value, table.key))
        try:
            value = int(text)
        except ValueError:
            raise ConfigError(f'{table.file}: "{text}" is no whole number, which label values are') from None
        values = found.setdefault(fill(table.case, row, table.file), {})
        if values.setdefault(value, key) != key:
            raise ConfigError(f"{table.file}: value {value} of a case has two meanings")
    return {case: tuple(sorted(values.items())) for case, values in found.items()}
