"""A source's files, there and as declared: packaged ones copied, generated ones made, others downloaded.

A file that is there is never changed or deleted. Files that only a person can get are named with the place
where they belong. Archives become folders beside them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources import files as resources
from pathlib import Path

from medcurate.build.sharing import leaders, share, unlike
from medcurate.build.stamps import Digests, verify
from medcurate.commit import committed
from medcurate.config.source import Origin, Source, SourceFile
from medcurate.download.instructions import automatic, missing_text
from medcurate.download.listing import with_lists
from medcurate.download.lockfile import LockFile
from medcurate.download.run import Downloads, Task, download
from medcurate.download.twins import Twins, identity
from medcurate.download.types import SourceChangedError, raise_all
from medcurate.errors import ConfigError, DataMissing, MedcurateError
from medcurate.library import packaged_sources, present_sources
from medcurate.phantom import generate
from medcurate.progress import emit
from medcurate.unpack import DamagedArchive, Sibling, unpack
from medcurate.unpack.needed import is_complete, needed_files


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """Whether files may be downloaded, and how many at a time."""

    allowed: bool = True
    jobs: int = 4


OFFLINE = Network(allowed=False)

_BY_HAND = "They cannot be downloaded without you"


@dataclass(frozen=True, slots=True)
class Place:
    """A source with the folder where its files are or belong."""

    source: Source
    folder: Path


@dataclass(frozen=True, slots=True)
class _Places:
    """The places of one command, who else has some of their files, and the digests that it knows."""

    asked: tuple[Place, ...]
    twins: Twins
    digests: Digests = field(default_factory=Digests)

    def share(self, place: Place) -> dict[Path, str]:
        return share(place.source, place.folder, self.twins, self.digests)


def ensure(sources: Sequence[Source], data: Path, homes: Mapping[str, Path], network: Network) -> list[Path]:
    """The folder that each source's pairings search, with every declared file in it, verified and unpacked.

    That is ``data``/<id>. A source that declares no files and has no such folder is searched where its own
    TOML file lies (``homes``, by source id), so a lab may keep the two together.

    Nothing is downloaded before it is known that all files that only a person can get are there.

    Raises DataMissing, listing every absent file with where it comes from and where it belongs;
    ConfigError where a file differs from its declared or recorded size or digest, or cannot be made;
    DownloadError, OutputError.
    """
    lists = with_lists(sources, data, ask=network.allowed)
    lists.check()
    places = _places(lists.sources, data, homes)
    tasks, by_hand = _absent(places)
    if not network.allowed:
        _refuse([*tasks, *by_hand], "Nothing is downloaded by this command")
    _refuse(by_hand, _BY_HAND)
    _fetch(places, tasks, network.jobs)
    return [place.folder for place in places.asked]


def collect(sources: Sequence[Source], data: Path, homes: Mapping[str, Path], network: Network) -> None:
    """Have every file that can be had without a person, then complain about all others: ``ensure`` for later.

    Raises what ``ensure`` raises.
    """
    lists = with_lists(sources, data, ask=network.allowed)
    places = _places(lists.sources, data, homes)
    tasks, by_hand = _absent(places)
    errors = [*lists.errors]
    with _noted(errors):
        _fetch(places, tasks, network.jobs)
    with _noted(errors):
        _refuse(by_hand, _BY_HAND)
    raise_all(errors)


@contextmanager
def _noted(errors: list[MedcurateError]) -> Iterator[None]:
    """Go on after an error, which is put to ``errors``."""
    try:
        yield
    except MedcurateError as error:
        errors.append(error)


def _places(sources: Sequence[Source], data: Path, homes: Mapping[str, Path]) -> _Places:
    """Where the sources' files are or belong, with what needs no network in place; and who else has some."""
    asked = tuple(Place(source, source_folder(source, data, homes[source.id])) for source in sources)
    _make(asked)
    places = _Places(asked, Twins((place.source, place.folder) for place in asked))
    if not all(is_complete(place.source, place.folder) for place in asked):
        for source in neighbours(sources, data):
            places.twins.add(source, data / source.id)
        for place in asked:
            places.share(place)
    return places


