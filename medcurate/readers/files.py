"""The one door through which a case's files are opened: inside its root, within limits, digests noted."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from medcurate.errors import CaseRejected, Reason
from medcurate.zips import inside
from medcurate.zips.member import read_member
from medcurate.zips.volumes import BadMember


@dataclass(frozen=True, slots=True)
class InputDigest:
    """What was read: enough to see later, without reading, that it has not changed."""

    sha256: str
    size_bytes: int
    mtime_ns: int


def _open_at_once(path: str, flags: int) -> int:
    """Never wait for the other end of a named pipe."""
    return os.open(path, flags | os.O_NONBLOCK)


@dataclass(slots=True)
class CaseFiles:
    """Reads files below ``root`` and remembers what it read.

    ``volume_bytes`` bounds every decoded array; readers call ``check_claim`` before they allocate.
    """

    root: Path
    volume_bytes: int
    inputs: dict[Path, InputDigest] = field(default_factory=dict)

    def read(self, path: Path) -> bytes:
        """The whole regular file at ``path``, relative to the root, or member of an archive read in place.

        Raises CaseRejected where it cannot be read.
        """
        content, mtime_ns = self._content(path, -1)
        self.inputs[path] = InputDigest(hashlib.sha256(content).hexdigest(), len(content), mtime_ns)
        return content

    def head(self, path: Path, size_bytes: int) -> bytes:
        """Up to ``size_bytes`` from the start of a file that is read whole elsewhere: no digest is noted.

        Raises as ``read``.
        """
        return self._content(path, size_bytes)[0]

    def _content(self, path: Path, size_bytes: int) -> tuple[bytes, int]:
        """(bytes, mtime in ns); ``size_bytes`` as for ``read`` of a stream."""
        text = f"{self.root}/{path}"
        known = inside.known_place(text)
        member = self._member(lambda: known) if known else None
        if member is None:
            try:
                return self._on_disk(path, size_bytes)
            except CaseRejected as error:
                lost = error.reason == Reason.MISSING_FILE and not known
                member = self._member(lambda: inside.mount_at(text)) if lost else None
                if member is None:
                    raise
        return member[0] if size_bytes < 0 else member[0][:size_bytes], member[1]

    def _on_disk(self, path: Path, size_bytes: int) -> tuple[bytes, int]:
        with self.open(path) as stream:
            status = os.fstat(stream.fileno())
            self._check_size(status.st_size)
            try:
                return stream.read(size_bytes), status.st_mtime_ns
            except OSError as error:
                raise CaseRejected(Reason.UNREADABLE, f"file cannot be read: {error.strerror}") from error

    def _member(self, place: Callable[[], inside.Place | None]) -> tuple[bytes, int] | None:
        """What lies at ``place`` inside of an archive that is read in place; None where that is in none."""
        try:
            found = place()
            entry = found and found[0].index.entry(found[1])
            if not found or not entry:
                return None
            self._check_size(entry.size_bytes)
            return read_member(found[0].volumes, entry), found[0].mtime_ns
        except BadMember as error:
            raise CaseRejected(Reason.CORRUPT, f"a member of an archive is damaged: {error}") from error
        except (OSError, ValueError) as error:
            raise CaseRejected(
                Reason.UNREADABLE, f"an archive or its index cannot be read ({type(error).__name__})"
            ) from error

    def _check_size(self, size_bytes: int) -> None:
        if size_bytes > self.volume_bytes:
            raise CaseRejected(Reason.HEADER_SIZE, f"file of {size_bytes} bytes, limit {self.volume_bytes}")

    def open(self, path: Path) -> BinaryIO:
        """The regular file at ``path``, to be read in place; who opens it notes its digest in ``inputs``.

        Raises CaseRejected: MISSING_FILE, UNREADABLE.
        """
        try:
            stream = open(self.root / path, "rb", opener=_open_at_once)  # noqa: SIM115 - the caller closes it
        except FileNotFoundError as error:
            raise CaseRejected(Reason.MISSING_FILE, "file is missing") from error
        except OSError as error:
            raise CaseRejected(Reason.UNREADABLE, f"file cannot be read: {error.strerror}") from error
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            stream.close()
            raise CaseRejected(Reason.UNREADABLE, "not a regular file")
        return stream

    def sibling(self, path: Path, name: str) -> Path:
        """The file that ``path`` refers to as ``name``; refused unless it lies in the folder of ``path``.

        Symbolic links are followed before the check. Raises CaseRejected with OUTSIDE_REFERENCE.
        """
        relative = PurePosixPath(name.replace("\\", "/"))
        target = path.parent / relative
        if relative.is_absolute() or ".." in relative.parts or not self._inside(target, path.parent):
            raise CaseRejected(Reason.OUTSIDE_REFERENCE, "the header refers to a file outside its own folder")
        return target

    def _inside(self, target: Path, folder: Path) -> bool:
        try:
            followed = (self.root / target).resolve()
            # What is a link still is a loop of links, which Python before 3.13 answers with RuntimeError.
            return followed.is_relative_to((self.root / folder).resolve()) and not followed.is_symlink()
        except (ValueError, OSError, RuntimeError):  # a NUL, a name too long
            return False

    def check_claim(self, claimed_bytes: int, holdable_bytes: int) -> None:
        """Refuse a header that claims more than the limit, or more than the stored data can hold."""
        if claimed_bytes > self.volume_bytes:
            raise CaseRejected(
                Reason.HEADER_SIZE,
                "the header claims more bytes than the limit",
                {"measure": claimed_bytes, "bound": self.volume_bytes},
            )
        if claimed_bytes > holdable_bytes:
            raise CaseRejected(
                Reason.HEADER_SIZE,
                "the header claims more bytes than the file can hold",
                {"measure": claimed_bytes, "bound": holdable_bytes},
            )
