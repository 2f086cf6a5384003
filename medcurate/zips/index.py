"""The index of an archive that is read in place: where every member lies, by its path, looked up on disk.

A file of fixed records in the order of their keys, after all keys. The key of a member is the folder of its path,
a NUL, and its name, so that what one folder holds stands together; a folder is an entry of its parent. Built by
merging sorted runs, it takes the same memory for a thousand members and for twenty million.
"""

from __future__ import annotations

import heapq
import json
import mmap
import struct
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple, overload

from medcurate.commit import committed
from medcurate.zips.directory import Entry

MAGIC = b"medcurate zip index 1\n"
RUN_ENTRIES = 200_000  # sorted in memory at a time
_RECORD = struct.Struct("<QHHHIQQQI")  # end of key, then _RUN_FACTS
_RUN_HEAD = struct.Struct("<H")
_RUN_FACTS = struct.Struct("<HHHIQQQI")  # method, flags, aes, crc32, stored, size, position, name's crc32
_SIZE = 5  # index of the size in them
_TAIL = struct.Struct("<QQQQ")  # where keys, records and facts begin; how many records
_FOLDER_METHOD = 0xFFFF
_SEPARATOR = b"\0"


class Item(NamedTuple):
    """A member under the path that it has in its folder."""

    key: bytes
    entry: Entry


@dataclass(slots=True)
class Written:
    """What an index holds. ``twice``: paths that several members have; those are left out, all of them."""

    members: int = 0
    size_bytes: int = 0
    twice: list[str] = field(default_factory=list)

    def add(self, *facts: int) -> None:
        """Count a record."""
        if facts[0] != _FOLDER_METHOD:
            self.members += 1
            self.size_bytes += facts[_SIZE]


def key_of(parts: Sequence[str]) -> bytes:
    """The key of the path made of ``parts``."""
    return "/".join(parts[:-1]).encode() + _SEPARATOR + parts[-1].encode()


def write_index(path: Path, items: Iterable[Item], facts: Mapping[str, Any]) -> Written:
    """Commit the index of ``items`` at ``path``, with ``facts`` (JSON) inside. Raises OutputError."""
    with tempfile.TemporaryDirectory(prefix=".tmp-", dir=path.parent) as folder:
        runs = [_write_run(Path(folder) / str(number), run) for number, run in enumerate(_runs(items))]
        with committed(path) as stream:
            return _write_merged(stream, heapq.merge(*map(_read_run, runs)), facts, Path(folder))


def _runs(items: Iterable[Item]) -> Iterator[list[tuple[bytes, bytes]]]:
    """Sorted runs of (key, facts) of members and of the folders that they lie in, each folder once."""
    iterator, folders = iter(items), {b""}
    while part := list(islice(iterator, RUN_ENTRIES)):
        run = [(key, _facts(entry)) for key, entry in part]
        for folder in sorted({key.partition(_SEPARATOR)[0] for key, _ in part} - folders):
            run += [(key, _folder_facts()) for key in _folder_keys(folder, folders)]
        run.sort()
        yield run


def _folder_keys(folder: bytes, known: set[bytes]) -> Iterator[bytes]:
    """Keys of ``folder`` and of those above it that are not ``known`` yet."""
    while folder not in known:
        known.add(folder)
        above, _, name = folder.rpartition(b"/")
        yield above + _SEPARATOR + name
        folder = above


def _facts(entry: Entry) -> bytes:
    return _RUN_FACTS.pack(
        entry.method,
        entry.flags,
        entry.aes,
        entry.crc32,
        entry.stored_bytes,
        entry.size_bytes,
        entry.position,
        entry.name_crc32,
    )


def _folder_facts() -> bytes:
    return _RUN_FACTS.pack(_FOLDER_METHOD, *[0] * 7)


def _write_run(path: Path, run: Iterable[tuple[bytes, bytes]]) -> Path:
    with open(path, "wb") as stream:
        for key, facts in run:
            stream.write(_RUN_HEAD.pack(len(key)) + key + facts)
    return path


def _read_run(path: Path) -> Iterator[tuple[bytes, bytes]]:
    with open(path, "rb") as stream:
        while head := stream.read(_RUN_HEAD.size):
            key = stream.read(_RUN_HEAD.unpack(head)[0])
            yield key, stream.read(_RUN_FACTS.size)


def _write_merged(
    stream: IO[bytes], merged: Iterator[tuple[bytes, bytes]], facts: Mapping[str, Any], folder: Path
) -> Written:
    """Keys go straight to ``stream``, records to a file beside until all keys are there."""
    stream.write(MAGIC)
    end, count, written = 0, 0, Written()
    with open(folder / "records", "w+b") as records:
        for key, found in _single(merged, written.twice):
            end += len(key)
            stream.write(key)
            records.write(_RECORD.pack(end, *_RUN_FACTS.unpack(found)))
            count += 1
            written.add(*_RUN_FACTS.unpack(found))
        records.seek(0)
        while block := records.read(1 << 20):
            stream.write(block)
    records_at = len(MAGIC) + end
    facts_at = records_at + count * _RECORD.size
    stream.write(json.dumps(facts, sort_keys=True).encode())
    stream.write(_TAIL.pack(len(MAGIC), records_at, facts_at, count))
    return written


