"""``dataset.json``: what a dataset is, from what, under which terms, and the digest of every file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from medcurate.commit import write_json
from medcurate.errors import ConfigError
from medcurate.format import CLAIM_FILE, DATASET_FILE, FORMAT_VERSION


@dataclass(frozen=True, slots=True)
class FileRecord:
    """Size and SHA-256 of one file of the dataset."""

    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetRecord:
    """The content of ``dataset.json``.

    ``made_by``: the claim that decided the bytes: verb, resolved recipe and sources (or the input dataset
    and the selection for ``pack``), tool versions. ``counts``: {"cases" | "slices" | "masks": {"written",
    "rejected", …}}. ``sources``: by id: title, licence, citation, homepage, input files, bytes and digest.
    ``lineage``: what its sources share ("overlaps") and which were not used and why ("left_out").
    ``accepted``: by source: the terms that whoever built it accepted, and when; nothing else depends on it.
    """

    name: str
    made_by: Mapping[str, Any]
    sources: Mapping[str, Mapping[str, Any]]
    counts: Mapping[str, Mapping[str, int]]
    files: Mapping[str, FileRecord] = field(default_factory=dict)
    lineage: Mapping[str, Any] = field(default_factory=dict)
    accepted: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    def write(self, folder: Path) -> None:
        """Commit ``dataset.json``: the last file of a dataset, so its presence means completeness."""
        write_json(folder / DATASET_FILE, asdict(self))


def read_record(folder: Path) -> DatasetRecord:
    """Read ``dataset.json``. Raises ConfigError when ``folder`` is no (finished) dataset of a known version."""
    path = folder / DATASET_FILE
    if not path.is_file():
        unfinished = (folder / CLAIM_FILE).is_file()
        raise ConfigError(
            f"{folder}: the dataset is unfinished; run the command that builds it again to continue."
            if unfinished
            else f"{folder}: no dataset here ({DATASET_FILE} is missing). Give the folder that build or pack wrote."
        )
    return parse_record(path.read_bytes(), str(path))


def parse_record(data: bytes, path: str) -> DatasetRecord:
    """The record whose file at ``path`` holds ``data``. Raises ConfigError, as ``read_record`` does."""
    try:
        value = json.loads(data)
        version = value["format_version"]
        if version != FORMAT_VERSION:
            raise ConfigError(
                f"{path}: format version {version}; this medcurate reads version {FORMAT_VERSION}."
            )
        _check_tables(value)
        value["files"] = {name: FileRecord(**entry) for name, entry in value["files"].items()}
        return DatasetRecord(**value)
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path}: not a dataset record ({error}). Restore it or build the dataset again."
        ) from error


def _check_tables(value: Mapping[str, Any]) -> None:
    """Raise TypeError where a table of the record, or an entry of one, is none, or a file's facts are no such facts."""
    for name in ("made_by", "sources", "counts", "files"):
        entries = value[name]
        if not isinstance(entries, Mapping):
            raise TypeError(f"{name} is no table")
        if name != "made_by" and not all(isinstance(entry, Mapping) for entry in entries.values()):
            raise TypeError(f"an entry of {name} is no table")
    for name, facts in value["files"].items():
        if not (isinstance(facts.get("size_bytes"), int) and isinstance(facts.get("sha256"), str)):
            raise TypeError(f"files: size_bytes or sha256 of {name} is missing or of another type")
    for name, counts in value["counts"].items():
        if not all(isinstance(count, int) for count in counts.values()):
            raise TypeError(f"counts of {name} are no whole numbers")
