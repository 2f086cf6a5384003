"""Where members go: into a fresh folder that nobody else writes to, one regular file each."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from medcurate.commit import output_error
from medcurate.config.source import Unpack
from medcurate.unpack.folder import create
from medcurate.unpack.limits import Budget, Stop, too_many_refused
from medcurate.unpack.names import UnsafeName, components, hidden, matches
from medcurate.unpack.record import DAMAGED, DUPLICATE, UNSAFE_MEMBER, Refused, Unpacked
from medcurate.unpack.room import check_room
from medcurate.unpack.siblings import Siblings
from medcurate.zips.volumes import BadMember, NeedsLibrary

NESTED_FOLDER = ".nested"

Kind = Literal[
    "file", "folder", "link", "hard link", "device", "fifo", "socket", "sparse file", "special file"
]


@dataclass(frozen=True, slots=True)
class Nested:
    """An archive that was a member: where it waits, and the components of its folder and of its name."""

    path: Path
    folder: tuple[str, ...]
    name: tuple[str, ...]


@dataclass(slots=True)
class Tally:
    """What has come of an archive and of those nested in it."""

    files: int = 0
    size_bytes: int = 0
    hidden: int = 0
    unwanted: int = 0
    refused: list[Refused] = field(default_factory=list)
    renamed: list[tuple[str, str]] = field(default_factory=list)
    twice: set[str] = field(default_factory=set)  # paths below the root that several members have
    broken: list[str] = field(default_factory=list)  # files of members that are not whole

    def settle(self, root: Path) -> None:
        """Remove what is left out after all. Until now it held its name, so that no thread's speed matters."""
        for broken in self.broken:
            Path(broken).unlink(missing_ok=True)
        for relative in sorted(self.twice):
            path = root / relative
            if path.is_file():
                self.files -= 1
                self.size_bytes -= path.stat().st_size
                path.unlink()

    def unpacked(self, folder: Path) -> Unpacked:
        """The tally for the record, in an order that no thread decides."""
        return Unpacked(
            folder=folder,
            files=self.files,
            size_bytes=self.size_bytes,
            hidden=self.hidden,
            unwanted=self.unwanted,
            refused=tuple(sorted(self.refused)),
            renamed=tuple(sorted(self.renamed)),
            fresh=True,
        )


