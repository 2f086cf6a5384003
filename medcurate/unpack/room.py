"""Whether a disk has room, asked before it is filled."""

from __future__ import annotations

import os
from pathlib import Path

from medcurate.errors import DiskFull
from medcurate.progress import amount_text


def room_bytes(folder: Path) -> int:
    """What may still be written there, in bytes."""
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def check_room(folder: Path, size_bytes: int, files: int) -> None:
    """Raise DiskFull where ``size_bytes`` in ``files`` files do not fit, naming what is needed and free."""
    status = os.statvfs(folder)
    free_bytes = status.f_bavail * status.f_frsize
    needed = size_bytes + files * status.f_frsize // 2  # a file's last block is half empty on average
    if needed > free_bytes:
        raise DiskFull(
            f"{folder.parent}: unpacking needs {amount_text(needed, 'B')}, but {amount_text(free_bytes, 'B')} are "
            "free there. Free some space and run the same command again: it continues where it stopped."
        )
    if status.f_files and files > status.f_favail:
        raise DiskFull(
            f"{folder.parent}: unpacking makes {files:,} files, but {status.f_favail:,} more fit there (inodes). "
            "Use a file system with more and run the same command again: it continues where it stopped."
        )
