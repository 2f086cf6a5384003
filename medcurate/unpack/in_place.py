"""An archive to be read where it lies: its folder holds an index instead of files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from medcurate.config.source import Unpack
from medcurate.progress import progress
from medcurate.unpack.kinds import archive_kind
from medcurate.unpack.limits import Budget, Limits, Stop, too_many_refused
from medcurate.unpack.names import UnsafeName, components, hidden, matches, zip_text
from medcurate.unpack.record import DAMAGED, DUPLICATE, TOO_LARGE, UNSAFE_MEMBER, Refused
from medcurate.unpack.sink import Tally
from medcurate.unpack.zip_archive import exceeds, found_directory
from medcurate.zips.directory import Entry, entries
from medcurate.zips.index import Item, key_of, write_index
from medcurate.zips.inside import INDEX_FILE
from medcurate.zips.volumes import BadZip, Volumes


def index_archive(paths: Sequence[Path], folder: Path, target: Path, rule: Unpack, limits: Limits) -> Tally:
    """Write the index of a zip into ``folder``, which is about to become ``target``.

    Raises Stop where the archive is no zip, cut or damaged; OutputError. Members are checked as they are read.
    """
    tally = Tally()
    with Volumes(paths) as volumes:
        if archive_kind(volumes) != "zip":
            raise Stop("only zip archives can be read in place; leave in_place out", damage=False)
        directory = found_directory(volumes)
        facts = {"parts": [os.path.relpath(path, target) for path in paths]}
        with progress(f"indexing {paths[-1].name}", directory.count, "members") as shown:
            members = _Members(rule, limits, Budget(limits, volumes.size), tally, shown.advance)
            try:
                written = write_index(folder / INDEX_FILE, members.items(entries(volumes, directory)), facts)
            except BadZip as error:
                raise Stop(str(error)) from error
    tally.files, tally.size_bytes = written.members, written.size_bytes
    tally.refused += [
        Refused(path, DUPLICATE, "its name is there more than once: all of them are left out")
        for path in written.twice
    ]
    return tally


@dataclass(slots=True)
class _Members:
    """Which members the index holds, under which paths; the same rules as for unpacking."""

    rule: Unpack
    limits: Limits
    budget: Budget
    tally: Tally
    told: Callable[[int], None]

    def items(self, found: Iterator[Entry]) -> Iterator[Item]:
        """The members that are wanted and safe."""
        for entry in found:
            self.budget.member()
            self.told(1)
            if entry.kind == "folder":
                continue
            name = zip_text(entry.name, utf8=entry.utf8)
            try:
                parts = components(name)
            except UnsafeName as error:
                self._refuse(name, UNSAFE_MEMBER, str(error))
                continue
            if self._wanted(entry, name, parts):
                kept = parts[self.rule.strip :]
                if "/".join(kept) != "/".join(name.split("/")[self.rule.strip :]):
                    self.tally.renamed.append((name, "/".join(kept)))
                yield Item(key_of(kept), entry)

    def _wanted(self, entry: Entry, name: str, parts: tuple[str, ...]) -> bool:
        if hidden(parts):
            self.tally.hidden += 1
        elif len(parts) <= self.rule.strip or not (
            not self.rule.include or matches(self.rule.include, parts)
        ):
            self.tally.unwanted += 1
        elif entry.kind != "file":
            self._refuse(name, UNSAFE_MEMBER, f"a {entry.kind}, not a regular file")
        elif exceeds(entry, self.limits):
            self._refuse(name, TOO_LARGE, f"{entry.size_bytes:,} bytes out of {entry.stored_bytes:,}")
        elif entry.encrypted:
            self._refuse(name, DAMAGED, "it is encrypted: only unpacking can decipher it")
        else:
            return True
        return False

    def _refuse(self, name: str, reason: str, detail: str) -> None:
        self.tally.refused.append(Refused(name.encode("utf-8", "backslashreplace").decode(), reason, detail))
        if len(self.tally.refused) > self.limits.refused:
            raise too_many_refused(self.limits, detail, damage=False)  # no member was read
