"""One writer for a folder: a lock that vanishes with its holder, however that ends."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from medcurate.commit import output_error
from medcurate.errors import OutputError

LOCK_FILE = "lock"

# What flock(2) says on file systems without locks: NFS without a lock manager, Lustre mounted noflock, FUSE.
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})

_GLANCE_SECONDS = 0.1  # much longer than ``holder`` needs


@contextmanager
def locked(folder: Path, purpose: str) -> Iterator[None]:
    """Hold ``folder`` (made if need be) for this process alone; ``purpose`` is what others are told.

    Raises OutputError at once when it is held already, naming the holder, or when the file system has no
    locks. The kernel drops the lock when the process ends, also by SIGKILL. The file stays: removing it
    would let two processes lock two files of the same name. Started programs do not inherit the lock; a
    plain ``os.fork`` child would, which is why engines fork workers from a program of their own.
    """
    path = folder / LOCK_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise output_error(error, path) from error
    try:
        _take(descriptor, path)
        _describe(descriptor, purpose)
        yield
    finally:
        os.close(descriptor)


def holder(folder: Path) -> str | None:
    """Who holds ``folder`` now, in words; None when nobody does, or can (no file, no locks)."""
    try:
        with open(folder / LOCK_FILE, "rb") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return _who(stream.read())
    except OSError:
        return None
    return None


def _take(descriptor: int, path: Path) -> None:
    try:
        _flock(descriptor)
    except BlockingIOError as error:
        raise OutputError(_held_text(path, os.pread(descriptor, 4096, 0))) from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise output_error(error, path) from error
        raise OutputError(
            f"{path}: this file system has no file locks ({error.strerror}), so a second process could not "
            "be kept out. Choose a folder on a local disk, or have the file system mounted with locks."
        ) from error


def _flock(descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        time.sleep(_GLANCE_SECONDS)  # ``holder`` may have been looking
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _describe(descriptor: int, purpose: str) -> None:
    holder = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "purpose": purpose,
    }
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(holder, ensure_ascii=False).encode() + b"\n", 0)


def _held_text(path: Path, content: bytes) -> str:
    return (
        f"{path.parent} is in use by {_who(content)}. Wait for it to end, or stop it. "
        "The lock of a dead process never needs to be removed."
    )


def _who(content: bytes) -> str:
    try:
        facts = json.loads(content)
        return f"process {facts['pid']} on {facts['host']} ({facts['purpose']}) since {facts['started']}"
    except (ValueError, KeyError, TypeError):  # it is just being written
        return "another process"
