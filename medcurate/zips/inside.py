"""Paths that lead into an archive read in place: one set of functions for files on disk and inside of zips.

A folder that holds an index (``INDEX_FILE``) stands for what its archive holds: ``folder/images/a.png`` need not
exist on disk. Everything else is the file system's business.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from medcurate.commit import sha256_file
from medcurate.zips.index import Index
from medcurate.zips.member import read_member
from medcurate.zips.volumes import Volumes

INDEX_FILE = ".zip-index"


class Facts(NamedTuple):
    """What is known of a file without reading it; ``mtime_ns`` of a member: the newest of its archive's parts."""

    size_bytes: int
    mtime_ns: int


class Mount:
    """An archive read in place, open as long as the process lives; safe for threads and after a fork."""

    def __init__(self, folder: Path, stamp: tuple[int, int]) -> None:
        self.stamp = stamp  # of the index file: inode, time
        self.index = Index(folder / INDEX_FILE)
        self.volumes = Volumes([folder / name for name in self.index.facts["parts"]])
        self.mtime_ns = max(path.stat().st_mtime_ns for path in self.volumes.paths)

    def read(self, parts: Sequence[str], limit_bytes: int) -> bytes:
        """A member's bytes, its CRC checked. Raises FileNotFoundError, BadMember, OverflowError."""
        entry = self.index.entry(parts)
        if entry is None:
            raise FileNotFoundError("/".join(parts))
        if entry.size_bytes > limit_bytes:
            raise OverflowError(entry.size_bytes)
        return read_member(self.volumes, entry)


Place = tuple[Mount, tuple[str, ...]]  # archive, components of a path inside of it
_Inner = tuple[str, Mount, tuple[str, ...]]  # index file, archive, components of a folder inside of it
_mounts: dict[str, Mount] = {}  # by folder on disk
_inner: dict[str, _Inner] = {}  # by folder, on disk or not


def known_place(path: str) -> Place | None:
    """``mount_at`` where the folder of ``path`` is known to be inside of an archive; None says nothing."""
    folder, name = os.path.split(path)
    found = known_at(folder)
    return found and (found[1], (*found[2], name))


def mount_at(path: Path | str) -> Place | None:
    """(archive, components of the path inside of it) where ``path`` leads into one; else None.

    Raises OSError or ValueError where its index or archive cannot be read.
    """
    parent, name = os.path.split(path)
    for folder, inner in ((parent, (name,)), (str(path), ())):
        found = _mounted(folder)
        if found is not None:
            return found[0], (*found[1], *inner)
    return None


def _mounted(folder: str) -> Place | None:
    """The archive that ``folder`` is or lies in."""
    found = known_at(folder)
    if found is None and (found := _searched(folder)):
        _inner[folder] = found
    return found and (found[1], found[2])


def known_at(folder: str) -> _Inner | None:
    """What was found for ``folder`` before, if its index is still the same."""
    found = _inner.get(folder)
    return found if found and _stamp(found[0]) == found[1].stamp else None


def _stamp(index: str) -> tuple[int, int] | None:
    try:
        status = os.stat(index)
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _searched(folder: str) -> _Inner | None:
    inner: list[str] = []
    while folder and not os.path.isdir(folder):
        above, name = os.path.split(folder)
        if above == folder:
            return None
        inner.append(name)
        folder = above
    index = os.path.join(folder, INDEX_FILE)
    stamp = _stamp(index)
    if stamp is None:
        return None
    mount = _mounts.get(folder)
    if mount is None or mount.stamp != stamp:
        mount = _mounts[folder] = Mount(Path(folder), stamp)
    return index, mount, tuple(reversed(inner))


def is_folder(path: Path) -> bool:
    """Whether ``path`` is a folder, on disk or inside of an archive."""
    if os.path.isdir(path):
        return True
    found = mount_at(path)
    return found is not None and found[0].index.is_folder(found[1])


def exists(path: Path | str) -> bool:
    """Whether ``path`` is a file or folder, on disk or inside of an archive."""
    if os.path.exists(path):
        return True
    found = mount_at(path)
    return found is not None and (
        found[0].index.is_folder(found[1]) or found[0].index.entry(found[1]) is not None
    )


def is_mounted(folder: Path) -> bool:
    """Whether a folder on disk stands for an archive."""
    return os.path.exists(folder / INDEX_FILE)


def names(folder: Path) -> Sequence[str] | None:
    """Sorted names of files and folders directly in a folder inside of an archive; None for what is on disk."""
    found = _mounted(str(folder))
    return None if found is None else found[0].index.names(found[1])


def listing(folder: Path) -> tuple[list[str], list[str]] | None:
    """(files, folders) directly in a folder inside of an archive, each sorted; None for what is on disk only."""
    found = _mounted(str(folder))
    return None if found is None else found[0].index.listing(found[1])


def facts(path: Path) -> Facts:
    """Size and time of a file, on disk or inside of an archive. Raises OSError."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        found = mount_at(path)
        entry = found and found[0].index.entry(found[1])
        if not found or not entry:
            raise
        return Facts(entry.size_bytes, found[0].mtime_ns)
    return Facts(status.st_size, status.st_mtime_ns)


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes in hexadecimal, on disk or inside of an archive. Raises OSError, BadMember."""
    if os.path.exists(path):
        return sha256_file(path)
    return hashlib.sha256(read(path, sys.maxsize)).hexdigest()


def read(path: Path, limit_bytes: int) -> bytes:
    """All bytes of a regular file, on disk or inside of an archive.

    Raises OSError, BadMember, and OverflowError for what is larger than ``limit_bytes``.
    """
    try:
        with open(path, "rb") as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size > limit_bytes:
                raise OverflowError(status.st_size)
            return stream.read()
    except (FileNotFoundError, NotADirectoryError):
        found = mount_at(path)
        if found is None:
            raise
        return found[0].read(found[1], limit_bytes)
