"""What of a source's files is there, what will be fetched, and what only a person can get."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medcurate.config.source import Source, SourceFile
from medcurate.download.instructions import automatic
from medcurate.download.listing import listed_files, unlisted
from medcurate.download.lockfile import LockFile
from medcurate.download.twins import Twins
from medcurate.unpack.clone import can_clone, makes_same_folder
from medcurate.unpack.needed import needed_files, packed_files

MADE = ("package", "generator")
"""Origins whose files come without network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Files of one source. Bytes are sums over files of known size; ``unknown_sizes`` counts the others.

    ``fetch``: absent files that come by themselves; ``by_hand``: absent files that a person must place;
    ``shared``: absent files that come from another source, named, which has them or gets them.
    ``digests``: of how many files that travel a digest is declared or recorded.
    """

    there: int
    fetch: tuple[str, ...]
    by_hand: tuple[str, ...]
    shared: tuple[tuple[str, str], ...]  # (path, source)
    fetch_bytes: int
    by_hand_bytes: int
    unpack_bytes: int  # of archives that are still to be unpacked
    unknown_sizes: int
    digests: int
    travelling: int


@dataclass(frozen=True, slots=True)
class Others:
    """Other sources in the same folder of data: what they hold, and by id which files they get before."""

    twins: Twins = field(default_factory=Twins)
    getting: dict[str, set[str]] = field(default_factory=dict)

    def add(self, source: Source, folder: Path, inputs: Inputs) -> None:
        """Take in a source that a build has before the next."""
        self.twins.add(source.model_copy(update={"files": tuple(listed_files(source, folder))}), folder)
        self.getting[source.id] = {*inputs.fetch, *inputs.by_hand, *(path for path, _ in inputs.shared)}

    def owner(self, source: Source, file: SourceFile) -> str:
        """The source that ``file`` comes from; "" where none has it or gets it."""
        for twin in self.twins.of(source, file):
            if twin.path.exists() or twin.file.path in self.getting.get(twin.source.id, ()):
                return twin.source.id
        return ""

    def unpacked_by(self, source: Source, file: SourceFile) -> str:
        """The source whose folder stands for that of ``file``; "" where none does."""
        for twin in self.twins.of(source, file):
            comes = twin.source.id in self.getting and makes_same_folder(file, twin.file)
            if comes or can_clone(file, twin.file, twin.folder):
                return twin.source.id
        return ""


def inputs_of(source: Source, folder: Path, others: Others | None = None) -> Inputs:
    """Look which files of ``source`` lie in ``folder``; none is opened but records of earlier downloads.

    Raises ConfigError where a record is damaged.
    """
    others = others or Others()
    lock, unknown = LockFile(folder), unlisted(source, folder)
    source = source.model_copy(update={"files": tuple(listed_files(source, folder))})
    known = {file.path: file.size_bytes or _recorded(lock, file) for file in source.files}
    owners = {
        file.path: by for file in packed_files(source, folder) if (by := others.unpacked_by(source, file))
    }
    packed = [file for file in packed_files(source, folder) if file.path not in owners]
    for file in source.files:
        if file.path in owners:
            owners |= dict.fromkeys(_with_parts(file), owners[file.path])
    absent = [file for file in needed_files(source, folder) if not _is_made(file)]
    shared = {file.path: by for file in absent if (by := owners.get(file.path) or others.owner(source, file))}
    rest = [file for file in absent if file.path not in shared]
    fetch = [file for file in rest if automatic(file.origin)]
    by_hand = [file for file in rest if not automatic(file.origin)]
    travelling = [file for file in source.files if not _is_made(file)]
    return Inputs(
        there=len(travelling) - len(absent),
        fetch=(*(file.path for file in fetch), *(f"{each.into}/" for each in unknown)),
        by_hand=tuple(file.path for file in by_hand),
        shared=tuple(shared.items()),
        fetch_bytes=sum(known[file.path] or 0 for file in fetch),
        by_hand_bytes=sum(known[file.path] or 0 for file in by_hand),
        unpack_bytes=sum(known[path] or 0 for file in packed for path in _with_parts(file)),
        unknown_sizes=sum(known[file.path] is None for file in rest) + len(unknown),
        digests=sum(bool(file.sha256 or file.md5 or lock.get(file.path)) for file in travelling),
        travelling=len(travelling) + len(unknown),
    )


def _recorded(lock: LockFile, file: SourceFile) -> int | None:
    entry = lock.get(file.path)
    return entry.size_bytes if entry else None


def _is_made(file: SourceFile) -> bool:
    return any(getattr(file.origin, name) for name in MADE)


def _with_parts(file: SourceFile) -> Sequence[str]:
    return (file.path, *(file.unpack.parts if file.unpack else ()))
