"""Folders that their host lists: the list is had once, kept beside the data, and stands for [[files]].

``downloads.lists.json`` says which files a folder has, at which commit or version, with sizes and digests as the
host states them. A later command asks for nothing again: a set that grows or changes upstream is noticed by the
files that it no longer has. A folder that is declared otherwise later is listed anew, once no file of the older list
lies there that the new one lacks: lists are never mixed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from pydantic import ValidationError

from medcurate.commit import write_json
from medcurate.config.folder import Folder
from medcurate.config.patterns import matches
from medcurate.config.source import Origin, Source, SourceFile, Unpack
from medcurate.download import dataverse, hub, nbia
from medcurate.download.entry import Contents, Entry
from medcurate.download.hosts import Hosts
from medcurate.download.lockfile import LockFile
from medcurate.download.run import LOCK_FOLDER
from medcurate.download.session import make_client
from medcurate.download.transfer import given_up_text
from medcurate.download.twins import ALL_BELOW
from medcurate.download.types import (
    DownloadError,
    NeedsRegistrationError,
    Policy,
    RefusedError,
    TransientError,
    raise_all,
)
from medcurate.errors import ConfigError, MedcurateError
from medcurate.lock import locked
from medcurate.progress import emit

LIST_FILE = "downloads.lists.json"
_SHOWN = 5  # names in a message


@dataclass(frozen=True, slots=True)
class Lists:
    """Sources whose folders became files; of the folders that could not be listed, why."""

    sources: tuple[Source, ...]
    errors: tuple[MedcurateError, ...] = ()

    def check(self) -> None:
        """Raises the errors, as ``raise_all`` does."""
        raise_all(self.errors)


def with_lists(sources: Sequence[Source], data: Path, *, ask: bool, policy: Policy | None = None) -> Lists:
    """``sources`` with the files of their folders, which lie or belong in ``data``/<id>, among their own.

    A folder that lies there without a list was placed by hand and adds none. Where a list is missing it is
    asked for and recorded, or, without ``ask``, the folder stands as one file, called "<into>/*".

    What goes wrong with one source is among the result's errors and does not stop the others: a list that cannot
    be had, a record that is damaged or cannot be written, a folder that another process works on.
    """
    policy = policy or Policy()
    # One list that nobody is there for is waited for: the others of its host need not be.
    hosts = Hosts(replace(policy, host_patience_s=0.0))
    ready, errors = [], []
    for source in sources:
        folder = data / source.id
        try:
            for missing in unlisted(source, folder) if ask else ():
                try:
                    _record(source, folder, missing, policy, hosts)
                except MedcurateError as error:
                    errors.append(error)
            files = [*listed_files(source, folder)]
            files += [_stands_for(missing) for missing in unlisted(source, folder) if not ask]
        except MedcurateError as error:
            errors.append(error)
            files = [*source.files]
        ready.append(source.model_copy(update={"files": tuple(files)}))
    return Lists(tuple(ready), tuple(errors))


def unlisted(source: Source, folder: Path) -> list[Folder]:
    """The folders of ``source`` that neither have a list nor were placed by hand."""
    known = _read(folder) if source.folders else {}
    return [
        each
        for each in source.folders
        if not _fits(known.get(each.into), each) and (each.into in known or not _has_any(folder / each.into))
    ]


def _has_any(folder: Path) -> bool:
    return folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir())


def _stands_for(folder: Folder) -> SourceFile:
    """All files of a folder, for those who only look at what is missing; no file has its name."""
    return SourceFile(path=f"{folder.into}{ALL_BELOW}", origin=Origin(url=folder.page))


def listed_files(source: Source, folder: Path) -> Iterator[SourceFile]:
    """The declared files of ``source`` and those of its folders whose list is in ``folder``, the source's own.

    Raises ConfigError where that record is damaged.
    """
    yield from source.files
    known = _read(folder) if source.folders else {}
    for each in source.folders:
        record = known.get(each.into)
        if _fits(record, each):
            yield from _recorded(folder, record)


def _recorded(folder: Path, record: dict[str, Any] | None) -> Iterator[SourceFile]:
    """The files of one record in ``folder``, if there is one. Raises ConfigError where it is damaged."""
    try:
        for facts in record["files"] if record else ():
            yield nbia.current(SourceFile.model_validate(facts))
    except (ValidationError, KeyError, TypeError) as error:
        raise _damaged(folder / LIST_FILE, str(error).splitlines()[0]) from error


def _fits(record: dict[str, Any] | None, folder: Folder) -> bool:
    """Whether a record is of this folder as it is declared."""
    return record is not None and record.get("folder") == _key(folder)


def _key(folder: Folder) -> dict[str, Any]:
    return folder.model_dump(mode="json", exclude_defaults=True)


def _record(source: Source, folder: Path, wanted: Folder, policy: Policy, hosts: Hosts) -> None:
    """Ask for the list of ``wanted`` and keep it. Raises DownloadError, ConfigError, OutputError."""
    with locked(folder / LOCK_FOLDER, f"listing the files of {source.id}"):
        if wanted not in unlisted(source, folder):
            return  # by another process, in the meantime
        with make_client(policy) as client:
            try:
                found = _patiently(lambda: _listed(client, wanted), policy, hosts, _host(wanted))
            except RefusedError as error:
                kind = NeedsRegistrationError if error.login else DownloadError
                raise kind(_text(source, folder / wanted.into, wanted, str(error))) from error
        known = _read(folder)
        _refuse_mixing(source, folder, wanted, [*_recorded(folder, known.get(wanted.into))], found.files)
        # What was recorded of files of an older list binds none of this one.
        gone = [file for file in found.files if not (folder / file.path).exists()]
        LockFile(folder).forget(file.path for file in gone if not file.made_on_request)
        record = {
            "folder": _key(wanted),
            "revision": found.revision,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "files": [file.model_dump(mode="json", exclude_defaults=True) for file in found.files],
        }
        write_json(folder / LIST_FILE, {**known, wanted.into: record})
    emit("listed", source=source.id, folder=wanted.into, files=len(found.files), revision=found.revision)


def _refuse_mixing(
    source: Source, folder: Path, wanted: Folder, old: Sequence[SourceFile], new: Sequence[SourceFile]
) -> None:
    """Raises ConfigError where files of an older list lie there that are not known to be those of the new one."""
    listed = {file.path: file for file in new}
    stay = [file for file in old if _lies(file, folder) and not _same(file, listed.get(file.path))]
    if stay:
        more = f" and {len(stay) - _SHOWN:,} more" if len(stay) > _SHOWN else ""
        raise ConfigError(
            f'{source.id}: its folder "{wanted.into}" is declared otherwise than when it was listed, and files of '
            f"the older list lie there that the new one lacks or has otherwise: "
            f"{', '.join(file.path for file in stay[:_SHOWN])}{more}. Nothing was changed, and lists are never "
            f"mixed. Remove {folder / wanted.into} to have all files of the new list, or declare the folder as "
            "before; then run the same command again."
        )


def _lies(file: SourceFile, folder: Path) -> bool:
    """Whether a pairing may find ``file``: an archive by what was unpacked of it."""
    return (folder / (file.unpack.into if file.unpack else file.path)).exists()


def _same(old: SourceFile, new: SourceFile | None) -> bool:
    """Whether both are known to be the same bytes; of what is made on request, the same series, as its UID says."""
    if new is None:
        return False
    if old.made_on_request and new.made_on_request:
        return old.path == new.path
    digests = ((old.sha256, new.sha256), (old.md5, new.md5))
    return old == new or any(first and first == second for first, second in digests)


@dataclass(frozen=True, slots=True)
class _Listed:
    revision: str
    files: tuple[SourceFile, ...]


def _listed(client: httpx.Client, folder: Folder) -> _Listed:
    """Raises RefusedError, TransientError; ConfigError where a library is missing."""
    found = _ask(client, folder)
    files = tuple(_files(found, folder))
    if not files:
        raise RefusedError("its list has no file of these")
    return _Listed(found.revision, files)


def _ask(client: httpx.Client, folder: Folder) -> Contents:
    if folder.huggingface:
        return hub.contents(client, folder)
    return dataverse.contents(client, folder) if folder.dataverse else nbia.contents(client, folder)


def _files(found: Contents, folder: Folder) -> Iterator[SourceFile]:
    """The files that are wanted, sorted.

    Raises RefusedError for names that lead elsewhere or are given twice, and for what is restricted.
    """
    seen: set[str] = set()
    for entry in sorted(found.entries, key=lambda entry: entry.path):
        parts = [part for part in entry.path.split("/") if part not in {"", "."}]
        if any(part.startswith(".") and part != ".." for part in parts):
            continue  # no pairing looks at hidden names
        path = "/".join(parts)
        if folder.include and not matches(folder.include, path):
            continue
        if path.casefold() in seen:
            raise RefusedError(f'two of its files are called "{path}"')
        if entry.restricted:
            raise RefusedError(f'"{path}" is restricted', login=True)
        seen.add(path.casefold())
        yield _file(replace(entry, path=path), folder)


def _file(entry: Entry, folder: Folder) -> SourceFile:
    place = f"{folder.into}/{entry.path}"
    try:
        if not entry.path or "\0" in entry.path:
            raise ValueError
        return SourceFile(
            path=f"archives/{place}.zip" if entry.archive else place,
            origin=entry.origin,
            sha256=entry.sha256,
            md5=entry.md5,
            size_bytes=entry.size_bytes,
            made_on_request=entry.archive,
            unpack=Unpack(into=place) if entry.archive else None,
        )
    except ValueError as error:  # ValidationError is one
        raise RefusedError(f'it lists "{entry.path}", which cannot be a file here') from error


def _host(folder: Folder) -> str:
    return folder.server or ("NBIA" if folder.nbia else "Hugging Face")


def _patiently(ask: Callable[[], _Listed], policy: Policy, hosts: Hosts, host: str) -> _Listed:
    """What ``ask`` gives, sooner or later. Raises RefusedError."""
    failures, since = 0, time.monotonic()
    while True:
        try:
            with hosts.turn(host):
                found = ask()
            hosts.works(host)
            return found
        except TransientError as error:
            failures += 1
            wait_s = policy.wait_s(failures, error.retry_after_s)
            if error.retry_after_s:
                hosts.rest(host, wait_s)
            if time.monotonic() - since + wait_s > policy.patience_s:
                if error.unreachable:  # else it may be this list alone
                    hosts.give_up(host, error)
                raise RefusedError(given_up_text(failures, error)) from error
        hosts.wait(wait_s)


def _text(source: Source, place: Path, folder: Folder, why: str) -> str:
    return (
        f"{source.id}: {folder.told} cannot be listed: {why}. Run the same command again, or get them yourself and "
        f"put them in {place}."
    )


def _read(folder: Path) -> dict[str, dict[str, Any]]:
    """The records by folder. Raises ConfigError where the file is damaged: what it held must not be forgotten."""
    path = folder / LIST_FILE
    try:
        known = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(known, dict) or not all(isinstance(record, dict) for record in known.values()):
        raise _damaged(path, "no records by folder")
    return known


def _damaged(path: Path, why: str) -> ConfigError:
    return ConfigError(
        f"{path}: damaged ({why}). It holds what the folders of this source were when they were listed; restore "
        "it from a backup, or remove it and the folders to list and fetch them anew."
    )
