"""Files that several sources name: the same bytes, which are fetched once and lie on the disk once."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from medcurate.commit import TEMP_PREFIX, committed, output_error
from medcurate.config.source import Source, SourceFile

ALL_BELOW = "/*"
"""How the path of a file ends that stands for a whole folder, not listed yet: for no bytes, so for no others'."""


@dataclass(frozen=True, slots=True)
class Twin:
    """A file as the source ``source`` names it, whose files lie or belong in ``folder``."""

    source: Source
    folder: Path
    file: SourceFile

    @property
    def path(self) -> Path:
        """Where it lies or belongs."""
        return self.folder / self.file.path


class Twins:
    """The files of several sources by what they are."""

    def __init__(self, places: Iterable[tuple[Source, Path]] = ()) -> None:
        self._found: dict[str, list[Twin]] = {}
        for source, folder in places:
            self.add(source, folder)

    def add(self, source: Source, folder: Path) -> None:
        """Take in the files of ``source``."""
        for file in source.files:
            key = identity(source, file)
            if key:
                self._found.setdefault(key, []).append(Twin(source, folder, file))

    def of(self, source: Source, file: SourceFile) -> Sequence[Twin]:
        """The same file under its other names, in the order in which they were taken in."""
        return [
            twin
            for twin in self._found.get(identity(source, file), ())
            if (twin.source.id, twin.file.path) != (source.id, file.path)
        ]


def identity(source: Source, file: SourceFile) -> str:
    """Equal for files that are the same bytes; "" for files that are made here, and for folders not listed yet.

    A declared SHA-256 decides; without one the same origin does, and for files that only a person can get the
    same instruction, page and name.
    """
    origin = file.origin
    if origin.package or origin.generator or file.path.endswith(ALL_BELOW):
        return ""
    if file.sha256:
        return file.sha256
    if set(origin.model_dump(exclude_defaults=True)) == {"by_hand"}:
        return "\n".join(("by hand", source.homepage, file.path, origin.by_hand, file.md5 or ""))
    return origin.model_dump_json(exclude={"mirrors", "by_hand"}, exclude_defaults=True) + (file.md5 or "")


def link(existing: Path, target: Path) -> None:
    """Give the file ``existing`` the further name ``target``; a copy where the file system has no hard links.

    Of a symbolic link the file that it leads to is meant. ``target`` appears whole or not at all. Raises
    OutputError, DiskFull; FileNotFoundError where ``existing`` is gone.
    """
    temporary = target.with_name(f"{TEMP_PREFIX}{uuid.uuid4().hex}-{target.name}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(error, target) from error
    try:
        os.link(os.path.realpath(existing), temporary)  # a link to a symbolic link would lead elsewhere
    except FileNotFoundError:
        raise
    except OSError:  # another file system, one without hard links, or too many of them
        with open(existing, "rb") as stream, committed(target) as copy:
            shutil.copyfileobj(stream, copy, 1 << 20)
        return
    try:
        os.replace(temporary, target)  # its bytes are durable; a name that a crash loses is given again
    except OSError as error:
        raise output_error(error, target) from error
    finally:
        temporary.unlink(missing_ok=True)  # a rename to a name of the same file leaves both
