"""The central directory, read in blocks: constant memory whatever the number of members."""

from __future__ import annotations

import stat
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from medcurate.zips.volumes import BadZip, Volumes

LOCAL_MAGIC = b"PK\x03\x04"
LOCAL = struct.Struct("<4sHHHHHIIIHH")  # APPNOTE 4.3.7
_CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")  # 4.3.12
_END = struct.Struct("<4sHHHHIIH")  # 4.3.16
_CENTRAL_MAGIC, _END_MAGIC = b"PK\x01\x02", b"PK\x05\x06"
_END64 = struct.Struct("<4sQHHIIQQQQ")  # 4.3.14
_LOCATOR64 = struct.Struct("<4sIQI")  # 4.3.15
_BLOCK_BYTES = 1 << 20
_MOST_RECORD_BYTES = _CENTRAL.size + 3 * 0xFFFF
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF
_WIDTH16, _WIDTH32 = 1 << 16, 1 << 32
_OUT_OF_PLACE = (
    "it is one of several parts, and the others are not given, or they were joined so that members are out of "
    "place"
)
_ZIP64, _UNICODE_PATH, _AES = 0x0001, 0x7075, 0x9901  # extra fields, 4.5.3, 4.6.9, AE specification
_UNIX = frozenset({3, 19})  # "version made by": Unix, OS X (4.4.2)
AES_METHOD = 99
FLAG_ENCRYPTED, FLAG_DESCRIPTOR, FLAG_STRONG, FLAG_UTF8 = 0x1, 0x8, 0x2040, 0x800


class Entry(NamedTuple):
    """One member. ``position``: of its local header, from the first volume's first byte."""

    name: bytes  # as stored, or what its Unicode field says instead
    utf8: bool
    flags: int
    method: int  # of compression, also below encryption
    crc32: int
    stored_bytes: int
    size_bytes: int
    position: int
    mode: int  # st_mode of a Unix archiver, else 0
    name_crc32: int  # of the name in its headers: both must have the same
    aes: int  # 0, or strength (1..3) + 256 times the version (1: CRC holds, 2: it is left out)

    @property
    def encrypted(self) -> bool:
        """Whether a password is needed."""
        return bool(self.flags & FLAG_ENCRYPTED)

    @property
    def kind(self) -> str:
        """ "folder", "file", or the name of what is no data: "link", "device", "fifo", "socket"."""
        if self.name.endswith(b"/"):
            return "folder"
        kinds = {stat.S_IFLNK: "link", stat.S_IFIFO: "fifo", stat.S_IFSOCK: "socket", stat.S_IFDIR: "folder"}
        kinds |= {stat.S_IFCHR: "device", stat.S_IFBLK: "device"}
        return kinds.get(stat.S_IFMT(self.mode), "file")


@dataclass(frozen=True, slots=True)
class Directory:
    """Where the central directory lies. ``shift`` is added to the positions that it states."""

    count: int
    position: int
    size_bytes: int
    volumes: int  # declared
    shift: int


def find_directory(volumes: Volumes) -> Directory:
    """Read the end records. Raises BadZip where there is none: no zip, cut, or a part is missing."""
    tail_start, tail, at = _tail(volumes)
    if at < 0:
        return _followed(volumes, tail_start, tail)
    return _stated(volumes, tail_start + at, tail[at:])


def _followed(volumes: Volumes, tail_start: int, tail: bytes) -> Directory:
    """Where the directory is of an archive with bytes behind its end, which mean nothing: a line feed, zeros.

    An archive that is cut holds such a record too where its members are archives or another one precedes it, so
    everything must lie where it is stated, and no member may follow.
    """
    at = tail.rfind(_END_MAGIC)
    end = at + _END.size + int.from_bytes(tail[at + 20 : at + 22], "little")
    if at >= 0 and end <= len(tail) and LOCAL_MAGIC not in tail[end:]:
        found = _stated(volumes, tail_start + at, tail[at:])
        begins = volumes.read_at(found.position, 4) == _CENTRAL_MAGIC
        if found.volumes == 1 and not found.shift and begins:
            return found
    raise BadZip("it has no end record: it is cut, or not a zip archive")


def _stated(volumes: Volumes, end: int, record: bytes) -> Directory:
    """What the end ``record`` at position ``end`` states."""
    _, disk, _, _, count, size, offset, _ = _END.unpack_from(record)
    # The zip64 record, where there is one, lies between: also where the narrow one has room (Info-ZIP of a pipe).
    wide = _end64(volumes, end)
    if wide:
        disk, count, size, offset, end = wide
    position = end - size
    if position < 0:
        raise BadZip("its directory would begin before the file: it is cut at its start")
    declared = disk + 1
    if declared not in {1, len(volumes.paths)} and len(volumes.paths) > 1:
        raise BadZip(f"it declares {declared} parts, but {len(volumes.paths)} are given")
    # What stands before the first member (a self-extracting program) moves everything by its size.
    shift = position - offset if declared == 1 else 0
    if shift < 0:
        raise BadZip("its directory lies before the place that it states: bytes are missing, it is cut")
    return Directory(count, position, size, declared, shift)


