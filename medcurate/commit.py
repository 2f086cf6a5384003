"""The commit protocol of every artefact: temporary name in the same folder, fsync, rename, fsync folder.

A kill at any instant leaves a file absent or complete. A record that names a file with its digest is
written after the file, by the same protocol. Scratch files may leave out both fsyncs: a loss of power may then leave
a file of that name cut or full of zeros, so whoever reads it must check every byte and be able to make it again.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from medcurate.errors import ConfigError, DiskFull, OutputError

TEMP_PREFIX = ".tmp-"


@contextmanager
def committed(path: Path, mode: int = 0o644, *, scratch: bool = False) -> Iterator[IO[bytes]]:
    """Open ``path`` for writing; it appears under its name only if the body ends without an exception.

    Its permissions are ``mode`` whatever the umask, so that equal datasets are equal for everybody. ``scratch``: what
    a loss of power takes can be found missing and made again, so nobody waits for the disk.
    Raises OutputError when the disk is full, naming the folder and the free bytes.
    """
    with committed_path(path, mode, scratch=scratch) as temporary, open(temporary, "xb") as stream:
        yield stream


@contextmanager
def committed_path(path: Path, mode: int = 0o644, *, scratch: bool = False) -> Iterator[Path]:
    """``committed`` for libraries that write files by name: gives the temporary name, which the body creates."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(error, path) from error
    temporary = _beside(path)
    try:
        yield temporary
        if not scratch:
            with open(temporary, "rb") as stream:
                os.fsync(stream.fileno())
        os.chmod(temporary, mode)
        os.replace(temporary, path)
        if not scratch:
            sync_folder(path.parent)
    except OSError as error:
        raise output_error(error, path) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def committed_folder(path: Path, *, replacing: bool = False) -> Iterator[Path]:
    """An empty folder to put files into, which becomes ``path`` only if the body ends without an exception.

    ``path`` may be an empty folder; with ``replacing`` a full one gives way. Raises OutputError, as ``committed`` does.
    """
    temporary = _beside(path)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for file in temporary.iterdir():
            with open(file, "rb") as stream:
                os.fsync(stream.fileno())
        sync_folder(temporary)
        if replacing and path.exists():
            discard_folder(path)
        os.rename(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise output_error(error, path) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def discard_folder(path: Path) -> None:
    """Remove a folder that is none any more from the first moment on: whoever is killed here leaves no half of it."""
    doomed = _beside(path)
    os.rename(path, doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def _beside(path: Path) -> Path:
    return path.with_name(f"{TEMP_PREFIX}{uuid.uuid4().hex}-{path.name}")


def require_place(path: Path) -> None:
    """Raise OutputError where no file can be committed at ``path``: for before the work that the file is about.

    Nothing is made or touched; a disk that is full by then is met when the file is written.
    """
    above = _nearest(path.parent)
    if path.is_dir():
        raise OutputError(f"cannot write {path}: is a folder. Give the name of a file.")
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise output_error(PermissionError(errno.EACCES, os.strerror(errno.EACCES)), path)


def require_picture_name(option: str, path: Path) -> None:
    """Raise ConfigError for a name that other programs would take for another format than PNG: before the work, too."""
    if path.suffix.lower() != ".png":
        raise ConfigError(f"{option} {path}: the picture is written as .png; end the name in .png")


def require_page_name(option: str, path: Path) -> None:
    """``require_picture_name`` for a page. Raises ConfigError."""
    if path.suffix.lower() not in {".html", ".htm"}:
        raise ConfigError(f"{option} {path}: the page is written as HTML; end the name in .html")


def _nearest(folder: Path) -> Path:
    """What exists of ``folder``: itself, or the nearest of those that it lies in."""
    return next((one for one in (folder, *folder.parents) if os.path.exists(one)), Path())


def output_error(error: OSError, path: Path) -> OutputError:
    """The message for a failed write to ``path``; states the bytes left when the disk is full."""
    above = _nearest(path.parent)
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        free = shutil.disk_usage(above).free
        return DiskFull(
            f"disk full while writing {path}: {free:,} bytes are free there. "
            "Free some space and run the same command again: it continues where it stopped."
        )
    if not above.is_dir():
        return OutputError(
            f"cannot write {path}: {above} is a file, where a folder is needed. Give another place, or move that file "
            "and run the same command again."
        )
    return OutputError(
        f"cannot write {path}: {error.strerror or error}. Mend this and run the same command again."
    )


def sync_folder(folder: Path) -> None:
    """Make a rename inside ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any, mode: int = 0o644) -> None:
    """Commit ``value`` as canonical, indented UTF-8 JSON (sorted keys), so that equal values are equal bytes."""
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    with committed(path, mode) as stream:
        stream.write(text.encode() + b"\n")


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def swept(*folders: Path) -> Iterator[None]:
    """``remove_temporaries`` of ``folders`` before the body and, however it ends, after it.

    Workers that are killed leave what they were writing, and so a full disk full. All of the body's have ended by then.
    """
    for folder in folders:
        remove_temporaries(folder)
    try:
        yield
    finally:
        with suppress(OSError):  # what ended the body is the better message, and the next run sweeps too
            for folder in folders:
                remove_temporaries(folder)


def remove_temporaries(folder: Path) -> None:
    """Remove what killed writers left in ``folder`` (not below it). Only the lock's holder may call this."""
    for path in folder.glob(f"{TEMP_PREFIX}*"):
        path.unlink(missing_ok=True)
