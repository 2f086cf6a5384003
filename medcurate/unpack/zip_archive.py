"""Zip archives: members are read, checked and written by a few threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from medcurate.unpack.limits import Limits, Stop
from medcurate.unpack.names import zip_text
from medcurate.unpack.pool import Pool
from medcurate.unpack.record import TOO_LARGE
from medcurate.unpack.room import check_room
from medcurate.unpack.sink import Kind, Place, Sink
from medcurate.zips.directory import LOCAL_MAGIC, Directory, Entry, entries, find_directory, last_whole_member
from medcurate.zips.member import WHOLE_BYTES, member_chunks, read_member
from medcurate.zips.volumes import BadZip, Volumes

MEMBER_KINDS: dict[str, Kind] = {
    kind: kind for kind in ("file", "folder", "link", "device", "fifo", "socket")
}


def unpack_zip(volumes: Volumes, sink: Sink, pool: Pool, told: Callable[[int], None]) -> None:
    """All members of a zip. Raises Stop; BadZip where its directory is damaged.

    ``told``: how many stored bytes are done; called from threads.
    """
    directory = found_directory(volumes)
    _check(volumes, directory, sink)
    for entry in entries(volumes, directory):
        name = zip_text(entry.name, utf8=entry.utf8)
        kind = MEMBER_KINDS[entry.kind]
        place = None if _is_bomb(entry, name, sink) else sink.take(name, kind, entry.size_bytes)
        if place:
            member = (volumes, entry, place, sink.rule.password.encode(), told)
            pool.submit(_write, *member, dropped=place.abandon)
        else:
            told(entry.stored_bytes)


def found_directory(volumes: Volumes) -> Directory:
    """Where the directory is. Raises Stop, naming the last whole member of an archive that is cut.

    The directory of two archives in one file is that of the second: the members of the first would be lost.
    """
    try:
        found = find_directory(volumes)
    except BadZip as error:
        name = zip_text(last_whole_member(volumes), utf8=False)
        last = f'; its last whole member is "{name}"' if name else ""
        raise Stop(f"{error}{last}") from error
    if found.shift % 2**32 and volumes.read_at(0, len(LOCAL_MAGIC)) == LOCAL_MAGIC:  # no offset that ran over
        raise Stop(
            f"it is another zip archive that begins after {found.shift:,} bytes of a first one; declare each as a file "
            "of its own, not as a part",
            damage=False,
        )
    return found


def _check(volumes: Volumes, directory: Directory, sink: Sink) -> None:
    """Judge what the directory declares before anything is written."""
    size_bytes, wanted_count, wanted_bytes, encrypted = 0, 0, 0, False
    for entry in entries(volumes, directory):
        encrypted = encrypted or entry.encrypted
        if exceeds(entry, sink.budget.limits):
            continue
        size_bytes += entry.size_bytes
        if entry.kind == "file" and sink.takes_room(zip_text(entry.name, utf8=entry.utf8), entry.size_bytes):
            wanted_count, wanted_bytes = wanted_count + 1, wanted_bytes + entry.size_bytes
    if encrypted and not sink.rule.password:
        raise Stop("members are encrypted; state its published password in its unpack table", damage=False)
    sink.budget.check(size_bytes)
    check_room(sink.root, wanted_bytes, wanted_count)


def exceeds(entry: Entry, limits: Limits) -> bool:
    """Whether a member claims out of proportion to what is stored of it."""
    return entry.size_bytes > max(limits.grace_bytes, limits.ratio * entry.stored_bytes)


def _is_bomb(entry: Entry, name: str, sink: Sink) -> bool:
    """Leave out a member that claims out of proportion: the others may be good."""
    if not exceeds(entry, sink.budget.limits):
        return False
    sink.refuse(name, TOO_LARGE, f"{entry.size_bytes:,} bytes out of {entry.stored_bytes:,}")
    return True


def _write(
    volumes: Volumes, entry: Entry, place: Place, password: bytes, told: Callable[[int], None]
) -> None:
    place.fill(_blocks(volumes, entry, password))
    told(entry.stored_bytes)


def _blocks(volumes: Volumes, entry: Entry, password: bytes) -> Iterator[bytes]:
    if entry.size_bytes > WHOLE_BYTES:
        yield from member_chunks(volumes, entry, password)
    else:
        yield read_member(volumes, entry, password)
