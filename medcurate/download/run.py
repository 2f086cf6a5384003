"""Many files at once: a thread each, some connections a host, one bar; one failure does not stop the others."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from queue import Empty, SimpleQueue
from threading import Lock, Thread

import httpx

from medcurate.commit import output_error
from medcurate.config.source import Source, SourceFile
from medcurate.download.clients import arguments, client_of, run_client
from medcurate.download.hosts import Hosts, StoppedError
from medcurate.download.http import check_url, file_behind
from medcurate.download.hub import HubFile
from medcurate.download.instructions import origin_text
from medcurate.download.lockfile import LockFile
from medcurate.download.objects import ObjectFile, s3_filesystem
from medcurate.download.part import Part
from medcurate.download.session import make_client
from medcurate.download.throughput import note
from medcurate.download.transfer import Transfer, mismatch, other_bytes
from medcurate.download.types import DownloadError, Fetched, Policy, Remote, Wanted, raise_all
from medcurate.errors import ConfigError, DiskFull, MedcurateError
from medcurate.lock import locked
from medcurate.progress import Progress, progress
from medcurate.storage import without_user

S3 = "s3://"
_STOP_SECONDS = 3.0

# Of a source's folder: hidden, so that no pairing looks into it.
LOCK_FOLDER = ".download"


@dataclass(frozen=True, slots=True)
class Task:
    """One file of ``source`` to be had in ``folder``, the source's."""

    source: Source
    folder: Path
    file: SourceFile


@dataclass(frozen=True, slots=True)
class Downloads:
    """What came of all tasks: files, and an error for each of the others."""

    fetched: tuple[Fetched, ...] = ()
    errors: tuple[MedcurateError, ...] = ()

    def check(self) -> None:
        """Raises the errors, as ``raise_all`` does."""
        raise_all(self.errors)


def download(tasks: Sequence[Task], *, jobs: int = 4, policy: Policy | None = None) -> Downloads:
    """Have the files of all ``tasks``, ``jobs`` at a time; a file that is there already is fetched again.

    Every file appears under its name only whole and with its declared (or, before, recorded) size and
    digest. An interrupted or killed call continues where it stopped.

    Raises ConfigError before anything is fetched, for addresses that are not allowed; DiskFull where the
    declared sizes do not fit; OutputError where another process downloads to the same folder. What goes
    wrong with one file is among the result's errors and does not stop the others.
    """
    if not tasks:
        return Downloads()
    for task in tasks:
        _check_addresses(task.file)
    _check_room(tasks)
    policy = policy or Policy()
    with ExitStack() as stack:
        locks: dict[Path, LockFile] = {}
        for task in tasks:
            if task.folder not in locks:
                stack.enter_context(locked(task.folder / LOCK_FOLDER, f"downloading {task.source.id}"))
                locks[task.folder] = LockFile(task.folder)
                stack.callback(locks[task.folder].settle)
        client = stack.enter_context(make_client(policy))
        bar = stack.enter_context(_bar(tasks))
        crew = _Crew(policy, Hosts(policy), client, bar, _Received())
        started = time.monotonic()
        done = _all(tasks, crew, locks, jobs)
        note(tasks[0].folder.parent, crew.received.size_bytes, time.monotonic() - started)
        return done


class _Received:
    """Bytes that came over the network, of files that failed too: their time is counted as well."""

    def __init__(self) -> None:
        self.size_bytes = 0
        self._lock = Lock()

    def add(self, size_bytes: int) -> None:
        with self._lock:
            self.size_bytes += size_bytes


@dataclass(frozen=True, slots=True)
class _Crew:
    """What all downloads of one call share."""

    policy: Policy
    hosts: Hosts
    client: httpx.Client
    bar: Progress
    received: _Received


def _all(tasks: Sequence[Task], crew: _Crew, locks: dict[Path, LockFile], jobs: int) -> Downloads:
    """Daemon threads, so that one that waits for a silent server cannot hold up the end after Ctrl-C."""
    outcomes: list[Fetched | BaseException] = [StoppedError()] * len(tasks)
    numbers: SimpleQueue[int] = SimpleQueue()
    for number in range(len(tasks)):
        numbers.put(number)

    def work() -> None:
        while (number := _next(numbers)) is not None:
            task = tasks[number]
            try:
                outcomes[number] = _one(task, crew, locks[task.folder])
            except BaseException as error:  # told by the main thread
                outcomes[number] = error

    threads = [Thread(target=work, name=f"download {n}", daemon=True) for n in range(min(jobs, len(tasks)))]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    except BaseException:
        crew.hosts.stop.set()
        deadline = time.monotonic() + _STOP_SECONDS
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        raise
    return _results(outcomes)


def _next(numbers: SimpleQueue[int]) -> int | None:
    try:
        return numbers.get_nowait()
    except Empty:
        return None


def _results(outcomes: Sequence[Fetched | BaseException]) -> Downloads:
    for outcome in outcomes:
        if isinstance(outcome, BaseException) and not isinstance(outcome, MedcurateError):
            raise outcome
    return Downloads(
        fetched=tuple(outcome for outcome in outcomes if isinstance(outcome, Fetched)),
        errors=tuple(outcome for outcome in outcomes if isinstance(outcome, MedcurateError)),
    )


def _one(task: Task, crew: _Crew, lock: LockFile) -> Fetched:
    wanted = wanted_anew(task.source, task.folder, task.file, lock)
    listener = _Listener(crew.bar, lock, task.file.path)
    try:
        if client_of(task.file.origin):
            return _through_client(task, wanted, crew, listener)
        return _transferred(task, wanted, crew, listener)
    except OSError as error:  # of this file alone: a part of another user, say
        raise output_error(error, wanted.target) from error


