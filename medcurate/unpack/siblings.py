"""Members that another folder has already of the same archive, unpacked by a rule that wants others too.

They get a further name (a hard link) instead of being unpacked once more: a set of CT and MR in one archive is two
sources whose patterns may well overlap.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from medcurate.config.source import Unpack
from medcurate.errors import ConfigError
from medcurate.unpack.folder import make_folders
from medcurate.unpack.names import matches
from medcurate.unpack.record import fits, read_record


@dataclass(frozen=True, slots=True)
class Sibling:
    """A folder that ``rule`` makes of the archive."""

    folder: Path
    rule: Unpack

    def path(self, parts: Sequence[str], size_bytes: int) -> str:
        """Where the member of these components lies, "" where it is not wanted or not whole there."""
        rule = self.rule
        if len(parts) <= rule.strip or (rule.include and not matches(rule.include, parts)):
            return ""
        path = f"{self.folder}/{'/'.join(parts[rule.strip :])}"
        return path if os.path.isfile(path) and os.path.getsize(path) == size_bytes else ""


class Siblings:
    """The folders of one archive that may be linked from."""

    def __init__(self, found: Iterable[Sibling] = ()) -> None:
        self._found = tuple(found)

    def __bool__(self) -> bool:
        return bool(self._found)

    def path(self, parts: Sequence[str], size_bytes: int) -> str:
        """Where a member lies already, "" where nobody has it."""
        try:
            return next(filter(None, (each.path(parts, size_bytes) for each in self._found)), "")
        except OSError:  # removed meanwhile
            return ""

    def link(self, parts: Sequence[str], size_bytes: int, place: str) -> bool:
        """Make ``place`` a name of the member; False where nobody has it, or no link can be made there."""
        path = self.path(parts, size_bytes)
        try:
            if path:
                make_folders(os.path.dirname(place))
                os.link(path, place, follow_symlinks=False)
        except OSError:  # another file system, one without hard links, or a name that is taken
            return False
        return bool(path)


def siblings(rule: Unpack, sha256: str, others: Iterable[Sibling]) -> Siblings:
    """Those of ``others`` that are as they were made of the archive with that digest, which ``rule`` reads alike."""
    return Siblings(each for each in others if sha256 and _alike(rule, each.rule) and _is_whole(each, sha256))


def _alike(rule: Unpack, other: Unpack) -> bool:
    """Whether a member has the same content by both."""
    return not (rule.in_place or other.in_place) and (rule.format, rule.nested) == (
        other.format,
        other.nested,
    )


def _is_whole(sibling: Sibling, sha256: str) -> bool:
    try:
        found = read_record(sibling.folder)
        if found is None or not fits(found[1], sibling.rule, None):
            return False
        return (
            found[1].get("archive", {}).get("sha256") == sha256
            and _files(sibling.folder) == found[0].files + 1
        )
    except (ConfigError, OSError):  # its own source's commands tell
        return False


def _files(folder: Path | str) -> int:
    """Regular files below, the record among them. Raises OSError where there is something else than files."""
    count = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                count += _files(entry.path)
            elif entry.is_file(follow_symlinks=False):
                count += 1
            else:
                raise OSError(f"{entry.path}: neither a file nor a folder")
    return count
