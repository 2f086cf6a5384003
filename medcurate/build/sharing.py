"""Archives that several sources name: had from the source that has them, instead of fetched and unpacked again.

Sources keep folders of their own; only the bytes in them are one, by hard links.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medcurate.config.source import Source, SourceFile
from medcurate.download.digest import file_digests
from medcurate.download.instructions import origin_text
from medcurate.download.lockfile import LockFile
from medcurate.download.part import Part
from medcurate.download.run import LOCK_FOLDER, Task, wanted_of
from medcurate.download.transfer import mismatch
from medcurate.download.twins import Twin, Twins, identity, link
from medcurate.download.types import Fetched
from medcurate.lock import locked
from medcurate.progress import emit
from medcurate.unpack.clone import can_clone, can_clone_index, clone
from medcurate.unpack.needed import needed_files, packed_files, unindexed_files


def share(source: Source, folder: Path, twins: Twins, fetched: Sequence[Fetched] = ()) -> list[Fetched]:
    """Take what ``source`` still needs from others that have it; returns the files that came so.

    ``fetched``: files of this command, whose digests are known. Raises OutputError, ConfigError.
    """
    lacking = (packed_files, needed_files, unindexed_files)
    wanted = [file for lacks in lacking for file in lacks(source, folder)]
    if not any(twins.of(source, file) for file in wanted):
        return []
    with locked(folder / LOCK_FOLDER, f"sharing files with {source.id}"):
        sharing = _Sharing(source, folder, twins, {each.target: each for each in fetched})
        folders = [sharing.unpacked(file) for file in packed_files(source, folder)]
        came = [sharing.file(file) for file in needed_files(source, folder)]
        folders += [sharing.index(file) for file in unindexed_files(source, folder)]
        sharing.lock.settle()
    owners = Counter(owner for owner in (*folders, *(each.owner for each in came if each)) if owner)
    for owner, count in owners.items():
        emit("shared", source=source.id, files_and_folders=count, of=owner)
    return [each.fetched for each in came if each]


def leaders(tasks: Sequence[Task]) -> list[Task]:
    """One of those tasks that mean the same bytes: the one that most of has come already, else the first."""
    best: dict[str, Task] = {}
    for task in tasks:
        key = identity(task.source, task.file) or str(task.folder / task.file.path)
        if key not in best or _come_bytes(task) > _come_bytes(best[key]):
            best[key] = task
    chosen = set(map(id, best.values()))
    return [task for task in tasks if id(task) in chosen]


def _come_bytes(task: Task) -> int:
    return Part(task.folder / task.file.path).size_bytes


@dataclass(frozen=True, slots=True)
class _Came:
    fetched: Fetched
    owner: str


class _Sharing:
    """What one source takes from the others; its folder is locked."""

    def __init__(self, source: Source, folder: Path, twins: Twins, known: Mapping[Path, Fetched]) -> None:
        self.lock = LockFile(folder)
        self._source, self._folder, self._twins, self._known = source, folder, twins, known
        self._locks: dict[Path, LockFile] = {}  # of the others, by folder

    def unpacked(self, file: SourceFile) -> str:
        """Take an unpacked folder; returns whose, "" where nobody has it."""
        return self._cloned(file, lambda twin: can_clone(file, twin.file, twin.folder))

    def index(self, file: SourceFile) -> str:
        """Take the index of an archive that is read in place and lies here already; returns whose."""
        return self._cloned(file, lambda twin: can_clone_index(file, self._folder, twin.file, twin.folder))

    def _cloned(self, file: SourceFile, fits: Callable[[Twin], bool]) -> str:
        for twin in self._twins.of(self._source, file):
            rule, others = file.unpack, twin.file.unpack
            if rule and others and fits(twin) and clone(twin.folder / others.into, self._folder / rule.into):
                return twin.source.id
        return ""

    def file(self, file: SourceFile) -> _Came | None:
        """Take a file whose bytes are those that are wanted."""
        for twin in self._twins.of(self._source, file):
            if not twin.path.is_file():
                continue
            found, size = self._digests(twin, file), twin.path.stat().st_size
            if mismatch(wanted_of(self._source, self._folder, file, self.lock), found, size):
                continue  # damaged, or not what is wanted here: it is had as if nobody had it
            link(twin.path, self._folder / file.path)
            return _Came(self._record(file, twin, found["sha256"], size), twin.source.id)
        return None

    def _digests(self, twin: Twin, file: SourceFile) -> dict[str, str]:
        came = self._known.get(twin.path) if twin.file.md5 == file.md5 else None
        if came:
            return {"sha256": came.sha256, "md5": file.md5 or ""}
        return file_digests(twin.path, md5=file.md5 is not None)

    def _record(self, file: SourceFile, twin: Twin, sha256: str, size_bytes: int) -> Fetched:
        """Record a shared file as coming from where its twin came from."""
        if twin.folder not in self._locks:
            self._locks[twin.folder] = LockFile(twin.folder)
        entry = self._locks[twin.folder].get(twin.file.path)
        url, etag = (entry.url, entry.etag) if entry else (origin_text(file.origin), "")
        self.lock.put(file.path, sha256=sha256, size_bytes=size_bytes, url=url, etag=etag)
        return Fetched(
            target=self._folder / file.path,
            url=url,
            etag=etag,
            sha256=sha256,
            size_bytes=size_bytes,
            received_bytes=0,
        )
