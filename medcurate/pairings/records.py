"""Rows of the tables that sets ship: CSV and JSON, as text."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from medcurate.config.table import Table
from medcurate.errors import ConfigError, DataMissing
from medcurate.zips import inside
from medcurate.zips.volumes import BadMember

Row = Mapping[str, str]
MAX_TABLE_BYTES = 1 << 28
ROW = "row"
_PLACE = re.compile(r"<([^<>]+?)(?::0(\d))?>")


def read_rows(root: Path, table: Table) -> list[Row]:
    """The rows that ``table.where`` lets through, in the file's order. Raises DataMissing, ConfigError."""
    rows = [
        _captured(row | {ROW: str(number)}, table)
        for number, row in enumerate(_rows(root / table.file, table))
    ]
    return [
        row
        for row in rows
        if all(_column(row, name, table.file) in values for name, values in table.where.items())
    ]


def fill(template: str, row: Row, file: str) -> str:
    """``template`` with the row's values in the places of columns. Raises ConfigError naming the columns."""

    def value(place: re.Match[str]) -> str:
        return _column(row, place[1], file).zfill(int(place[2] or 0))

    return _PLACE.sub(value, template)


def _column(row: Row, name: str, file: str) -> str:
    if name not in row:
        raise ConfigError(f'{file}: no column "{name}"; it has: {", ".join(sorted(row))}')
    return row[name]


def _rows(path: Path, table: Table) -> Iterator[dict[str, str]]:
    text = _text(path)
    if path.suffix == ".json":
        yield from _objects(text, path, table.records)
        return
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=table.delimiter, skipinitialspace=True)
    try:
        for row in reader:
            yield {
                name.strip(): (value or "").strip() for name, value in row.items() if isinstance(name, str)
            }
    except csv.Error as error:
        raise ConfigError(f"{path.name}: not a table: {error}") from error


def _text(path: Path) -> str:
    try:
        return inside.read(path, MAX_TABLE_BYTES).decode("utf-8-sig")
    except OverflowError as error:
        raise ConfigError(f"{path.name}: a table of more than {MAX_TABLE_BYTES} bytes is not read") from error
    except BadMember as error:
        raise ConfigError(f"{path.name}: the table is damaged in its archive: {error}") from error
    except OSError as error:
        raise DataMissing(f"{path}: the table cannot be read: {error.strerror}. Put it there.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path.name}: the table is not UTF-8") from error


def _objects(text: str, path: Path, records: str) -> Iterator[dict[str, str]]:
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path.name}: not JSON") from error
    if records and isinstance(found, dict):
        found = found.get(records)
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        where = f'under "{records}"' if records else "at its top"
        raise ConfigError(f"{path.name}: no list of objects {where}; name its key with records")
    for entry in found:
        yield {
            name: str(value)
            for name, value in entry.items()
            if isinstance(value, str | int | float) and not isinstance(value, bool)
        }


def _captured(row: dict[str, str], table: Table) -> Row:
    for column, pattern in table.capture.items():
        value = _column(row, column, table.file)
        match = re.search(pattern, value)
        if match is None:
            raise ConfigError(f'{table.file}: "{value}" of column "{column}" does not match "{pattern}"')
        row |= {name: text or "" for name, text in match.groupdict().items()}
    return row
