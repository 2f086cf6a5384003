"""Whether a source's files are what is known of them; each is read once and then remembered by size and time."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medcurate.commit import write_json
from medcurate.config.source import Source, SourceFile
from medcurate.download.digest import file_digests
from medcurate.download.http import PAGE_BYTES, looks_like_page
from medcurate.download.instructions import origin_text
from medcurate.download.lockfile import LockFile
from medcurate.download.run import wanted_of
from medcurate.download.transfer import mismatch
from medcurate.download.types import Wanted
from medcurate.errors import ConfigError

STAMP_FILE = ".verified.json"


class Digests:
    """Digests of files by what they are on the disk, so that a command reads none twice, whatever its names.

    A file of another size or time than when it was read is another file.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[int, ...], dict[str, str]] = {}

    def note(self, path: Path, digests: Mapping[str, str]) -> None:
        """Remember digests, hexadecimal, by algorithm: somebody has read the file."""
        self._known.setdefault(_on_disk(path), {}).update(digests)

    def of(self, path: Path, *, md5: bool) -> dict[str, str]:
        """SHA-256 and, if asked for, MD5; the file is read where one of them is not known. Raises OSError."""
        wanted = {"sha256", "md5"} if md5 else {"sha256"}
        if not wanted <= self._known.get(_on_disk(path), {}).keys():
            self.note(path, file_digests(path, md5=md5))
        return dict(self._known[_on_disk(path)])


def _on_disk(path: Path) -> tuple[int, ...]:
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def verify(source: Source, folder: Path, digests: Digests) -> dict[str, str]:
    """Compare the files that are there with what is declared or recorded; record those of which nothing is.

    Returns the SHA-256, hexadecimal, by path. Raises ConfigError with a line for every file that differs.
    """
    lock, stamps = LockFile(folder), _read(folder)
    writable = os.access(folder, os.W_OK)
    current: dict[str, dict[str, Any]] = {}
    problems = []
    for file in source.files:
        path = folder / file.path
        if not path.exists():
            continue
        stamp = _stamp(path, file, stamps.get(file.path, {}), digests)
        wanted = wanted_of(source, folder, file, lock)
        problem = mismatch(wanted, stamp, stamp["size_bytes"]) if stamp["sha256"] else _size_text(file, stamp)
        problem = problem or _page_text(wanted)
        if problem:
            problems.append(f"{path}: {problem}")
            continue
        current[file.path] = stamp
        if writable and not file.sha256:
            lock.put(
                file.path,
                sha256=stamp["sha256"],
                size_bytes=stamp["size_bytes"],
                url=origin_text(file.origin),
            )
    if writable:
        lock.settle()
    if problems:
        raise ConfigError(
            "\n".join(problems)
            + "\nNothing was deleted. Remove what is wrong and run the same command again, "
            f'or mend the declaration in the source "{source.id}"; of what was recorded, remove the entry from that '
            "record where the publisher confirms the new file."
        )
    if current != stamps and writable:
        write_json(folder / STAMP_FILE, current)
    return {name: stamp["sha256"] for name, stamp in current.items()}


def _stamp(path: Path, file: SourceFile, before: Mapping[str, Any], digests: Digests) -> dict[str, Any]:
    """Size, time and digests of a file; "" as SHA-256 where its size is wrong already, so that it is not read."""
    status = path.stat()
    facts = {"size_bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
    if file.size_bytes is not None and status.st_size != file.size_bytes:
        return {**facts, "sha256": ""}
    remembered = {name: before.get(name) for name in facts} == facts and bool(before.get("sha256"))
    if remembered and (before.get("md5") or not file.md5):
        return dict(before)
    return {**facts, **digests.of(path, md5=file.md5 is not None)}


def _page_text(wanted: Wanted) -> str | None:
    """What is wrong with a page that somebody saved instead of the file: it must not become what is trusted."""
    if wanted.verifiable or wanted.page:
        return None
    with open(wanted.target, "rb") as stream:
        page = looks_like_page(stream.read(PAGE_BYTES))
    return "it is a web page: its host wants a login or a consent. Get it by hand" if page else None


def _size_text(file: SourceFile, stamp: Mapping[str, Any]) -> str:
    return f"{stamp['size_bytes']:,} bytes, but {file.size_bytes:,} are declared"


def _read(folder: Path) -> dict[str, Any]:
    """What was verified before; empty where that cannot be read, so that everything is verified again."""
    try:
        stamps = json.loads((folder / STAMP_FILE).read_bytes())
    except (OSError, ValueError):
        return {}
    if not isinstance(stamps, dict):
        return {}
    return {name: stamp for name, stamp in stamps.items() if isinstance(stamp, dict)}
