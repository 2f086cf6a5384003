"""Archives that several sources name: had from the source that has them, instead of fetched and unpacked again.

Sources keep folders of their own; only the bytes in them are one, by hard links.
"""

from __future__ import annotations

from collections.abc import Sequence
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
from medcurate.unpack.clone import can_clone, clone
from medcurate.unpack.needed import needed_files, packed_files


def share(source: Source, folder: Path, twins: Twins, fetched: Sequence[Fetched] = ()) -> list[Fetched]:
    """Take what ``source`` still needs from others that have it; returns the files that came so.

    ``fetched``: files of this command, whose digests are known. Raises OutputError, ConfigError.
    """
    packed = packed_files(source, folder)
    needed = needed_files(source, folder)
    if not any(twins.of(source, file) for file in (*packed, *needed)):
        return []
    with locked(folder / LOCK_FOLDER, f"sharing files with {source.id}"):
        for file in packed:
            _share_folder(source, folder, file, twins)
        digests = {each.target: each for each in fetched}
        return [
            came
            for file in needed_files(source, folder)
            if (came := _share_file(source, folder, file, twins, digests))
        ]


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


def _share_folder(source: Source, folder: Path, file: SourceFile, twins: Twins) -> None:
    assert file.unpack is not None
    for twin in twins.of(source, file):
        if can_clone(file, twin.file, twin.folder):
            assert twin.file.unpack is not None
            if clone(twin.folder / twin.file.unpack.into, folder / file.unpack.into):
                emit("shared", source=source.id, folder=file.unpack.into, unpacked_by=twin.source.id)
                return


def _share_file(
    source: Source, folder: Path, file: SourceFile, twins: Twins, known: dict[Path, Fetched]
) -> Fetched | None:
    lock = LockFile(folder)
    for twin in twins.of(source, file):
        if not twin.path.is_file():
            continue
        came = known.get(twin.path) if twin.file.md5 == file.md5 else None
        size = twin.path.stat().st_size
        found = (
            {"sha256": came.sha256, "md5": file.md5 or ""}
            if came
            else file_digests(twin.path, md5=file.md5 is not None)
        )
        if mismatch(wanted_of(source, folder, file, lock), found, size):
            continue  # damaged, or not what is wanted here: it is had as if nobody had it
        link(twin.path, folder / file.path)
        emit("shared", source=source.id, file=file.path, kept_by=twin.source.id)
        return _recorded(lock, file, twin, found["sha256"], size)
    return None


def _recorded(lock: LockFile, file: SourceFile, twin: Twin, sha256: str, size_bytes: int) -> Fetched:
    """Record a shared file as coming from where its twin came from."""
    entry = LockFile(twin.folder).get(twin.file.path)
    url, etag = (entry.url, entry.etag) if entry else (origin_text(file.origin), "")
    lock.put(file.path, sha256=sha256, size_bytes=size_bytes, url=url, etag=etag)
    return Fetched(
        target=lock.path.parent / file.path,
        url=url,
        etag=etag,
        sha256=sha256,
        size_bytes=size_bytes,
        received_bytes=0,
    )