def neighbours(sources: Sequence[Source], data: Path) -> Iterator[Source]:
    """Other sources that have a folder, with their lists. One whose list cannot be read has nothing to share."""
    for source, _ in present_sources(data, sources):
        try:
            yield from with_lists([source], data, ask=False).sources
        except OSError:  # told to the commands that are about that source, as damage of its list is
            continue


def _fetch(places: _Places, tasks: Sequence[Task], jobs: int) -> None:
    """Download, and finish all sources that are complete, whatever became of the others.

    What came for one source and is not what another declares or recorded is refused to that one. Where nothing came
    because one source knows other bytes, those are asked that know less.
    """
    waiting, asked, errors = list(places.asked), list[Task](), list[MedcurateError]()
    while waiting:
        done = download(tasks, jobs=jobs)
        asked += tasks
        errors += done.errors
        _note(done, tasks, places.digests)
        differing: dict[Path, str] = {}
        for place in tuple(waiting):
            differing |= places.share(place)
            if not needed_files(place.source, place.folder):
                waiting.remove(place)
                try:
                    _finish(place, places)
                except ConfigError as error:  # of this source alone
                    errors.append(error)
        tasks, refused = _left(waiting, asked, differing)
        if not tasks:
            errors += refused
            break
    Downloads(errors=tuple(errors)).check()


def _note(done: Downloads, tasks: Sequence[Task], digests: Digests) -> None:
    """Files are hashed as they come."""
    md5 = {_target(task): task.file.md5 for task in tasks}
    for fetched in done.fetched:
        known = md5[fetched.target]
        digests.note(fetched.target, {"sha256": fetched.sha256} | ({"md5": known} if known else {}))


def _left(
    waiting: Iterable[Place], asked: Sequence[Task], differing: Mapping[Path, str]
) -> tuple[list[Task], list[SourceChangedError]]:
    """Of files that others stood for: those to be asked for by themselves, and errors for those that differ."""
    targets = {_target(task) for task in asked}
    came = {identity(task.source, task.file) for task in asked if _target(task).exists()}
    failed = [task for task in asked if not _target(task).exists()]
    again, without, errors = list[Task](), list[Task](), list[SourceChangedError]()
    for task in _needed(waiting):
        if _target(task) in targets:
            continue  # its own error tells
        if identity(task.source, task.file) not in came:
            without.append(task)
        elif _target(task) in differing:
            errors.append(_changed(task, differing[_target(task)]))
        else:
            again.append(task)
    again += unlike(without, failed) if failed else []
    return leaders([task for task in again if automatic(task.file.origin)]), errors


def _target(task: Task) -> Path:
    return task.folder / task.file.path


def _changed(task: Task, problem: str) -> SourceChangedError:
    return SourceChangedError(
        f"{task.file.path} of {task.source.id}: {problem}, which has just come from the same place: the source "
        f"changed. Put the file as it was at {_target(task)}, or mend the declaration or that record where the "
        "publisher confirms the new file."
    )


def source_folder(source: Source, data: Path, home: Path) -> Path:
    """Where the source's files are or belong (see ``ensure``). Raises DataMissing where that is no folder."""
    folder = data / source.id
    if source.files or folder.is_dir():
        return folder
    if (home := home.resolve()) != packaged_sources().resolve():
        return home
    owner = source.homepage or "their owner"
    raise DataMissing(
        f'source "{source.id}": there is no folder {folder}. Get the files from {owner} and put them there, '
        "or name the folder above it with --data."
    )


@contextmanager
def searching(source: Source, data: Path, root: Path) -> Iterator[None]:
    """Say with what is missing in ``root`` how to move it, where it is only that of the source's own TOML file.

    Raises DataMissing.
    """
    try:
        yield
    except DataMissing as error:
        if root == data / source.id:
            raise
        above = data.parent if data.name == source.id else data.resolve().parent
        mend = (
            f"--data {data} is that folder itself: give the one above it, --data {above}."
            if data.resolve().name == source.id
            else f"name the folder above {source.id} with --data."
        )
        raise DataMissing(
            f'{error} Files of source "{source.id}" were looked for beside its own, as there is no folder '
            f"{data / source.id}; {mend}"
        ) from error


