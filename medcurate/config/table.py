"""Tables that a set ships beside its images: which patient a case is of, what a value means."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator

from medcurate.tables import Strict


def _check_pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}; given: {text!r}") from error
    return text


Pattern = Annotated[str, AfterValidator(_check_pattern)]
"""A Python regular expression."""


def below(value: str) -> str:
    """``value`` itself. Raises ValueError unless it is a path below the source's folder."""
    parts = PurePosixPath(value).parts
    if not parts or value.startswith("/") or ".." in parts:
        raise ValueError("a path below the source's folder, without '..'")
    return value


class Table(Strict):
    """A table that the set ships: a CSV with a line of column names, or JSON with a list of objects.

    Values are text. ``<Column>`` in a template stands for a row's value, ``<Column:04>`` for it filled up with
    zeros to four digits, ``<row>`` for the number of the row, from 0. ``where``: the values that a column must
    have; other rows are passed over. ``capture``: what the named groups of a regular expression find in a
    column become columns themselves.
    """

    file: str
    delimiter: str = ","
    records: str = ""  # JSON: the key of the list, where it is not the whole
    where: dict[str, tuple[str, ...]] = Field(default={})
    capture: dict[str, Pattern] = Field(default={})

    @field_validator("file")
    @classmethod
    def _file_inside(cls, value: str) -> str:
        return below(value)

    @field_validator("delimiter")
    @classmethod
    def _one_letter(cls, value: str) -> str:
        if len(value) != 1:
            raise ValueError("one character")
        return value


class CaseTable(Table):
    """Patient and official split of every case; templates of columns.

    ``case``: the case's id as the pattern reads it. ``splits``: what the set's words for its splits mean.
    """

    case: str
    group: str = ""
    split: str = ""
    splits: dict[str, Literal["", "train", "val", "test"]] = Field(default={})


class ClassTable(Table):
    """What a value means in the label file of a case: ``key`` is a key of [labels]; templates of columns."""

    case: str
    value: str
    key: str