def _single(merged: Iterator[tuple[bytes, bytes]], twice: list[str]) -> Iterator[tuple[bytes, bytes]]:
    """Entries whose key no other has; the paths of the others go to ``twice``."""
    last: tuple[bytes, bytes] | None = None
    repeated = False
    for item in merged:
        if last is not None and item[0] == last[0]:
            repeated = True
            continue
        if last is not None:
            if repeated:
                twice.append(_path_text(last[0]))
            else:
                yield last
        last, repeated = item, False
    if last is not None and repeated:
        twice.append(_path_text(last[0]))
    elif last is not None:
        yield last


def _path_text(key: bytes) -> str:
    return key.replace(_SEPARATOR, b"/").decode().removeprefix("/")


class Index:
    """A committed index, mapped and not read. Raises ValueError where it is none, OSError."""

    def __init__(self, path: Path) -> None:
        with open(path, "rb") as stream:
            self._map = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        if self._map[: len(MAGIC)] != MAGIC or len(self._map) < len(MAGIC) + _TAIL.size:
            raise ValueError("not an index of this version")
        tail = len(self._map) - _TAIL.size
        self._keys_at, self._records_at, facts_at, self.count = _TAIL.unpack_from(self._map, tail)
        self._next: dict[bytes, int] = {}  # by folder: the record after the last one looked up
        self.facts: dict[str, Any] = json.loads(self._map[facts_at:tail])

    def entry(self, parts: Sequence[str]) -> Entry | None:
        """The member at the path made of ``parts``; None where there is none or a folder."""
        number = self._number(key_of(parts))
        if number is None:
            return None
        _, method, flags, aes, crc, stored, size, position, name_crc = self._record(number)
        if method == _FOLDER_METHOD:
            return None
        return Entry(b"", True, flags, method, crc, stored, size, position, 0, name_crc, aes)

    def is_folder(self, parts: Sequence[str]) -> bool:
        """Whether the path is a folder that holds a member at some depth; the top always is."""
        if not parts:
            return True
        number = self._number(key_of(parts))
        return number is not None and self._record(number)[1] == _FOLDER_METHOD

    def names(self, folder: Sequence[str]) -> Names:
        """Names directly in ``folder``, sorted, looked up as they are asked for: no list of millions is made."""
        return Names(self, *self._range(folder), "/".join(folder).encode() + _SEPARATOR)

    def listing(self, folder: Sequence[str]) -> tuple[list[str], list[str]]:
        """(files, folders) directly in ``folder``, each sorted."""
        start, end = self._range(folder)
        skipped = len("/".join(folder).encode()) + 1
        files: list[str] = []
        folders: list[str] = []
        for number in range(start, end):
            is_folder = self._record(number)[1] == _FOLDER_METHOD
            (folders if is_folder else files).append(self.key(number)[skipped:].decode())
        return files, folders

    def key(self, number: int) -> bytes:
        """The key of a record."""
        start = self._key_end(number - 1) if number else 0
        return self._map[self._keys_at + start : self._keys_at + self._key_end(number)]

    def _key_end(self, number: int) -> int:
        at = self._records_at + number * _RECORD.size
        return int.from_bytes(self._map[at : at + 8], "little")

    def _record(self, number: int) -> tuple[int, ...]:
        return _RECORD.unpack_from(self._map, self._records_at + number * _RECORD.size)

    def _range(self, folder: Sequence[str]) -> tuple[int, int]:
        prefix = "/".join(folder).encode()
        return self._bisect(prefix + _SEPARATOR), self._bisect(prefix + b"\1")

    def _number(self, key: bytes) -> int | None:
        folder = key.partition(_SEPARATOR)[0]
        number = self._next.get(folder, 0)  # most reads go through a folder in order
        if number >= self.count or self.key(number) != key:
            number = self._bisect(key)
            if number == self.count or self.key(number) != key:
                return None
        self._next[folder] = number + 1
        return number

    def _bisect(self, key: bytes) -> int:
        low, high = 0, self.count
        while low < high:
            middle = (low + high) // 2
            if self.key(middle) < key:
                low = middle + 1
            else:
                high = middle
        return low


class Names(Sequence[str]):
    """The names in one folder of an index, of files and of folders, sorted."""

    def __init__(self, index: Index, start: int, end: int, prefix: bytes) -> None:
        self._index, self._start, self._end, self._skipped = index, start, end, len(prefix)

    def __len__(self) -> int:
        return self._end - self._start

    @overload
    def __getitem__(self, number: int) -> str: ...
    @overload
    def __getitem__(self, number: slice) -> list[str]: ...
    def __getitem__(self, number: int | slice) -> str | list[str]:
        if isinstance(number, slice):
            return [self[each] for each in range(*number.indices(len(self)))]
        count = self._end - self._start
        if not -count <= number < count:
            raise IndexError(number)
        return self._index.key(self._start + number % count)[self._skipped :].decode()
