"""What lies there of a source that declares no files: a lab's own folder, counted by its pairings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from medcurate.build.fetch import searching, source_folder
from medcurate.build.readings import found_by
from medcurate.config.source import Source
from medcurate.errors import DataMissing
from medcurate.pairings.found import Found
from medcurate.zips import inside


@dataclass(frozen=True, slots=True, kw_only=True)
class Own:
    """Cases that can be used, with their files; ``problem``: why nothing could be counted, one line."""

    cases: int | None = None
    files: int = 0
    size_bytes: int = 0
    problem: str = ""


def own_files(source: Source, data: Path, home: Path) -> Own | None:
    """Names and sizes alone, but for DICOM collections, whose headers are read once; None where files are declared.

    ``home``: the folder of the source's own TOML file. Raises ConfigError where a pairing's options are wrong.
    """
    if source.files or source.folders:
        return None
    try:
        root = source_folder(source, data, home)
        with searching(source, data, root):
            usable = _usable(source, root)
    except DataMissing as error:
        return Own(problem=str(error).splitlines()[0])
    paths = {path for entry in usable for path in _paths(entry)}
    size_bytes = sum(inside.facts(root / path).size_bytes for path in paths)
    return Own(cases=len(usable), files=len(paths), size_bytes=size_bytes)


def _usable(source: Source, root: Path) -> list[Found]:
    """The cases that have their files. Raises DataMissing where there is none."""
    found = (entry for pairing in source.pairings for entry in found_by(source, pairing, root))
    usable = [entry for entry in found if not entry.problem]
    if not usable:
        raise DataMissing(f"{source.id}: no case found in {root}.")
    return usable


def _paths(entry: Found) -> Iterator[Path]:
    for image in entry.images:
        yield from image.paths
    for label in entry.labels:
        yield from label.paths
