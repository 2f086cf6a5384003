"""What of a source's files is there, what will be fetched, and what only a person can get."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medcurate.config.source import Source, SourceFile
from medcurate.download.instructions import automatic
from medcurate.download.lockfile import LockFile
from medcurate.unpack.needed import is_unpacked, needed_files

MADE = ("package", "generator")
"""Origins whose files come without network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Files of one source. Bytes are sums over files of known size; ``unknown_sizes`` counts the others.

    ``fetch``: absent files that come by themselves; ``by_hand``: absent files that a person must place.
    ``digests``: of how many files that travel a digest is declared or recorded.
    """

    there: int
    fetch: tuple[str, ...]
    by_hand: tuple[str, ...]
    fetch_bytes: int
    by_hand_bytes: int
    unpack_bytes: int  # of archives that are still to be unpacked
    unknown_sizes: int
    digests: int
    travelling: int


def inputs_of(source: Source, folder: Path) -> Inputs:
    """Look which files of ``source`` lie in ``folder``; none is opened but the record of earlier downloads.

    Raises ConfigError where that record is damaged.
    """
    lock = LockFile(folder)
    known = {file.path: file.size_bytes or _recorded(lock, file) for file in source.files}
    absent = [file for file in needed_files(source, folder) if not _is_made(file)]
    fetch = [file for file in absent if automatic(file.origin)]
    by_hand = [file for file in absent if not automatic(file.origin)]
    travelling = [file for file in source.files if not _is_made(file)]
    packed = [
        file
        for file in source.files
        if file.unpack and not file.unpack.in_place and not is_unpacked(file, folder)
    ]
    return Inputs(
        there=len(travelling) - len(absent),
        fetch=tuple(file.path for file in fetch),
        by_hand=tuple(file.path for file in by_hand),
        fetch_bytes=sum(known[file.path] or 0 for file in fetch),
        by_hand_bytes=sum(known[file.path] or 0 for file in by_hand),
        unpack_bytes=sum(known[path] or 0 for file in packed for path in _with_parts(file)),
        unknown_sizes=sum(known[file.path] is None for file in absent),
        digests=sum(bool(file.sha256 or file.md5 or lock.get(file.path)) for file in travelling),
        travelling=len(travelling),
    )


def _recorded(lock: LockFile, file: SourceFile) -> int | None:
    entry = lock.get(file.path)
    return entry.size_bytes if entry else None


def _is_made(file: SourceFile) -> bool:
    return any(getattr(file.origin, name) for name in MADE)


def _with_parts(file: SourceFile) -> Sequence[str]:
    return (file.path, *(file.unpack.parts if file.unpack else ()))
