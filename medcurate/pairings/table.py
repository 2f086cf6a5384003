"""A table names the files of every case (MSD's dataset.json, NIH Pancreas-CT, M&Ms, TotalSegmentator, …)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import field_validator

from medcurate.config.table import CaseTable
from medcurate.errors import ConfigError
from medcurate.pairings.found import OTHER_CASE, Candidates, Found, Names, Paths, at_entries, judged
from medcurate.pairings.listed import Listed
from medcurate.pairings.names import CHANNEL, LABEL, check_tokens
from medcurate.pairings.records import Row, fill, read_rows
from medcurate.pairings.tree import check_template


class Options(CaseTable):
    """``case``, ``group`` and ``split``: templates of the case's name, its patient and official split.

    ``image`` and ``label``: templates of paths, with columns, ``{channel}`` and ``{label}`` replaced and ``*``
    and ``**`` as in folders; one that ends in "/" is a folder, all of whose files are one series. ``entries``:
    templates of what is read of a file that holds several images, one case each (frames of a 4D file); the
    name then ends in "/" and the entry. ``absent``: whether a row without any file is a refused case or none.
    """

    image: str
    label: str
    entries: tuple[str, ...] = ()
    absent: Literal["refuse", "skip"] = "refuse"

    @field_validator("image", "label")
    @classmethod
    def _path(cls, value: str) -> str:
        return check_template(value.removeprefix("./"))


def check(options: Options, names: Names) -> None:
    """Raise ValueError where tokens in templates and the source's channels do not fit."""
    check_tokens(names, (options.image,), (options.label,))


def sample_entries(options: Options) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What entries of images and of labels look like, for the readers to judge."""
    shown = tuple(re.sub(r"<[^<>]*>", "0", entry) for entry in options.entries)
    return shown, shown


def find(root: Path, options: Options, names: Names) -> Iterator[Found]:
    """One case a row (and entry), sorted by name. Raises ConfigError, DataMissing."""
    try:
        check(options, names)
    except ValueError as error:
        raise ConfigError(f"table: {error}") from error
    found: list[Found] = []
    passed: dict[Path, Found] = {}  # by its path, as other kinds call what is no case for its letters alone
    listed = Listed(root)
    for row in read_rows(root, options):
        images = _templates(options.image, row, options.file, CHANNEL, names.channels)
        labels = _templates(options.label, row, options.file, LABEL, names.labels)
        files = Candidates(images=_files(listed, images), labels=_files(listed, labels))
        if files.images or files.labels:
            found += _cases(root, options, row, files, names)
        elif alike := [
            path for text in (*images.values(), *labels.values()) for path in listed.in_other_case(text)
        ]:
            told = Found(
                "", (), (), OTHER_CASE, fill(options.group, row, options.file), split_of(options, row)
            )
            passed |= {path: replace(told, name=path.as_posix()) for path in alike}
        elif options.absent == "refuse":
            found += _cases(root, options, row, files, names)
    return iter(sorted([*found, *passed.values()], key=lambda entry: entry.name))


def _cases(root: Path, options: Options, row: Row, files: Candidates, names: Names) -> Iterator[Found]:
    name = fill(options.case, row, options.file)
    whole = replace(
        judged(root, name, files, names, several_labels=False),
        group=fill(options.group, row, options.file),
        split=split_of(options, row),
    )
    if not options.entries:
        yield whole
    for template in options.entries:
        entry = fill(template, row, options.file)
        yield at_entries(whole, f"{name}/{entry}", entry, entry)


def split_of(table: CaseTable, row: Row) -> str:
    """The official split that a row states. Raises ConfigError for a word that is none."""
    word = fill(table.split, row, table.file)
    split = table.splits.get(word, word)
    if split not in {"", "train", "val", "test"}:
        raise ConfigError(f'{table.file}: "{word}" is no split; say in splits what it means')
    return split


def _templates(template: str, row: Row, file: str, placeholder: str, tokens: Sequence[str]) -> dict[str, str]:
    """Paths of a row's files, which may still hold wildcards, by token."""
    told = {token: template.replace(placeholder, token) for token in tokens}
    every = told if placeholder in template else {"": template}
    return {token: _below(fill(text, row, file), file) for token, text in every.items()}


def _files(listed: Listed, templates: Mapping[str, str]) -> dict[str, list[Paths]]:
    """Files by token; tokens without a file are absent."""
    found = {token: listed.matches(template) for token, template in templates.items()}
    return {token: paths for token, paths in found.items() if paths}


def _below(path: str, file: str) -> str:
    """What a table says of paths is never followed out of the source's folder."""
    try:
        return check_template(path.removeprefix("./"))
    except ValueError as error:
        raise ConfigError(f"{file}: a row leads to {path!r}: {error}") from error
