"""Folders that appear whole or not at all, and the files in them: modes that no umask decides, one sync for all."""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medcurate.commit import TEMP_PREFIX, output_error, sync_folder
from medcurate.unpack.record import read_record

FILE_MODE, FOLDER_MODE = 0o644, 0o755
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def fresh_folder(target: Path) -> Iterator[Path]:
    """An empty folder beside ``target`` that is removed at the end unless it has become ``target``.

    It is locked as long as its process lives, so that what killed ones left can be told from others' work.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_left_over(target)
        folder = target.with_name(f"{TEMP_PREFIX}{uuid.uuid4().hex}-{target.name}")
        folder.mkdir()
    except OSError as error:
        raise output_error(error, target) from error
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder
    except OSError as error:
        raise output_error(error, target) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _remove_left_over(target: Path) -> None:
    for folder in sorted(target.parent.glob(f"{TEMP_PREFIX}*")):
        if not folder.name.endswith(f"-{target.name}") or not folder.is_dir():
            continue
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            continue  # another process is at work on it
        finally:
            os.close(lock)


def commit_folder(folder: Path, target: Path) -> None:
    """Make a durable folder visible. An older folder that a record proves ours is replaced."""
    os.chmod(folder, FOLDER_MODE)
    if target.is_dir() and read_record(target) is not None:
        old = target.with_name(f"{TEMP_PREFIX}{uuid.uuid4().hex}-{target.name}")
        os.rename(target, old)
        os.rename(folder, target)
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.rename(folder, target)
    sync_folder(target.parent)


def create(path: str) -> int:
    """A new file, in folders made as needed; modes do not depend on the umask."""
    try:
        file = os.open(path, _CREATE, FILE_MODE)
    except FileNotFoundError:
        make_folders(os.path.dirname(path))
        file = os.open(path, _CREATE, FILE_MODE)
    os.fchmod(file, FILE_MODE)
    return file


def make_folders(folder: str) -> None:
    """Make ``folder`` and those above it as needed. Raises OSError."""
    try:
        os.mkdir(folder)
    except FileNotFoundError:
        make_folders(os.path.dirname(folder))
        os.mkdir(folder)
    except FileExistsError:
        return
    os.chmod(folder, FOLDER_MODE)


def sync_tree(folder: Path) -> None:
    """Make everything below ``folder`` durable at once: a million single fsyncs would take hours.

    Raises OSError where the disk could not take it (Linux tells so since 5.8).
    """
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if not hasattr(libc, "syncfs"):
            os.sync()
        elif libc.syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(folder))
    finally:
        os.close(descriptor)