def has_end_record(volumes: Volumes) -> bool:
    """Whether the bytes end like a zip archive, whatever they begin with."""
    return _tail(volumes)[2] >= 0


def _tail(volumes: Volumes) -> tuple[int, bytes, int]:
    """(position, bytes, index of the end record in them or -1) of the archive's end."""
    start = max(0, volumes.size - _END.size - _FULL16)
    tail = volumes.read_at(start, volumes.size - start)
    at = tail.rfind(_END_MAGIC)
    while at >= 0 and not _ends_file(tail, at):
        at = tail.rfind(_END_MAGIC, 0, at)
    return start, tail, at


def _ends_file(tail: bytes, at: int) -> bool:
    if at + _END.size > len(tail):
        return False
    return at + _END.size + int.from_bytes(tail[at + 20 : at + 22], "little") == len(tail)


def _end64(volumes: Volumes, end: int) -> tuple[int, int, int, int, int] | None:
    """(last disk, count, size, offset, position of the record); None where there is no zip64 locator."""
    locator = volumes.read_at(max(0, end - _LOCATOR64.size), _LOCATOR64.size)
    if len(locator) < _LOCATOR64.size or not locator.startswith(b"PK\x06\x07"):
        return None
    # The record lies directly before its locator unless it has an extensible sector, which nobody writes.
    position = end - _LOCATOR64.size - _END64.size
    record = volumes.read_at(max(0, position), _END64.size)
    if position < 0 or not record.startswith(b"PK\x06\x06"):
        raise BadZip("its zip64 end record is damaged")
    _, _, _, _, disk, _, _, count, size, offset = _END64.unpack(record)
    return disk, count, size, offset, position


def entries(volumes: Volumes, directory: Directory) -> Iterator[Entry]:
    """All members in the directory's order. Raises BadZip where the directory is damaged."""
    starts = _Starts(volumes, directory)
    seen = 0
    for fixed, name, extra in _records(volumes, directory):
        seen += 1
        yield starts.placed(*_entry(fixed, name, extra))
    # Writers without zip64 (macOS's among them) let the count run over.
    if seen != directory.count and (directory.count >= _WIDTH16 or seen % _WIDTH16 != directory.count):
        raise BadZip(f"its directory has {seen} members, but {directory.count} are declared")


def _records(volumes: Volumes, directory: Directory) -> Iterator[tuple[tuple[int, ...], bytes, bytes]]:
    position, end = directory.position, directory.position + directory.size_bytes
    block, at = b"", 0
    while True:
        if len(block) - at < _MOST_RECORD_BYTES and position < end:
            more = volumes.read_at(position, min(_BLOCK_BYTES, end - position))
            if not more:
                raise BadZip("its directory is cut")
            block, at = block[at:] + more, 0
            position += len(more)
        if at == len(block):
            return
        if block[at : at + 4] != _CENTRAL_MAGIC or len(block) - at < _CENTRAL.size:
            raise BadZip("its directory is damaged")
        fixed = _CENTRAL.unpack_from(block, at)
        name_end = at + _CENTRAL.size + fixed[10]
        extra_end = name_end + fixed[11]
        record_end = extra_end + fixed[12]
        if record_end > len(block):
            raise BadZip("its directory is damaged")
        yield fixed, block[at + _CENTRAL.size : name_end], block[name_end:extra_end]
        at = record_end


def _entry(fixed: tuple[int, ...], name: bytes, extra: bytes) -> tuple[Entry, int]:
    """The member with ``position`` still as stated, and the number of its disk."""
    _, made_by, _, flags, method, _, _, crc, stored, size, _, _, _, disk, _, attributes, offset = fixed
    mode = attributes >> 16 if made_by >> 8 in _UNIX else 0
    name_crc = zlib.crc32(name)
    utf8, aes = bool(flags & FLAG_UTF8), 0
    if extra:
        fields = _extra_fields(extra)
        if _ZIP64 in fields:
            size, stored, offset, disk = _widened(fields[_ZIP64], size, stored, offset, disk)
        if method == AES_METHOD and len(fields.get(_AES, b"")) >= 7:
            version, _, strength, method = struct.unpack_from("<H2sBH", fields[_AES])
            aes = version << 8 | strength
        unicode_name = _unicode_path(fields.get(_UNICODE_PATH, b""), name_crc)
        name, utf8 = (unicode_name, True) if unicode_name else (name, utf8)
    return Entry(name, utf8, flags, method, crc, stored, size, offset, mode, name_crc, aes), disk


def _extra_fields(extra: bytes) -> dict[int, bytes]:
    fields: dict[int, bytes] = {}
    at = 0
    while at + 4 <= len(extra):
        number, size = struct.unpack_from("<HH", extra, at)
        fields.setdefault(number, extra[at + 4 : at + 4 + size])
        at += 4 + size
    return fields