class Sink:
    """Takes the members of one archive.

    ``take`` is called for every member in the archive's order, from one thread; the places that it gives may
    be written by others.
    """

    def __init__(
        self, root: Path, rule: Unpack, budget: Budget, tally: Tally, siblings: Siblings | None = None
    ) -> None:
        self.root = root
        self.rule = rule
        self.budget = budget
        self.tally = tally
        self.siblings = siblings or Siblings()
        self.nested: list[Nested] = []
        self.archive_name = ""  # of a nested archive, which waits under another name
        self.last_good = (0, "")  # (number, name) of the last member in the archive's order that is whole
        self._base: tuple[str, ...] = ()
        self._base_name: tuple[str, ...] = ()
        self._made: list[str] | None = None  # what a nested archive wrote, to be taken back
        self._lock = threading.Lock()

    def below(self, nested: Nested) -> Sink:
        """The sink of an archive that was a member: its members go where it lay."""
        rule = self.rule.model_copy(update={"strip": 0, "include": ()})
        sink = Sink(self.root, rule, self.budget, self.tally)
        sink._base, sink._base_name, sink._made = nested.folder, nested.name[:-1], []
        sink.archive_name = nested.name[-1]
        return sink

    def check_room(self, members: Iterable[tuple[str, int]]) -> None:
        """Raise DiskFull where those of ``members`` (name, bytes) that are wanted do not fit on the disk."""
        count, total = 0, 0
        for name, size_bytes in members:
            if self.takes_room(name, size_bytes):
                count, total = count + 1, total + size_bytes
        check_room(self.root, total, count)

    def takes_room(self, name: str, size_bytes: int) -> bool:
        """Whether a member is wanted and nobody has it already."""
        if not self.rule.include and not self.siblings:
            return True  # archives may hold millions
        try:
            parts = components(name)
        except UnsafeName:
            return False
        if hidden(parts) or len(parts) <= self.rule.strip:
            return False
        if matches(self.rule.nested, (*self._base_name, *parts)):
            return True
        wanted = not self.rule.include or matches(self.rule.include, parts)
        return wanted and not self.siblings.path(parts, size_bytes)

    def take(self, name: str, kind: Kind, size_bytes: int) -> Place | None:
        """A place to write the member ``name`` to; None where it is left out, which is then noted, or linked."""
        number = self.budget.member()
        if kind == "folder":
            return None
        try:
            parts = components(name)
        except UnsafeName as error:
            self.refuse(name, UNSAFE_MEMBER, str(error))
            return None
        if hidden(parts):
            self.tally.hidden += 1
            return None
        full = (*self._base_name, *parts)
        is_nested = matches(self.rule.nested, full)
        kept = parts[self.rule.strip :]
        if not kept or not (is_nested or not self.rule.include or matches(self.rule.include, parts)):
            self.tally.unwanted += 1
            return None
        if kind != "file":
            self.refuse(name, UNSAFE_MEMBER, f"a {kind}, not a regular file")
            return None
        target = (*self._base, *kept)
        if is_nested:
            return self._aside(number, name, target, full)
        linked = self._link(number, name, parts, target, size_bytes)
        return None if linked else self._place(number, name, target)

    def refuse(self, name: str, reason: str, detail: str) -> None:
        """Note that a member is left out. Raises Stop where too many are: a wrong strip gives many one name."""
        shown = name.encode("utf-8", "backslashreplace").decode()
        with self._lock:
            self.tally.refused.append(Refused(shown, reason, detail))
        if len(self.tally.refused) > self.budget.limits.refused:
            raise too_many_refused(self.budget.limits, detail, damage=reason == DAMAGED)

    def take_back(self) -> None:
        """Remove what a nested archive wrote: it turned out to be damaged."""
        for path in self._made or []:
            status = os.stat(path)
            os.unlink(path)  # nothing else can have its name: two of one name are refused
            self.tally.files -= 1
            self.tally.size_bytes -= status.st_size

    def finished(self, place: Place) -> None:
        """Count a whole member."""
        with self._lock:
            self.last_good = max(self.last_good, (place.number, place.name))
            if not place.counts:
                return
            self.tally.files += 1
            self.tally.size_bytes += place.written
            if self._made is not None:
                self._made.append(place.path)

    def broken(self, place: Place, detail: str) -> None:
        """Leave a damaged member out."""
        with self._lock:
            self.tally.broken.append(place.path)
            self.nested = [nested for nested in self.nested if str(nested.path) != place.path]
        self.refuse(place.name, DAMAGED, detail)

    def _link(
        self, number: int, name: str, parts: tuple[str, ...], target: tuple[str, ...], size_bytes: int
    ) -> bool:
        """Give the member that a sibling has its name here too; whether that could be done."""
        relative = "/".join(target)
        if relative in self.tally.twice or not self.siblings.link(
            parts, size_bytes, f"{self.root}/{relative}"
        ):
            return False
        with self._lock:
            self.last_good = max(self.last_good, (number, name))
            self.tally.files += 1
            self.tally.size_bytes += size_bytes
        self._note_renamed(name, target)
        return True

    def _note_renamed(self, name: str, target: tuple[str, ...]) -> None:
        if target[len(self._base) :] != _plain(name)[self.rule.strip :]:
            shown = name.encode("utf-8", "backslashreplace").decode()
            self.tally.renamed.append((shown, "/".join(target)))

    def _aside(self, number: int, name: str, target: tuple[str, ...], full: tuple[str, ...]) -> Place:
        """A place for a nested archive, outside of the data."""
        folder = self.root / NESTED_FOLDER
        folder.mkdir(exist_ok=True)
        path = folder / str(number)
        while path.exists():
            path = path.with_name(f"{path.name}-")
        self.nested.append(Nested(path, target[:-1], full))
        return Place(self, number, name, str(path), counts=False)

    def _place(self, number: int, name: str, target: tuple[str, ...]) -> Place | None:
        relative = "/".join(target)
        if relative in self.tally.twice:
            self.refuse(name, DUPLICATE, "its name is there more than once")
            return None
        try:
            place = Place(self, number, name, f"{self.root}/{relative}")
        except FileExistsError:
            self._refuse_twice(name, relative)
            return None
        except OSError as error:
            if error.errno not in {
                errno.ENOTDIR,
                errno.ENAMETOOLONG,
                errno.EISDIR,
                errno.EILSEQ,
                errno.EINVAL,
            }:
                raise output_error(error, self.root / relative) from error
            self.refuse(name, UNSAFE_MEMBER, f"no file can have its name here ({error.strerror})")
            return None
        self._note_renamed(name, target)
        return place

    def _refuse_twice(self, name: str, relative: str) -> None:
        """Of several members with one name none is trusted; a file system that folds case decides so too."""
        if os.path.isdir(self.root / relative):
            self.refuse(name, DUPLICATE, "a folder has its name")
            return
        self.tally.twice.add(relative)
        self.refuse(name, DUPLICATE, "its name is there more than once: all of them are left out")


class Place:
    """One file being written. It counts only after ``done``."""

    def __init__(self, sink: Sink, number: int, name: str, path: str, *, counts: bool = True) -> None:
        self.number, self.name, self.path, self.counts = number, name, path, counts
        self.written = 0
        self._sink = sink
        self.file = create(path)

    def write(self, chunk: bytes | memoryview) -> None:
        """Append ``chunk``. Raises Stop above a bound, OutputError where the disk is full."""
        self._sink.budget.spend(len(chunk))
        left = memoryview(chunk)
        try:
            while left:
                left = left[os.write(self.file, left) :]
        except OSError as error:
            raise output_error(error, Path(self.path)) from error
        self.written += len(chunk)

    def copy_from(self, file: int, offset: int, size: int) -> int:
        """Append up to ``size`` bytes of the open ``file`` inside of the kernel; 0 where it cannot do that."""
        try:
            copied = os.copy_file_range(file, self.file, size, offset)
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise output_error(error, Path(self.path)) from error
            return 0
        self._sink.budget.spend(copied)
        self.written += copied
        return copied

    def done(self) -> None:
        """The member is whole."""
        os.close(self.file)
        self._sink.finished(self)

    def damaged(self, detail: str) -> None:
        """The member is not: it is left out."""
        os.ftruncate(self.file, 0)
        os.close(self.file)
        self._sink.broken(self, detail)

    def fill(self, chunks: Iterable[bytes]) -> None:
        """Write all of ``chunks``; BadMember from them makes the member damaged."""
        try:
            for chunk in chunks:
                self.write(chunk)
        except NeedsLibrary as error:
            self.abandon()
            raise Stop(f"{self.name}: {error}", damage=False) from error
        except BadMember as error:
            self.damaged(str(error))
            return
        except BaseException:
            self.abandon()
            raise
        self.done()

    def abandon(self) -> None:
        """Unpacking of the archive ends here."""
        os.close(self.file)
        self._sink.tally.broken.append(self.path)


def _plain(name: str) -> tuple[str, ...]:
    return tuple(part for part in name.split("/") if part not in {"", "."})
