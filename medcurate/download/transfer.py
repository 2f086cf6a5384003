"""One file, from the first place that gives it: attempts, waits, mirrors, digest, name.

A part is continued only with bytes of the same object: the answer's entity tag (or date) and size are those
that the part began with. From a mirror, whose tags differ, it is continued only where a digest decides in
the end. A file that its host makes on request is another object every time: its part begins anew. Everything else
restarts the file or stops; nothing is ever appended to other bytes.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import Protocol

from medcurate.download.hosts import Hosts
from medcurate.download.http import PAGE_BYTES, looks_like_page
from medcurate.download.part import Part
from medcurate.download.types import (
    Answer,
    DownloadError,
    Fetched,
    NeedsRegistrationError,
    OtherRangeError,
    Policy,
    RefusedError,
    Remote,
    SourceChangedError,
    TransientError,
    Wanted,
)

_PROGRESS_BYTES = 1 << 16  # an attempt with fewer bytes was none
_FRUITLESS = 5  # attempts that brought bytes and came no further than those before
_OTHER_RANGES = 3  # answers with another range than the rest, after which the file is asked for whole
_PACKED = (".gz", ".tgz", ".zst")  # what a server may call the encoding of the file that it is itself


class Listener(Protocol):
    """Who hears how a download goes."""

    def expect(self, size_bytes: int) -> None:
        """The size, once, where it was not known before."""

    def advance(self, size_bytes: int) -> None:
        """Bytes as they come; below zero where a part is dropped."""

    def record(self, fetched: Fetched) -> None:
        """All bytes are there and right; the file gets its name after this returns."""


class Transfer:
    """The download of one file."""

    def __init__(self, wanted: Wanted, policy: Policy, hosts: Hosts, listener: Listener) -> None:
        self._wanted = wanted
        self._policy = policy
        self._hosts = hosts
        self._listener = listener
        self._size_told = wanted.size_bytes is not None
        self._part = Part(wanted.target, md5=wanted.md5 is not None)
        self._received_bytes = 0
        self._other_sizes = 0
        self._other_ranges = 0

    @property
    def received_bytes(self) -> int:
        """What came over the network so far, whatever became of it."""
        return self._received_bytes

    def run(self, remotes: Sequence[Remote]) -> Fetched:
        """Have the file under its name, whole and checked, from the first of ``remotes`` that gives it.

        Raises DownloadError, DiskFull, OutputError; StoppedError when the command was interrupted.
        """
        try:
            return self._run(remotes)
        finally:
            self._part.close()

    def _run(self, remotes: Sequence[Remote]) -> Fetched:
        problems: list[str] = []
        while len(problems) < self._policy.whole_tries:
            first = len(problems) % len(remotes)
            self._fill([*remotes[first:], *remotes[:first]])
            found = self._part.digests()
            problem = mismatch(self._wanted, found, self._part.size_bytes)
            if problem is None:
                return self._finish(found["sha256"])
            problems.append(problem)
            self._listener.advance(-self._part.size_bytes)
            self._part.set_aside()
        raise other_bytes(self._wanted, problems)

    def _finish(self, sha256: str) -> Fetched:
        part = self._part
        fetched = Fetched(
            target=part.target,
            url=part.url,
            etag=part.identity.etag if part.identity else "",
            sha256=sha256,
            size_bytes=part.size_bytes,
            received_bytes=self._received_bytes,
        )
        self._listener.record(fetched)
        part.commit()
        return fetched

    def _fill(self, remotes: Sequence[Remote]) -> None:
        """Have every byte in the part."""
        refusals: list[tuple[Remote, RefusedError]] = []
        for remote in remotes:
            try:
                self._fill_from(remote, self._policy.patience_s / len(remotes))
            except RefusedError as error:
                refusals.append((remote, error))
            else:
                return
        kind = NeedsRegistrationError if self._wants_person(refusals) else DownloadError
        raise kind(self._refused_text(refusals))

    def _fill_from(self, remote: Remote, patience_s: float) -> None:
        failures, fruitless, since = 0, 0, time.monotonic()
        furthest = self._part.size_bytes if self._may_continue(remote) else 0
        while not self._part.whole:
            before, asked = self._received_bytes, time.monotonic()
            try:
                with self._hosts.turn(remote.host):
                    since += time.monotonic() - asked  # what other files take is no failure of this one
                    self._attempt(remote)
                self._hosts.works(remote.host)
                return
            except TransientError as error:
                self._other_ranges += isinstance(error, OtherRangeError)
                if self._received_bytes - before >= _PROGRESS_BYTES:
                    self._hosts.works(remote.host)
                    failures, since = 0, time.monotonic()
                    fruitless = 0 if self._part.size_bytes > furthest else fruitless + 1
                    furthest = max(furthest, self._part.size_bytes)
                failures += 1
                wait_s = self._policy.wait_s(failures, error.retry_after_s)
                if error.retry_after_s:
                    self._hosts.rest(remote.host, wait_s)
                tired = self._hosts.lost(remote.host) or time.monotonic() - since + wait_s > patience_s
                if tired or fruitless == _FRUITLESS:
                    self._hosts.give_up(remote.host, error)
                    raise RefusedError(given_up_text(max(failures, fruitless), error)) from error
            self._hosts.wait(wait_s)

    def _attempt(self, remote: Remote) -> None:
        """One request and its body. Raises TransientError where the body ends too soon."""
        part = self._part
        offset = part.size_bytes if self._may_continue(remote) else 0
        known = part.identity if part.url == remote.url else None
        with remote.open(offset, known) as answer:
            chunks = iter(answer.chunks)
            first = self._first(chunks)
            if not answer.offset and not self._wanted.page and looks_like_page(first):
                raise RefusedError("it answers with a web page instead of the file", login=True)
            if answer.sha256 and not self._wanted.sha256:
                self._wanted = replace(
                    self._wanted, sha256=answer.sha256, known_from=f"stated by {remote.host}"
                )
            self._check_size(remote, answer)
            self._check_encoding(answer)
            self._place(remote, answer)
            self._receive(remote.host, chain([first], chunks))
        expected = part.identity.size_bytes if part.identity else None
        if expected is not None and part.size_bytes != expected:
            raise TransientError(f"the connection ended after {part.size_bytes:,} of {expected:,} bytes")

    def _first(self, chunks: Iterator[bytes]) -> bytes:
        """The first bytes of a body, as many as tell a page from a file: they may come one by one."""
        first, started = b"", time.monotonic()
        while len(first) < PAGE_BYTES and (chunk := next(chunks, b"")):
            self._hosts.check()
            first += chunk
            if time.monotonic() - started >= self._policy.slow_s:
                raise TransientError(f"only {len(first):,} bytes came in {self._policy.slow_s:g} s")
        return first

    def _may_continue(self, remote: Remote) -> bool:
        """Whether an answer with the rest could be recognised as that, now or by the digest in the end."""
        part = self._part
        if self._wanted.made_on_request or part.identity is None or part.identity.size_bytes is None:
            return False
        if part.size_bytes > part.identity.size_bytes or self._other_ranges >= _OTHER_RANGES:
            return False
        return self._wanted.verifiable or (part.url == remote.url and part.identity.resumable)

    def _check_size(self, remote: Remote, answer: Answer) -> None:
        wanted, size = self._wanted, answer.identity.size_bytes
        if size is not None and not self._size_told:
            self._size_told = True
            self._listener.expect(size)
        if wanted.size_bytes is not None and size is not None and size != wanted.size_bytes:
            self._other_sizes += 1
            text = f"{wanted.size_bytes:,} bytes are {wanted.known_from}, but it has {size:,}"
            if self._other_sizes > 1:
                raise RefusedError(f"{text}: the source changed")
            raise TransientError(text)
        if size is None and not answer.ends_marked and wanted.size_bytes is None and not wanted.verifiable:
            raise RefusedError(
                "it marks neither the size nor the end of the file, and the source states no size or digest, "
                "so nobody could tell whether it is whole"
            )

    def _check_encoding(self, answer: Answer) -> None:
        """The bytes are kept as they are sent: "Content-Encoding: gzip" on a .tar.gz means the file itself."""
        wanted = self._wanted
        told = wanted.verifiable or wanted.size_bytes is not None
        if answer.encoding and not told and not wanted.target.name.lower().endswith(_PACKED):
            raise RefusedError(
                f'it sends the file packed, though it was not asked to ("Content-Encoding: {answer.encoding}"), and '
                "the source states no size or digest, so nobody could tell which bytes are the file"
            )

    def _place(self, remote: Remote, answer: Answer) -> None:
        """Make the part ready for the first byte of ``answer``."""
        part = self._part
        if part.identity is not None and part.size_bytes:
            same = part.identity.same_as(answer.identity)
            changes = self._wanted.verifiable or self._wanted.made_on_request
            if part.url == remote.url and not same and not changes:
                raise SourceChangedError(self._changed_text(answer))
            elsewhere = part.url != remote.url and part.identity.size_bytes == answer.identity.size_bytes
            if answer.offset and (same or elsewhere):
                part.check_room()
                return
        self._listener.advance(-part.size_bytes)
        part.restart(remote.url, answer.identity)
        if answer.offset:
            raise TransientError("it answers with the rest of another object")

    def _receive(self, host: str, chunks: Iterable[bytes]) -> None:
        part, policy = self._part, self._policy
        window_start, window_bytes, untold_bytes = time.monotonic(), 0, 0
        for chunk in chunks:
            self._hosts.check()
            part.append(chunk)
            self._received_bytes += len(chunk)
            self._listener.advance(len(chunk))
            window_bytes += len(chunk)
            untold_bytes += len(chunk)
            if untold_bytes >= _PROGRESS_BYTES:  # others shall not give the host up while this goes on
                self._hosts.works(host)
                untold_bytes = 0
            now = time.monotonic()
            if now - window_start >= policy.slow_s:
                if window_bytes < policy.slow_bytes:
                    raise TransientError(f"only {window_bytes:,} bytes came in {policy.slow_s:g} s")
                window_start, window_bytes = now, 0

    def _changed_text(self, answer: Answer) -> str:
        wanted, part = self._wanted, self._part
        return (
            f"{wanted.target.name} of {wanted.source}: the source changed between two attempts: expected "
            f"{part.identity}, got {answer.identity} from {part.url}. Nothing was mixed. To take the new file, "
            f"remove {part.path} and run the same command again."
        )

    def _wants_person(self, refusals: Sequence[tuple[Remote, RefusedError]]) -> bool:
        """Whether a person must ask for the file: nobody must who was given a part of it."""
        return any(error.login for _, error in refusals) and not self._part.size_bytes

    def _refused_text(self, refusals: Sequence[tuple[Remote, RefusedError]]) -> str:
        wanted, part = self._wanted, self._part
        said = "; ".join(f"{remote.host}: {error}" for remote, error in refusals)
        if self._wants_person(refusals):
            return (
                f"{wanted.target.name} of {wanted.source} needs registration ({said}). Get it in a browser from "
                f"{wanted.homepage or refusals[0][0].url} and put file at {wanted.target}, {facts_text(wanted)}; "
                "then run the same command again."
            )
        size = part.identity.size_bytes if part.identity else wanted.size_bytes
        total = "" if size is None else f" of {size:,}"
        kept = f"{part.size_bytes:,}{total} bytes are kept in {part.path}. " if part.size_bytes else ""
        kept, then = ("", "begin anew") if wanted.made_on_request else (kept, "continue")
        return (
            f"{wanted.target.name} of {wanted.source} cannot be downloaded: {said}. {kept}"
            f"Run the same command again to {then}, or put the file at {wanted.target}, {facts_text(wanted)}."
        )


def mismatch(wanted: Wanted, found: dict[str, str], size_bytes: int) -> str | None:
    """What differs from what is known of the file, with expected and got; None where nothing does."""
    if wanted.size_bytes is not None and size_bytes != wanted.size_bytes:
        return f"expected {wanted.size_bytes:,} bytes ({wanted.known_from}), got {size_bytes:,}"
    for name, expected in (("sha256", wanted.sha256), ("md5", wanted.md5)):
        if expected and found[name] != expected:
            return f"expected {name} {expected} ({wanted.known_from}), got {found[name]}"
    return None


def other_bytes(wanted: Wanted, problems: Sequence[str]) -> DownloadError:
    """The error for a file that came whole and wrong, once for every one of ``problems``."""
    changed = len(set(problems)) == 1
    why = "the same bytes every time: the source changed" if changed else "damaged on the way"
    times = f"{len(problems)} downloads, {why}" if len(problems) > 1 else "one download"
    return (SourceChangedError if changed else DownloadError)(
        f"{wanted.target.name} of {wanted.source}: {problems[-1]} ({times}). The bytes are kept as "
        f"{wanted.target}.bad. Run the same command again to try once more, or, where the publisher confirms the new "
        f"file, {wanted.remedy}."
    )


def facts_text(wanted: Wanted) -> str:
    """Size and digest of a file, for an instruction."""
    digest = next(
        (f"{name} {value}" for name, value in (("sha256", wanted.sha256), ("md5", wanted.md5)) if value),
        "sha256 not known",
    )
    size = "size not known" if wanted.size_bytes is None else f"{wanted.size_bytes:,} bytes"
    return f"{digest}, {size}"


def given_up_text(failures: int, error: TransientError) -> str:
    """What was tried ``failures`` times, last with ``error``, in words for a person."""
    times = "once" if failures == 1 else f"{failures} times in a row"
    asked = f", and it asks to wait {error.retry_after_s:g} s" if error.retry_after_s else ""
    return f"{error} ({times}{asked})"
