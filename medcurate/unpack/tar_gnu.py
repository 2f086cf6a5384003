"""What GNU tar writes beyond POSIX: incremental archives, archives of several volumes, their labels.

Sources: GNU tar manual, "Basic Tar Format" (the old GNU header), "Dumpdir" and "Extended File Headers" (GNU.volume.*).
"""

from __future__ import annotations

import re
import tarfile
from typing import Protocol, Self

from medcurate.unpack.limits import Stop

_LABEL, _FOLDER, _CONTINUED = b"V", b"D", b"M"  # types of members
_MOST_LIST_BYTES = 64 << 20
_TIMES = re.compile(rb"([0-7]{11}[ \0]|[\x80\xff])")  # octal, or base 256
_BY_HAND = "and put the files, by hand, into the folder that the unpack table of its source names"

FIRST_VOLUME = (
    f"it is the first of several volumes of one archive: unpack those together with tar -x -M {_BY_HAND}"
)
"""What an archive may be that ends too early: only the other volumes say that they are such."""


class Data(Protocol):
    """What the bytes of a member are taken from, forwards."""

    def take(self, size: int) -> bytes:
        """``size`` bytes, fewer at the end."""


class Header(tarfile.TarInfo):
    """A header whose times are not taken for folders: GNU's format has some where POSIX has the start of a name."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """See ``tarfile``. Raises tarfile.HeaderError."""
        found = super().frombuf(buf, encoding, errors)
        if bytes(buf[257:265]) == tarfile.GNU_MAGIC and _TIMES.match(buf[345:357]):
            name = bytes(buf[:100]).split(b"\0", 1)[0].decode(encoding, errors)
            found.name = name.rstrip("/") if found.isdir() else name
        return found


def is_no_file(member: tarfile.TarInfo, source: Data) -> bool:
    """Whether a member only tells of the archive, or of a folder.

    Raises Stop where the archive is a piece of a whole: not all of its files are here.
    """
    if member.type == _CONTINUED or "GNU.volume.filename" in member.pax_headers:
        begun = member.pax_headers.get("GNU.volume.filename", member.name)
        raise Stop(
            f'it is one of several volumes: the start of "{begun}" is in another. Unpack them together with '
            f"tar -x -M {_BY_HAND}",
            damage=False,
        )
    listed = member.pax_headers.get("GNU.dumpdir", "").encode("utf-8", "surrogateescape")
    if member.type == _FOLDER:
        listed = source.take(min(member.size, _MOST_LIST_BYTES))
    absent = next((name[1:] for name in listed.split(b"\0") if name.startswith(b"N")), None)
    if absent is not None:
        name = f"{member.name.rstrip('/')}/{absent.decode(errors='replace')}"
        raise Stop(
            f'it is an incremental archive: "{name}" and others are in an earlier one. Unpack them in order with '
            f"tar -x -g /dev/null {_BY_HAND}",
            damage=False,
        )
    return member.type in {_LABEL, _FOLDER}