def _transferred(task: Task, wanted: Wanted, crew: _Crew, listener: _Listener) -> Fetched:
    transfer = Transfer(wanted, crew.policy, crew.hosts, listener)
    try:
        return transfer.run(_remotes(task.file, wanted, crew))
    finally:
        crew.received.add(transfer.received_bytes)


@dataclass(frozen=True, slots=True)
class _Listener:
    bar: Progress
    lock: LockFile
    path: str

    def expect(self, size_bytes: int) -> None:
        self.bar.expect(size_bytes)

    def advance(self, size_bytes: int) -> None:
        self.bar.advance(size_bytes)

    def record(self, fetched: Fetched) -> None:
        self.lock.put(
            self.path,
            sha256=fetched.sha256,
            size_bytes=fetched.size_bytes,
            url=fetched.url,
            etag=fetched.etag,
        )


def wanted_of(source: Source, folder: Path, file: SourceFile, lock: LockFile) -> Wanted:
    """What is known of a file: what its source declares and, where that is no SHA-256, what was recorded."""
    entry = lock.get(file.path)
    recorded = entry is not None and not file.sha256
    return Wanted(
        source=source.id,
        target=folder / file.path,
        homepage=source.homepage,
        sha256=entry.sha256 if entry is not None and recorded else file.sha256,
        md5=file.md5,
        size_bytes=entry.size_bytes if entry is not None and recorded else file.size_bytes,
        known_from=f"recorded on {entry.date[:10]} in {lock.path}" if entry and recorded else "declared",
        made_on_request=file.made_on_request,
    )


def wanted_anew(source: Source, folder: Path, file: SourceFile, lock: LockFile) -> Wanted:
    """What a file must be to come again; of one that is made on request nothing binds another copy."""
    wanted = wanted_of(source, folder, file, lock)
    return replace(wanted, sha256=None, size_bytes=None) if file.made_on_request else wanted


def _remotes(file: SourceFile, wanted: Wanted, crew: _Crew) -> list[Remote]:
    origin = file.origin
    if origin.huggingface:
        return [
            HubFile(
                client=crew.client,
                repository=origin.huggingface,
                resource=origin.resource,
                revision=origin.revision,
            )
        ]
    return [_remote(url, wanted, crew) for url in (origin.url, *origin.mirrors)]


def _remote(url: str, wanted: Wanted, crew: _Crew) -> Remote:
    if url.startswith(S3):
        return ObjectFile(partial(s3_filesystem, crew.policy.connect_s, crew.policy.stall_s), url)
    return file_behind(crew.client, url, page=wanted.page)


def _through_client(task: Task, wanted: Wanted, crew: _Crew, listener: _Listener) -> Fetched:
    """Let an official client fetch the file into a folder of its own; judge what it left."""
    client = client_of(task.file.origin)
    assert client is not None
    scratch = wanted.target.with_name(f"{wanted.target.name}.{client.name.lower()}")
    scratch.mkdir(parents=True, exist_ok=True)
    path = run_client(client, arguments(task.file.origin, scratch), scratch, crew.hosts)
    part = Part(wanted.target, md5=wanted.md5 is not None)
    try:
        _refuse_packed(task, path)
        part.adopt(path, origin_text(task.file.origin))
        size, found = part.size_bytes, part.digests()
        listener.advance(size)
        crew.received.add(size)
        if problem := mismatch(wanted, found, size):
            part.set_aside()
            raise other_bytes(wanted, [problem])
        fetched = Fetched(
            target=wanted.target,
            url=part.url,
            etag="",
            sha256=found["sha256"],
            size_bytes=size,
            received_bytes=size,
        )
        listener.record(fetched)
        part.commit()
    finally:
        part.close()
        shutil.rmtree(scratch, ignore_errors=True)
    return fetched


def _refuse_packed(task: Task, came: Path) -> None:
    """Kaggle packs single files as it likes, which their names tell alone: what came would pass for the file."""
    asked = PurePosixPath(task.file.origin.resource).name
    if came.name == f"{asked}.zip" and not task.file.path.endswith(".zip"):
        raise DownloadError(
            f"{task.file.path} of {task.source.id}: Kaggle gives it packed, as {came.name}. Declare it so in the "
            f'source: path = "{task.file.path}.zip", with unpack = {{ into = "…" }}.'
        )


def _check_addresses(file: SourceFile) -> None:
    for url in (file.origin.url, *file.origin.mirrors):
        if url.startswith(S3) and url != without_user(url):
            raise ConfigError(
                f"{without_user(url)}: a bucket takes no name and password in its address; write s3://bucket/path and "
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
            )
        if url and not url.startswith(S3):
            check_url(url)


def _check_room(tasks: Sequence[Task]) -> None:
    """Raises DiskFull where the declared sizes do not fit; files of one call lie on one file system."""
    missing = sum(
        max(0, (task.file.size_bytes or 0) - Part(task.folder / task.file.path).size_bytes) for task in tasks
    )
    folder = tasks[0].folder
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if missing > free:
        raise DiskFull(
            f"{tasks[0].folder.parent}: the files to download need {missing:,} bytes, but {free:,} are free there. "
            "Free some space, or choose another folder with --data."
        )


def _bar(tasks: Sequence[Task]) -> AbstractContextManager[Progress]:
    names = list(dict.fromkeys(task.source.id for task in tasks))
    title = f"downloading {names[0]}" if len(names) == 1 else f"downloading {len(names)} sources"
    total = sum(task.file.size_bytes or 0 for task in tasks)
    done = sum(Part(task.folder / task.file.path).size_bytes for task in tasks)
    return progress(title, total or None, "B", done=done)
