"""A source's files, there and as declared: packaged ones copied, generated ones made, others downloaded.

A file that is there is never changed or deleted. Files that only a person can get are named with the place
where they belong. Archives become folders beside them.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files as resources
from pathlib import Path

from medcurate.build.sharing import leaders, share
from medcurate.build.stamps import verify
from medcurate.commit import committed
from medcurate.config.source import Origin, Source, SourceFile
from medcurate.download.instructions import automatic, missing_text
from medcurate.download.listing import with_lists
from medcurate.download.run import Task, download
from medcurate.download.twins import Twins
from medcurate.download.types import Fetched
from medcurate.errors import ConfigError, DataMissing
from medcurate.library import packaged_sources, present_sources
from medcurate.phantom import generate
from medcurate.progress import emit
from medcurate.unpack import unpack
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
    places, twins = _places(lists.sources, data, homes)
    tasks, by_hand = _absent(places)
    if not network.allowed:
        _refuse([*tasks, *by_hand], "Nothing is downloaded by this command")
    _refuse(by_hand, _BY_HAND)
    _fetch(places, tasks, network.jobs, twins)
    return [place.folder for place in places]


def collect(sources: Sequence[Source], data: Path, homes: Mapping[str, Path], network: Network) -> None:
    """Have every file that can be had without a person, then complain about the others: ``ensure`` for later.

    Raises what ``ensure`` raises.
    """
    lists = with_lists(sources, data, ask=network.allowed)
    places, twins = _places(lists.sources, data, homes)
    tasks, by_hand = _absent(places)
    _fetch(places, tasks, network.jobs, twins)
    lists.check()
    _refuse(by_hand, _BY_HAND)


def _places(sources: Sequence[Source], data: Path, homes: Mapping[str, Path]) -> tuple[list[Place], Twins]:
    """Where the sources' files are or belong, with what needs no network in place; and who else has some."""
    places = [Place(source, source_folder(source, data, homes[source.id])) for source in sources]
    _make(places)
    twins = Twins((place.source, place.folder) for place in places)
    if not all(is_complete(place.source, place.folder) for place in places):
        present = [source for source, _ in present_sources(data, sources)]
        for source in with_lists(present, data, ask=False).sources:
            twins.add(source, data / source.id)
        for place in places:
            share(place.source, place.folder, twins)
    return places, twins


def _fetch(places: Sequence[Place], tasks: Sequence[Task], jobs: int, twins: Twins) -> None:
    """Download, and finish all sources that are complete, whatever became of the others."""
    done = download(tasks, jobs=jobs)
    fetched = list(done.fetched)
    for place in places:
        fetched += share(place.source, place.folder, twins, fetched)
        if not needed_files(place.source, place.folder):
            _finish(place, fetched)
    done.check()


def source_folder(source: Source, data: Path, home: Path) -> Path:
    """Where the source's files are or belong (see ``ensure``). Raises DataMissing where that is no folder."""
    folder = data / source.id
    if source.files or folder.is_dir():
        return folder
    if home.resolve() != packaged_sources().resolve():
        return home
    owner = source.homepage or "their owner"
    raise DataMissing(
        f'source "{source.id}": there is no folder {folder}. Get the files from {owner} and put them there, '
        "or name the folder above it with --data."
    )


def _make(places: Iterable[Place]) -> None:
    """Copy packaged files and generate others, where they are absent."""
    for place in places:
        for file in place.source.files:
            path = place.folder / file.path
            if file.origin.package and not path.exists():
                _copy(file.origin, path)
            elif file.origin.generator and not path.exists():
                generate(file.origin.generator, path)


def _absent(places: Iterable[Place]) -> tuple[list[Task], list[Task]]:
    """The files that are needed and not there: those that can be downloaded, and those that a person must get.

    Of files that several sources need one stands for all.
    """
    tasks = [
        Task(place.source, place.folder, file)
        for place in places
        for file in needed_files(place.source, place.folder)
    ]
    tasks = leaders(tasks)
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


def _finish(place: Place, fetched: Sequence[Fetched]) -> None:
    """Verify the files of a source that are there, and unpack its archives. ``fetched``: what just came.

    Raises ConfigError for files that differ from what is known of them, and for damaged archives.
    """
    if not place.source.files:
        return
    digests = verify(place.source, place.folder, fetched)
    for file in place.source.files:
        if file.unpack:
            _unpack(place, file, digests.get(file.path, ""))


def _unpack(place: Place, file: SourceFile, sha256: str) -> None:
    rule = file.unpack
    assert rule is not None
    parts = [place.folder / part for part in rule.parts]
    done = unpack(place.folder / file.path, place.folder / rule.into, rule, parts, sha256=sha256)
    if done.by_hand:
        emit("by hand", source=place.source.id, folder=rule.into, note="used as it is, not checked")
    elif done.fresh:
        emit(
            "unpacked", source=place.source.id, folder=rule.into, files=done.files, refused=len(done.refused)
        )


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
