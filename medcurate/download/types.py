"""What downloads are about: the file wanted, what a server says it is, how patient one is, what went wrong."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from medcurate.errors import MedcurateError
from medcurate.storage import without_user

# Signatures of S3, Google's store, CloudFront and Azure with what is made anew with each, and what is called a secret.
_SIGNED = re.compile(
    r"(?<=[?&])(x-(amz|goog)-[^=&#]*|awsaccesskeyid|googleaccessid|key-pair-id|expires|policy|pwd|apikey|jwt|private_link"
    r"|[^=&#]*(token|secret|passw(or)?d)|([^=&#]*[-_])?(signature|sig|key|auth))=[^&#]*&?",
    re.IGNORECASE,
)


class DownloadError(MedcurateError):
    """A file cannot be had now. What came of it is kept; the same command continues."""


class SourceChangedError(DownloadError):
    """A server has other bytes than those declared, recorded or begun; nothing is mixed."""


class NeedsRegistrationError(DownloadError):
    """A server wants a person to log in or to agree first; the text says what to put where."""


def without_secrets(url: str) -> str:
    """``url`` as it may be shown and recorded: no name and password before its host, no signature in its query."""
    return _SIGNED.sub("", without_user(url)).rstrip("?&")


def raise_all(errors: Sequence[MedcurateError]) -> None:
    """Raises the one error, or one with the messages of all: of their kind where it is one, else DownloadError."""
    if len(errors) == 1:
        raise errors[0]
    if errors:
        kinds = {type(error) for error in errors}
        kind = kinds.pop() if len(kinds) == 1 else DownloadError
        raise kind("\n".join(dict.fromkeys(str(error) for error in errors)))


class TransientError(Exception):
    """One attempt failed and another may not.

    ``retry_after_s``: how long the server asks to wait; ``unreachable``: whether there was no connection to it at all,
    whatever file was asked for.
    """

    def __init__(self, detail: str, retry_after_s: float | None = None, *, unreachable: bool = False) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s
        self.unreachable = unreachable


class OtherRangeError(TransientError):
    """The answer to a request for the rest of a file is not that rest."""


class RefusedError(Exception):
    """This place will not give the file, however often it is asked; a mirror may.

    ``login``: a person may be let in after all.
    """

    def __init__(self, detail: str, *, login: bool = False) -> None:
        super().__init__(detail)
        self.login = login


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How patient a download is. Waits are the same in every run: nothing is drawn at random."""

    connect_s: float = 10.0
    stall_s: float = 30.0  # without a single byte
    slow_s: float = 60.0  # in so long a time at least ``slow_bytes`` must come
    slow_bytes: int = 1 << 16
    first_wait_s: float = 1.0  # doubled with every failure in a row
    longest_wait_s: float = 16.0
    patience_s: float = 45.0  # without progress, over all mirrors of a file; then it is an error
    host_patience_s: float = (
        300.0  # after a first such error, without a byte from its host; then no file waits
    )
    whole_tries: int = 2  # how often a file is fetched whole before its digest is believed to be another
    per_host: int = 2  # connections at a time

    def wait_s(self, failures: int, retry_after_s: float | None) -> float:
        """Seconds to wait after the ``failures``-th failure in a row (from 1), no less than the server asks."""
        backoff = min(self.first_wait_s * 2.0 ** (failures - 1), self.longest_wait_s)
        return max(backoff, retry_after_s or 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One file to have. Digests are hexadecimal; None is not known.

    ``known_from``: where the digest was read ("declared", "recorded on 2026-01-31 in …"), for messages;
    ``made_on_request``: whether every answer is another object, so that no part of one continues another.
    """

    source: str
    target: Path
    homepage: str = ""
    sha256: str | None = None
    md5: str | None = None
    size_bytes: int | None = None
    known_from: str = "declared"
    made_on_request: bool = False

    @property
    def page(self) -> bool:
        """Whether the file itself is a web page; else a page in its place is a login form or an error."""
        return self.target.suffix.lower() in {".html", ".htm", ".xhtml"}

    @property
    def remedy(self) -> str:
        """How another file is let in."""
        recorded = self.known_from.startswith("recorded")
        return "remove its entry from that record" if recorded else "mend the declaration"

    @property
    def verifiable(self) -> bool:
        """Whether a digest decides about the bytes, wherever they came from."""
        return bool(self.sha256 or self.md5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What a server says about an object (RFC 9110, sections 8.6 and 8.8); "" and None where it is silent."""

    etag: str = ""
    last_modified: str = ""
    size_bytes: int | None = None

    @property
    def resumable(self) -> bool:
        """Whether a later answer can be recognised as the same object."""
        return self.size_bytes is not None and bool(self.etag or self.last_modified)

    def same_as(self, other: Identity) -> bool:
        """Whether both are one object, as far as anything was said; the date counts where no tag is given."""
        tagged = bool(self.etag or other.etag)
        versions_equal = self.etag == other.etag if tagged else self.last_modified == other.last_modified
        return versions_equal and self.size_bytes == other.size_bytes

    def __str__(self) -> str:
        size = "unknown size" if self.size_bytes is None else f"{self.size_bytes:,} bytes"
        version = self.etag or self.last_modified
        return f"{size}, version {version}" if version else size


@dataclass(frozen=True, slots=True)
class Answer:
    """An open body: its object, the offset of its first byte, its bytes.

    ``ends_marked``: whether a body that is cut can be told from a whole one. ``sha256``: of the whole object,
    hexadecimal, where the server states it. ``encoding``: what the server says it packed the bytes by; "" for nothing.
    """

    identity: Identity
    offset: int
    chunks: Iterator[bytes]
    ends_marked: bool = True
    sha256: str | None = None
    encoding: str = ""


class Remote(Protocol):
    """One place that a file can be had from."""

    @property
    def url(self) -> str:
        """What messages and records call it; without secrets."""

    @property
    def host(self) -> str:
        """Whom connections are counted for."""

    def open(self, offset: int, known: Identity | None) -> AbstractContextManager[Answer]:
        """Ask for the bytes from ``offset`` on; the answer may begin at 0 instead.

        ``known``: the object that the first ``offset`` bytes are of. Raises TransientError, RefusedError.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A file that was fetched and checked."""

    target: Path
    url: str
    etag: str
    sha256: str
    size_bytes: int
    received_bytes: int  # over the network, by this command