def _widened(field: bytes, size: int, stored: int, offset: int, disk: int) -> tuple[int, int, int, int]:
    """Values that do not fit in 32 bits, in this order, only those that are marked (4.5.3)."""
    values, at = [], 0
    for value, full, width in (
        (size, _FULL32, 8),
        (stored, _FULL32, 8),
        (offset, _FULL32, 8),
        (disk, _FULL16, 4),
    ):
        if value == full:
            if at + width > len(field):
                raise BadZip("its directory is damaged (zip64 field)")
            value = int.from_bytes(field[at : at + width], "little")
            at += width
        values.append(value)
    return values[0], values[1], values[2], values[3]


def _unicode_path(field: bytes, name_crc32: int) -> bytes:
    """The UTF-8 name of a field that belongs to the name with that CRC (4.6.9), else nothing."""
    if len(field) < 6 or field[0] != 1 or int.from_bytes(field[1:5], "little") != name_crc32:
        return b""
    return field[5:]


class _Starts:
    """Positions on disks to positions in the volumes.

    Parts joined by plain copying keep "offset 12 of disk 3" while nothing says where disk 3 began. It is
    found from the members themselves: on a new disk's first entry, the one before it ends there.

    Above 4 GiB, writers without zip64 let positions run over, the directory's too: which of the places that a position
    may mean is a member's is found from its header.
    """

    def __init__(self, volumes: Volumes, directory: Directory) -> None:
        self._volumes = volumes
        ran_over = directory.volumes == 1 and not directory.shift % _WIDTH32
        self._most_turns = directory.shift // _WIDTH32 if ran_over else 0
        self._turns = 0  # of the last member's position
        self._starts: dict[int, int] = {0: 0 if ran_over else directory.shift}
        self._joined = directory.volumes > 1 and len(volumes.paths) == 1
        if directory.volumes > 1 and not self._joined:
            self._starts = dict(enumerate(volumes.starts))
        self._last: Entry | None = None

    def placed(self, entry: Entry, disk: int) -> Entry:
        """``entry`` with its position in the volumes."""
        if disk not in self._starts:
            self._starts[disk] = self._next_start(entry)
        entry = entry._replace(position=entry.position + self._starts[disk])
        if self._most_turns:
            return self._turned(entry)
        if self._joined:
            if self._last is None and self._volumes.read_at(entry.position, 4) != LOCAL_MAGIC:
                raise BadZip(_OUT_OF_PLACE)
            self._last = entry
        return entry

    def _turned(self, entry: Entry) -> Entry:
        """``entry`` where its header is; as stated where it is at none of the places."""
        for turns in (*range(self._turns, self._most_turns + 1), *range(self._turns)):
            position = entry.position + turns * _WIDTH32
            head = self._volumes.read_at(position, LOCAL.size)
            if len(head) == LOCAL.size and head.startswith(LOCAL_MAGIC):
                name = self._volumes.read_at(position + LOCAL.size, LOCAL.unpack(head)[9])
                if zlib.crc32(name) == entry.name_crc32:
                    self._turns = turns
                    return entry._replace(position=position)
        return entry

    def _next_start(self, entry: Entry) -> int:
        if self._last is None or not self._joined:
            raise BadZip("its directory names a part that is not given")
        start = self._volumes.read_at(self._last.position, LOCAL.size)
        if len(start) < LOCAL.size or not start.startswith(LOCAL_MAGIC):
            raise BadZip(_OUT_OF_PLACE)
        fields: tuple[int, ...] = LOCAL.unpack(start)
        end = self._last.position + LOCAL.size + fields[9] + fields[10] + self._last.stored_bytes
        # A data descriptor may follow (4.3.9), with or without signature, narrow or zip64.
        for descriptor in (0, 16, 12, 24, 20):
            if self._volumes.read_at(end + descriptor, 4) == LOCAL_MAGIC:
                return end + descriptor - entry.position
        raise BadZip(_OUT_OF_PLACE)


def last_whole_member(volumes: Volumes) -> bytes:
    """The name of the last member whose data are all there, walking from the start; for an archive without end.

    Nothing where none is, or where members do not state their sizes in front of their data.
    """
    position, name = 0, b""
    if volumes.read_at(0, 4) in {b"PK\x07\x08", b"PK\x30\x30"}:  # marks of split archives (8.5.4)
        position = 4
    while True:
        head = volumes.read_at(position, LOCAL.size)
        if len(head) < LOCAL.size or not head.startswith(LOCAL_MAGIC):
            return name
        fields: tuple[int, ...] = LOCAL.unpack(head)
        variable = volumes.read_at(position + LOCAL.size, fields[9] + fields[10])
        stored, size = fields[7], fields[8]
        if _FULL32 in {stored, size}:
            wide = _extra_fields(variable[fields[9] :]).get(_ZIP64, b"")
            _, stored, _, _ = _widened(wide, size, stored, 0, 0)
        position += LOCAL.size + len(variable) + stored
        if position > volumes.size or (fields[2] & FLAG_DESCRIPTOR and not stored):
            return name
        name = variable[: fields[9]]
