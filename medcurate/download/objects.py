"""Objects of S3-compatible stores, through fsspec: ranges of one object, whose tag is pinned."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from medcurate.download.types import Answer, Identity, RefusedError, TransientError
from medcurate.errors import ConfigError
from medcurate.storage import reads_anonymously

_BLOCK_BYTES = 8 << 20
_CLIENTS = frozenset({"aiohttp", "aiobotocore", "botocore", "fsspec", "s3fs"})  # whose errors are no OSError


def s3_filesystem(connect_s: float, stall_s: float) -> Any:
    """The file system of s3:// URLs: with the credentials that botocore finds, else as an anonymous reader.

    Raises RefusedError where s3fs is not installed, or AWS's or a proxy's settings are wrong: another place may
    have the file.
    """
    import fsspec

    try:
        found = fsspec.filesystem(
            "s3",
            anon=reads_anonymously(),
            config_kwargs={
                "connect_timeout": connect_s,
                "read_timeout": stall_s,
                "retries": {"max_attempts": 0},
            },
        )
    except ImportError as error:
        raise RefusedError(
            's3:// needs a package that is not installed: pip install "medcurate[remote]"'
        ) from error
    except ConfigError as error:
        raise RefusedError(str(error).removesuffix(".")) from error
    found.retries = 1  # attempts and waits are the transfer's own
    return found


@dataclass(frozen=True, slots=True)
class ObjectFile:
    """A file behind a URL that an fsspec file system reads by ranges.

    ``filesystem`` gives it when the file is asked for: what its library costs, and whether it is there, matters
    to nobody who gets the file elsewhere.
    """

    filesystem: Callable[[], Any]
    url: str

    @property
    def host(self) -> str:
        """The bucket."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"

    @contextmanager
    def open(self, offset: int, known: Identity | None) -> Iterator[Answer]:
        """See ``types.Remote``. The size and the tag are asked again before the last block."""
        filesystem = self.filesystem()
        identity = self._identity(filesystem)
        start = offset if known is not None and known.same_as(identity) else 0
        yield Answer(identity, start, self._blocks(filesystem, start, identity))

    def _blocks(self, filesystem: Any, start: int, identity: Identity) -> Iterator[bytes]:
        size = identity.size_bytes or 0
        for first in range(start, size, _BLOCK_BYTES):
            last = min(first + _BLOCK_BYTES, size)
            with _blamed():
                data = bytes(filesystem.cat_file(self.url, start=first, end=last))
            if len(data) != last - first:
                raise TransientError(f"{len(data):,} instead of {last - first:,} bytes at offset {first:,}")
            if last == size and not identity.same_as(self._identity(filesystem)):
                raise TransientError("the object changed while it was read")
            yield data

    def _identity(self, filesystem: Any) -> Identity:
        with _blamed():
            facts = filesystem.info(self.url, refresh=True)
        if facts.get("type") == "directory":  # of no bytes, which would pass for an empty file
            raise RefusedError("it is a folder, not a file; write the whole path of the object")
        return Identity(
            etag=str(facts.get("ETag") or ""),
            last_modified=str(facts.get("LastModified") or ""),
            size_bytes=None if facts.get("size") is None else int(facts["size"]),
        )


@contextmanager
def _blamed() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise RefusedError("no such object") from error
    except PermissionError as error:
        raise RefusedError(f"access denied: {error}", login=True) from error
    except Exception as error:
        if not isinstance(error, OSError) and type(error).__module__.split(".")[0] not in _CLIENTS:
            raise
        raise TransientError(str(error) or type(error).__name__) from error
