"""Archives that several sources name: had from the source that has them, instead of fetched and unpacked again.

Sources keep folders of their own; only the bytes in them are one, by hard links.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from medcurate.build.stamps import Digests
from medcurate.config.source import Source, SourceFile
from medcurate.download.instructions import automatic, origin_text
from medcurate.download.lockfile import Entry, LockFile
from medcurate.download.part import Part
from medcurate.download.run import LOCK_FOLDER, Task, wanted_anew
from medcurate.download.transfer import mismatch
from medcurate.download.twins import Twin, Twins, identity, link
from medcurate.download.types import Wanted
from medcurate.errors import ConfigError
from medcurate.lock import locked
from medcurate.progress import emit
from medcurate.unpack.clone import can_clone, can_clone_index, clone
from medcurate.unpack.needed import needed_files, packed_files, unindexed_files


def share(source: Source, folder: Path, twins: Twins, digests: Digests) -> dict[Path, str]:
    """Take what ``source`` still needs from others that have it.

    Returns how those differ from what is wanted here that were not taken for it, by the place where the file belongs.
    Raises OutputError, and ConfigError where a record of ``source`` itself is damaged.
    """
    lacking = (packed_files, needed_files, unindexed_files)
    wanted = [file for lacks in lacking for file in lacks(source, folder)]
    if not any(twins.of(source, file) for file in wanted):
        return {}
    with locked(folder / LOCK_FOLDER, f"sharing files with {source.id}"):
        sharing = _Sharing(source, folder, twins, digests)
        owners = [sharing.unpacked(file) for file in packed_files(source, folder)]
        owners += [sharing.file(file) for file in needed_files(source, folder)]
        owners += [sharing.index(file) for file in unindexed_files(source, folder)]
        sharing.lock.settle()
    for owner, count in Counter(filter(None, owners)).items():
        emit("shared", source=source.id, files_and_folders=count, of=owner)
    return sharing.differing


def leaders(tasks: Sequence[Task]) -> list[Task]:
    """One of those tasks that mean the same bytes, with the addresses of all of them as its mirrors.

    One that needs no person comes before others, then the one that most of has come already, else the first.
    """
    groups: dict[str, list[Task]] = {}
    for task in tasks:
        key = identity(task.source, task.file) or str(task.folder / task.file.path)
        groups.setdefault(key, []).append(task)
    return [group[0] if len(group) == 1 else _leader(group) for group in groups.values()]


def _leader(group: Sequence[Task]) -> Task:
    best = max(group, key=lambda task: (automatic(task.file.origin), _come_bytes(task)))
    origin = best.file.origin
    if not origin.url:
        return best
    origins = [origin, *(task.file.origin for task in group)]
    urls = dict.fromkeys(url for each in origins for url in (each.url, *each.mirrors) if url)
    origin = origin.model_copy(update={"mirrors": tuple(urls)[1:]})
    return replace(best, file=best.file.model_copy(update={"origin": origin}))


def _come_bytes(task: Task) -> int:
    return Part(task.folder / task.file.path).size_bytes


def unlike(tasks: Sequence[Task], failed: Sequence[Task]) -> list[Task]:
    """Those of ``tasks`` that mean the same bytes as ``failed`` ones, and of which other facts are known than of them.

    What a server has may well fit them. Raises ConfigError where the record of a source is damaged.
    """
    names = {identity(task.source, task.file) for task in failed}
    tasks = [task for task in tasks if identity(task.source, task.file) in names]
    locks = {folder: LockFile(folder) for folder in {task.folder for task in (*tasks, *failed)}}
    tried = {_facts(task, locks[task.folder]) for task in failed}
    return [task for task in tasks if _facts(task, locks[task.folder]) not in tried]


def _facts(task: Task, lock: LockFile) -> tuple[str, str | None, int | None]:
    wanted = wanted_anew(task.source, task.folder, task.file, lock)
    return identity(task.source, task.file), wanted.sha256, wanted.size_bytes


class _Sharing:
    """What one source takes from the others; its folder is locked. Each method returns whose, "" for nobody's."""

    def __init__(self, source: Source, folder: Path, twins: Twins, digests: Digests) -> None:
        self.lock = LockFile(folder)
        self.differing: dict[Path, str] = {}
        self._source, self._folder, self._twins, self._digests = source, folder, twins, digests
        self._locks: dict[Path, LockFile | None] = {}  # of the others, by folder

    def unpacked(self, file: SourceFile) -> str:
        """Take an unpacked folder."""
        known = file.model_copy(update={"sha256": self._wanted(file).sha256})
        return self._cloned(file, lambda twin: can_clone(known, twin.file, twin.folder))

    def index(self, file: SourceFile) -> str:
        """Take the index of an archive that is read in place and lies here already."""
        return self._cloned(file, lambda twin: can_clone_index(file, self._folder, twin.file, twin.folder))

    def _cloned(self, file: SourceFile, fits: Callable[[Twin], bool]) -> str:
        for twin in self._twins.of(self._source, file):
            rule, others = file.unpack, twin.file.unpack
            if rule and others and fits(twin) and clone(twin.folder / others.into, self._folder / rule.into):
                return twin.source.id
        return ""

    def file(self, file: SourceFile) -> str:
        """Take a file whose bytes are those that are wanted."""
        for twin in self._twins.of(self._source, file):
            try:
                if twin.path.is_file() and self._take(twin, file):
                    return twin.source.id
            except OSError:  # of the twin, unreadable or gone meanwhile: it is had as if nobody had it
                continue
        return ""

    def _take(self, twin: Twin, file: SourceFile) -> bool:
        target, wanted, size = self._folder / file.path, self._wanted(file), twin.path.stat().st_size
        other_size = wanted.size_bytes not in {None, size}
        found = {} if other_size else self._digests.of(twin.path, md5=file.md5 is not None)
        if problem := mismatch(wanted, found, size):
            self.differing[target] = f"{problem} in that of {twin.source.id}"
            return False
        link(twin.path, target)
        self._digests.note(target, found)
        self._record(file, twin, found["sha256"], size)
        self.differing.pop(target, None)
        return True

    def _wanted(self, file: SourceFile) -> Wanted:
        return wanted_anew(self._source, self._folder, file, self.lock)

    def _record(self, file: SourceFile, twin: Twin, sha256: str, size_bytes: int) -> None:
        """Record a shared file as coming from where its twin came from."""
        entry = self._entry(twin)
        url, etag = (entry.url, entry.etag) if entry else (origin_text(file.origin), "")
        self.lock.put(file.path, sha256=sha256, size_bytes=size_bytes, url=url, etag=etag)

    def _entry(self, twin: Twin) -> Entry | None:
        """What the other recorded; nothing where its record cannot be read, which its own commands tell."""
        if twin.folder not in self._locks:
            try:
                self._locks[twin.folder] = LockFile(twin.folder)
            except (ConfigError, OSError):
                self._locks[twin.folder] = None
        lock = self._locks[twin.folder]
        return lock.get(twin.file.path) if lock else None
