"""Which of a source's files a build still needs: for the part that fetches and the part that foretells."""

from __future__ import annotations

from pathlib import Path

from medcurate.config.source import Source, SourceFile
from medcurate.unpack.record import fits, read_record


def needed_files(source: Source, folder: Path) -> list[SourceFile]:
    """Absent files, without archives (and their parts) whose folder stands for them."""
    needless: set[str] = set()
    for file in source.files:
        if file.unpack and is_unpacked(file, folder):
            needless |= {file.path, *file.unpack.parts}
    return [file for file in source.files if file.path not in needless and not (folder / file.path).exists()]


def is_complete(source: Source, folder: Path) -> bool:
    """Whether nothing is left to be fetched, unpacked or indexed."""
    return not any(left(source, folder) for left in (needed_files, packed_files, unindexed_files))


def packed_files(source: Source, folder: Path) -> list[SourceFile]:
    """Archives that are still to be unpacked; those that are read in place never are."""
    return [
        file
        for file in source.files
        if file.unpack and not file.unpack.in_place and not is_unpacked(file, folder)
    ]


def unindexed_files(source: Source, folder: Path) -> list[SourceFile]:
    """Archives that are read in place and have no index yet."""
    return [
        file
        for file in source.files
        if file.unpack and file.unpack.in_place and not (folder / file.unpack.into).is_dir()
    ]


def is_unpacked(file: SourceFile, folder: Path) -> bool:
    """Whether the archive's folder stands for it: placed by hand, or unpacked by the rule that still stands.

    The folder of an archive that is read in place is only an index to it.
    """
    assert file.unpack is not None
    target = folder / file.unpack.into
    if not target.is_dir():
        return False
    found = read_record(target)
    return found is None or (not file.unpack.in_place and fits(found[1], file.unpack, None))
