"""The unfinished file: ``<name>.part`` with ``<name>.part.json`` beside it, which says what it is a part of.

The state is written before the first byte, and bytes of another object are removed before its state is, so
that a kill at any instant leaves a part whose bytes are all of the object that its state names.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import IO

from medcurate.commit import output_error, sync_folder, write_json
from medcurate.download.digest import FollowingDigest
from medcurate.download.types import Identity
from medcurate.errors import DiskFull, OutputError

ALGORITHMS = ("sha256", "md5")


class Part:
    """The part of ``target``; opened for the time of a download by its only writer."""

    def __init__(self, target: Path, *, md5: bool = False) -> None:
        self.target = target
        self.path = target.with_name(f"{target.name}.part")
        self._state_path = target.with_name(f"{target.name}.part.json")
        self._algorithms = ALGORITHMS if md5 else ALGORITHMS[:1]
        self._stream: IO[bytes] | None = None
        self._digest: FollowingDigest | None = None
        self.url, self.identity = self._read_state()
        self.size_bytes = self.path.stat().st_size if self.identity and self.path.exists() else 0

    @property
    def whole(self) -> bool:
        """Whether every byte that its server announced is there."""
        return self.identity is not None and self.identity.size_bytes == self.size_bytes

    def restart(self, url: str, identity: Identity) -> None:
        """Drop all bytes; from now on the part is of ``identity``. Raises DiskFull, OutputError."""
        self._stop()
        self.url, self.identity, self.size_bytes = url, identity, 0
        try:
            self.target.parent.mkdir(parents=True, exist_ok=True)
            open(self.path, "wb").close()
        except OSError as error:
            raise output_error(error, self.path) from error
        self.check_room()
        write_json(
            self._state_path,
            {
                "url": url,
                "etag": identity.etag,
                "last_modified": identity.last_modified,
                "size_bytes": identity.size_bytes,
            },
        )

    def check_room(self) -> None:
        """Raises DiskFull where the missing bytes have no room."""
        missing = self._missing_bytes()
        free = shutil.disk_usage(self.target.parent).free
        if missing is not None and missing > free:
            raise DiskFull(
                f"{self.target}: needs {missing:,} more bytes, but {free:,} are free in {self.target.parent}. "
                "Free some space, or choose another folder with --data, and run the same command again."
            )

    def append(self, chunk: bytes) -> None:
        """Write ``chunk`` behind what is there. Raises DiskFull, OutputError."""
        if self._stream is None:
            self._stream = self.path.open("ab", buffering=0)
        view = memoryview(chunk)
        try:
            while view:
                count = self._stream.write(view)
                self.size_bytes += count
                view = view[count:]
        except OSError as error:
            raise self._write_error(error) from error
        self._following().reached(self.size_bytes)

    def digests(self) -> dict[str, str]:
        """Digests of all bytes, hexadecimal, by algorithm. Raises OutputError where they cannot be read."""
        if not self.path.exists():  # a file of no bytes
            self.restart(self.url, self.identity or Identity())
        following = self._following()
        try:
            return following.finish()
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be read back: {error}") from error
        finally:
            self._digest = None

    def commit(self) -> None:
        """Give the part its name, durably. Raises OutputError."""
        self._stop()
        try:
            with open(self.path, "rb") as stream:
                os.fsync(stream.fileno())
            os.chmod(self.path, 0o644)
            os.replace(self.path, self.target)
            sync_folder(self.target.parent)
            self._state_path.unlink(missing_ok=True)
        except OSError as error:
            raise output_error(error, self.target) from error

    def set_aside(self) -> Path:
        """Keep the bytes as ``<name>.bad``, for whoever wants to look, and begin anew."""
        self._stop()
        bad = self.target.with_name(f"{self.target.name}.bad")
        os.replace(self.path, bad)
        self._state_path.unlink(missing_ok=True)
        self.url, self.identity, self.size_bytes = "", None, 0
        return bad

    def adopt(self, path: Path, url: str) -> None:
        """Take a whole file that another program wrote. Raises OutputError."""
        self._stop()
        self.size_bytes = path.stat().st_size
        self.url, self.identity = url, Identity(size_bytes=self.size_bytes)
        try:
            os.replace(path, self.path)
        except OSError as error:
            raise output_error(error, self.path) from error

    def close(self) -> None:
        """Stop writing and hashing; the bytes stay, and nothing stays of no bytes."""
        self._stop()
        if not self.size_bytes and self.path.exists():
            self.path.unlink()
            self._state_path.unlink(missing_ok=True)

    def _stop(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        if self._digest is not None:
            self._digest.abandon()
            self._digest = None

    def _following(self) -> FollowingDigest:
        if self._digest is None:
            self._digest = FollowingDigest(self.path, self._algorithms)
            self._digest.reached(self.size_bytes)
        return self._digest

    def _read_state(self) -> tuple[str, Identity | None]:
        """Nothing where there is no state, or none that can be read: then the bytes are not used."""
        try:
            facts = json.loads(self._state_path.read_bytes())
            identity = Identity(
                etag=str(facts["etag"]),
                last_modified=str(facts["last_modified"]),
                size_bytes=None if facts["size_bytes"] is None else int(facts["size_bytes"]),
            )
            return str(facts["url"]), identity
        except (OSError, ValueError, KeyError, TypeError, OverflowError):
            return "", None

    def _missing_bytes(self) -> int | None:
        size = self.identity.size_bytes if self.identity else None
        return None if size is None else size - self.size_bytes

    def _write_error(self, error: OSError) -> OutputError:
        missing = self._missing_bytes()
        if error.errno not in {errno.ENOSPC, errno.EDQUOT} or missing is None:
            return output_error(error, self.path)
        return DiskFull(
            f"disk full while writing {self.path}: {missing:,} more bytes are needed. "
            "Free some space and run the same command again: it continues where it stopped."
        )
