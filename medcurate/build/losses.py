"""What archives lost on the way: members that unpacking left out and whose case nothing else tells of."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path

from medcurate.config.source import Source
from medcurate.download.listing import listed_files
from medcurate.unpack.record import DAMAGED, DUPLICATE, TOO_LARGE, Refused, damaged_members

_LOST = frozenset({DAMAGED, DUPLICATE, TOO_LARGE})  # links and devices never were data


def lost_members(source: Source, root: Path, incomplete: Collection[str]) -> Iterator[Refused]:
    """Members of the source's archives that were left out, once each, sorted by archive and name.

    ``incomplete``: names of cases that lack a file. A member whose path holds such a name (its last part, where
    it has folders) is told by its case already; "1" is not held by "10".
    """
    known = [(name, _whole(name)) for name in (case.rpartition("/")[2] for case in incomplete)]
    for file in listed_files(source, root):
        for refused in dict.fromkeys(damaged_members(root / file.unpack.into) if file.unpack else ()):
            member = refused.member
            # Nearly no name is in nearly any member, which a plain search tells in a twentieth of the time.
            if refused.reason in _LOST and not any(
                name in member and whole.search(member) for name, whole in known
            ):
                yield refused


def _whole(name: str) -> re.Pattern[str]:
    """``name``, unless it goes on with digits where it begins or ends with some."""
    return re.compile(rf"(?<!\d(?=\d)){re.escape(name)}(?!(?<=\d)\d)")
