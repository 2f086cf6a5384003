"""Where a dataset's files are: one small layer over fsspec for folders and for URLs (file, https, s3).

A ``Location`` is only its URL, so it can be pickled, compared and sent to a worker; file systems are made
on use and cached by fsspec per process. Every range that is read is checked for its length: servers that
ignore ``Range`` answer with the whole object and no error.
"""

from __future__ import annotations

import io
import os
import re
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from ipaddress import ip_address
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from medcurate.errors import ConfigError, MedcurateError

if TYPE_CHECKING:
    from collections.abc import Iterator

PROTOCOLS = ("file", "https", "s3")  # and http to this machine itself
STALL_SECONDS = 60.0  # without a byte from an HTTP server, after which a request has failed
_USER = re.compile(r"(?<=://)[^/?#\s]*@")
_CLIENTS = ("aiohttp", "botocore", "aiobotocore", "fsspec", "s3fs")  # whose errors are no OSError


class StorageError(MedcurateError):
    """A file cannot be read now: server, network or disk. The same command may be tried again."""


class RangesIgnoredError(StorageError):
    """The server answers with the whole object where a part was asked for; trying again does not help."""


class MissingFileError(StorageError):
    """There is no such file."""


@dataclass(frozen=True)
class Location:
    """A file or folder, by absolute path (local) or URL without a trailing slash (remote)."""

    url: str

    def __str__(self) -> str:
        """The place as it may be shown: without a name and a password before its host."""
        return without_user(self.url)

    @property
    def is_local(self) -> bool:
        """Whether this is a path of this machine."""
        return "://" not in self.url

    @property
    def path(self) -> Path:
        """The local path. Raises ConfigError for a remote location."""
        if not self.is_local:
            raise ConfigError(f"{self}: this needs a local folder; copy the dataset here first.")
        return Path(self.url)

    def member(self, name: str) -> Location:
        """The file ``name`` (relative, with "/") below this folder."""
        return Location(f"{self.url}/{name}")

    def exists(self) -> bool:
        """Whether there is a file (locally also a folder). Raises StorageError where nobody answers."""
        if self.is_local:
            return os.path.exists(self.url)
        try:
            with _named(self.url):
                self._filesystem.info(self.url)
        except MissingFileError:
            return False
        return True

    @cached_property
    def size_bytes(self) -> int:
        """Size of the file; asked once. Raises StorageError."""
        with _named(self.url):
            size = os.path.getsize(self.url) if self.is_local else self._filesystem.info(self.url)["size"]
        if size is None:
            raise StorageError(f"{self}: the server does not tell the size; copy the file here first.")
        return int(size)

    def open(self) -> IO[bytes]:
        """Open for binary reading, seekable; remote files fetch only the ranges that are read."""
        with _named(self.url):
            if self.is_local:
                return open(self.url, "rb")
            return cast("IO[bytes]", io.BufferedReader(RangeFile(self), 1 << 16))

    def read_range(self, offset: int, size: int) -> bytes:
        """Exactly ``size`` bytes from ``offset``. Raises StorageError for fewer, RangesIgnoredError for more."""
        with _named(self.url):
            if self.is_local:
                with open(self.url, "rb") as stream:
                    data = os.pread(stream.fileno(), size, offset)
            else:
                data = bytes(self._filesystem.cat_file(self.url, start=offset, end=offset + size))
        if len(data) != size:
            kind = RangesIgnoredError if len(data) > size else StorageError
            raise kind(
                f"{self}: {len(data):,} instead of {size:,} bytes at offset {offset:,}: "
                "the file is cut, or its server ignores byte ranges."
            )
        return data

    @property
    def _filesystem(self) -> Any:
        return _filesystem(urlsplit(self.url).scheme)


class RangeFile(io.RawIOBase):
    """A seekable raw file over ``Location.read_range``: no read-ahead, so a reader pays for what it asks."""

    def __init__(self, location: Location) -> None:
        super().__init__()
        self._location = location
        self._size = location.size_bytes
        self._position = 0

    def readable(self) -> bool:
        """Always true."""
        return True

    def seekable(self) -> bool:
        """Always true."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to ``offset`` bytes from the start, the current position or the end."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(base + offset, 0)
        return self._position

    def tell(self) -> int:
        """The current position in bytes."""
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer`` as far as the file reaches, in one request."""
        size = min(len(buffer), max(self._size - self._position, 0))
        if size:
            buffer[:size] = self._location.read_range(self._position, size)
        self._position += size
        return size