def _make(places: Iterable[Place]) -> None:
    """Copy packaged files and generate others, where they are absent."""
    for place in places:
        for file in place.source.files:
            path = place.folder / file.path
            if file.origin.package and not path.exists():
                _copy(file.origin, path)
            elif file.origin.generator and not path.exists():
                generate(file.origin.generator, path)


def _needed(places: Iterable[Place]) -> list[Task]:
    """The files that are needed and not there."""
    return [
        Task(place.source, place.folder, file)
        for place in places
        for file in needed_files(place.source, place.folder)
    ]


def _absent(places: _Places) -> tuple[list[Task], list[Task]]:
    """The files that are needed and not there: those that can be downloaded, and those that a person must get.

    Of files that several sources need one stands for all.
    """
    tasks = leaders(_needed(places.asked))
    return (
        [task for task in tasks if automatic(task.file.origin)],
        [task for task in tasks if not automatic(task.file.origin)],
    )


def _refuse(tasks: Sequence[Task], why: str) -> None:
    """Raises DataMissing with all files of ``tasks``, by source, where there are any."""
    texts = []
    for folder in dict.fromkeys(task.folder for task in tasks):
        of_source = [task for task in tasks if task.folder == folder]
        sentence = f"{why}: put them there and run the same command again."
        files = [task.file for task in of_source]
        texts.append(missing_text(of_source[0].source, folder, files, why=sentence))
    if texts:
        raise DataMissing("\n".join(texts))


def _finish(place: Place, places: _Places) -> None:
    """Verify the files of a source that are there, and unpack its archives.

    Raises ConfigError for files that differ from what is known of them, and for damaged archives.
    """
    if not place.source.files:
        return
    found = verify(place.source, place.folder, places.digests)
    for file in place.source.files:
        if file.unpack:
            _unpack(place, file, found.get(file.path, ""), places.twins)


def _unpack(place: Place, file: SourceFile, sha256: str, twins: Twins) -> None:
    rule = file.unpack
    assert rule is not None
    parts = [place.folder / part for part in rule.parts]
    others = [
        Sibling(twin.folder / twin.file.unpack.into, twin.file.unpack)
        for twin in twins.of(place.source, file)
        if twin.file.unpack
    ]
    archive, into = place.folder / file.path, place.folder / rule.into
    with _trusted_no_more(place, (file.path, *rule.parts)):
        done = unpack(archive, into, rule, parts, sha256=sha256, others=others)
    if done.by_hand:
        emit("by hand", source=place.source.id, folder=rule.into, note="used as it is, not checked")
    elif done.fresh:
        emit(
            "unpacked", source=place.source.id, folder=rule.into, files=done.files, refused=len(done.refused)
        )


@contextmanager
def _trusted_no_more(place: Place, archives: Sequence[str]) -> Iterator[None]:
    """Forget what was recorded of archives that are damaged: another copy must be free to take their place.

    Of those with a declared digest the record only tells where they came from and when, and stays.
    """
    try:
        yield
    except DamagedArchive:
        held = {file.path for file in place.source.files if file.sha256 or file.md5}
        if os.access(place.folder, os.W_OK):
            LockFile(place.folder).forget(set(archives) - held)
        raise


def _copy(origin: Origin, path: Path) -> None:
    try:
        resource = resources(origin.package).joinpath(origin.resource)
    except ModuleNotFoundError as error:
        raise ConfigError(f'{path}: comes with the package "{origin.package}"; install that') from error
    try:
        with resource.open("rb") as packaged, committed(path) as stream:
            shutil.copyfileobj(packaged, stream)
    except FileNotFoundError as error:
        raise ConfigError(
            f'{path}: the package "{origin.package}" has no file "{origin.resource}"; reinstall it'
        ) from error