def without_user(text: str) -> str:
    """A URL, or a text with URLs, without a name and a password before their hosts."""
    return _USER.sub("", text)


def locate(dataset: str | Path) -> Location:
    """The location of a path or URL. Raises ConfigError for an unknown protocol or a missing package."""
    text = str(dataset)
    shown = without_user(text)
    try:
        parts = urlsplit(text if "://" in text else "")
    except ValueError as error:
        raise ConfigError(f"{shown}: is no URL") from error
    scheme = parts.scheme
    if not scheme:
        return Location(os.path.abspath(os.path.expanduser(text)))
    if scheme == "http" and not is_loopback(parts.hostname or ""):
        raise ConfigError(
            f"{shown}: over http:// anybody on the way can read and change the data; give the https:// address, or "
            "copy the dataset here."
        )
    if scheme not in {*PROTOCOLS, "http"}:
        raise ConfigError(f'{shown}: protocol "{scheme}" is not supported; known: {", ".join(PROTOCOLS)}')
    if scheme == "file":
        return Location(os.path.abspath(parts.path))
    _filesystem(scheme)
    return Location(text.rstrip("/"))


def is_loopback(host: str) -> bool:
    """Whether ``host``, by name or address, is this machine itself: what it is sent travels over no wire."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _filesystem(scheme: str) -> Any:
    import fsspec

    try:
        return fsspec.filesystem(scheme, **_options(scheme))
    except ImportError as error:
        raise ConfigError(
            f'{scheme}:// needs a package that is not installed: pip install "medcurate[remote]"'
        ) from error


def _options(scheme: str) -> dict[str, Any]:
    if scheme in {"http", "https"}:
        return {"client_kwargs": {"timeout": _http_timeout()}}
    return {"anon": reads_anonymously()} if scheme == "s3" else {}


@cache
def reads_anonymously() -> bool:
    """Whether botocore finds no credentials: what is open to everybody is then read without; asked once.

    Raises ConfigError where AWS's or a proxy's settings are wrong, ImportError where botocore is not installed.
    """
    from botocore.exceptions import BotoCoreError, ProxyConnectionError  # type: ignore[import-untyped]
    from botocore.session import get_session  # type: ignore[import-untyped]

    try:
        return get_session().get_credentials() is None
    except ProxyConnectionError as error:  # a machine of AWS is asked for credentials of its own
        raise ConfigError(f"s3://: {error}. Mend HTTP_PROXY, or unset it where there is no proxy.") from error
    except BotoCoreError as error:
        raise ConfigError(
            f"s3://: {error}. Mend AWS_PROFILE, or the profiles in AWS's own settings."
        ) from error


def _http_timeout() -> Any:
    """Silence ends a request, not its length: aiohttp's own limit is five minutes for all of it."""
    import aiohttp

    return aiohttp.ClientTimeout(total=None, sock_connect=STALL_SECONDS, sock_read=STALL_SECONDS)


@contextmanager
def _named(url: str) -> Iterator[None]:
    """Give every failure of a file system the file's name; server errors are no OSError in aiohttp."""
    place = without_user(url)
    try:
        yield
    except MedcurateError:
        raise
    except FileNotFoundError as error:
        cause = error.__cause__  # fsspec's HTTP says "not found" also when nobody answered
        if cause is not None and getattr(cause, "status", None) not in {404, 410}:
            raise StorageError(f"{place}: cannot be read: {without_user(str(cause))}") from error
        raise MissingFileError(f"{place}: no such file") from error
    except Exception as error:
        if not isinstance(error, OSError) and not type(error).__module__.startswith(_CLIENTS):
            raise
        why = without_user(str(error)) or type(error).__name__
        raise StorageError(f"{place}: cannot be read: {why}") from error
