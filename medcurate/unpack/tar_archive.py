"""Tar archives, read strictly forwards: no header can send the reader back, so none can make it loop.

``tarfile`` parses the headers (ustar, GNU and PAX); what it would pass over in silence is found here: a
damaged header in the middle, and an archive that ends without its end mark (POSIX 1003.1, pax: two blocks of
zeros), which a cut at a member's border leaves behind.
"""

from __future__ import annotations

import tarfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import suppress

from medcurate.unpack.limits import Stop
from medcurate.unpack.names import text
from medcurate.unpack.pool import Pool
from medcurate.unpack.sink import Kind, Place, Sink
from medcurate.unpack.streams import BLOCK_BYTES, Ahead, Stream
from medcurate.unpack.tar_gnu import FIRST_VOLUME, Header, is_no_file
from medcurate.zips.volumes import Volumes

BLOCK = tarfile.BLOCKSIZE
_MOST_HEADER_BYTES = 1 << 18  # a long name, PAX records
_POOLED_BYTES = 1 << 18  # from here on a thread copies
_KINDS: dict[bytes, Kind] = {
    tarfile.SYMTYPE: "link",
    tarfile.LNKTYPE: "hard link",
    tarfile.CHRTYPE: "device",
    tarfile.BLKTYPE: "device",
    tarfile.FIFOTYPE: "fifo",
    tarfile.DIRTYPE: "folder",
    tarfile.GNUTYPE_SPARSE: "sparse file",
}


def is_tar(head: bytes) -> bool:
    """Whether ``head``, the first 512 bytes, is a header with a right checksum, or the end of an empty one."""
    try:
        tarfile.TarInfo.frombuf(head[:BLOCK], "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return not any(head[:BLOCK])
    return True


class Forward(ABC):
    """What ``tarfile`` reads headers from. It keeps the last block, which tells how the archive ended."""

    def __init__(self) -> None:
        self.position = 0
        self.last = b""

    def read(self, size: int) -> bytes:
        """``size`` bytes, fewer at the end. Raises Stop where no header can be that long."""
        if size > _MOST_HEADER_BYTES:
            raise Stop(f"a header of {size:,} bytes at byte {self.position:,}")
        self.last = self.take(size)
        return self.last

    def tell(self) -> int:
        """Position in the tar stream, in bytes."""
        return self.position

    def seek(self, position: int) -> None:
        """Skip to ``position``. Raises Stop where that lies before what was read: a loop."""
        if position < self.position:
            raise Stop(f"the header before byte {self.position:,} leads backwards, which would never end")
        self.skip(position - self.position)

    @abstractmethod
    def take(self, size: int) -> bytes:
        """Like ``read``, for data."""

    @abstractmethod
    def skip(self, size: int) -> None:
        """Leave out ``size`` bytes; beyond the end is no error yet."""

    @abstractmethod
    def copy(self, size: int, place: Place) -> None:
        """Write the next ``size`` bytes to ``place``, now or later. Raises Stop where the archive is cut."""

    @property
    @abstractmethod
    def end(self) -> int:
        """Where the tar stream ends, known once it was read to there."""

    def ended(self, told: str) -> Stop:
        """What to raise where the archive ends too early. Volumes hold whole blocks, a cut archive seldom does."""
        return Stop(told if self.end % BLOCK else f"{told}, or {FIRST_VOLUME}")

    def finish(self) -> None:
        """Read what follows the end mark, so that every checksum is seen.

        Raises Stop where that is another archive, whose members would be lost: elsewhere it means nothing.
        """
        rest = b""
        while data := self.take(BLOCK_BYTES):
            if not rest and (found := data.lstrip(b"\0")):
                at = (len(data) - len(found)) // BLOCK * BLOCK
                rest = data[at : at + BLOCK]
                start = self.position - len(data) + at
        if rest and is_tar(rest):
            raise Stop(
                f"another tar archive follows its end, at byte {start:,}; declare each as a file of its own, not as a "
                "part",
                damage=False,
            )


class Plain(Forward):
    """A tar that is not compressed, from ``start``: large members are copied by the kernel, in threads."""

    def __init__(self, volumes: Volumes, pool: Pool, told: Callable[[int], None], start: int = 0) -> None:
        super().__init__()
        self._volumes, self._pool, self._told = volumes, pool, told
        self.position = start

    @property
    def end(self) -> int:
        return self._volumes.size

    def take(self, size: int) -> bytes:
        data = self._volumes.read_at(self.position, size)
        self.position += len(data)
        return data

    def skip(self, size: int) -> None:
        self.position += size

    def copy(self, size: int, place: Place) -> None:
        if self.position + size > self._volumes.size:
            place.abandon()
            raise self.ended(f"it is cut inside of the member {place.name}")
        if size < _POOLED_BYTES:
            place.fill([self._volumes.read_at(self.position, size)])
            self._told(size)
        else:
            span = (self._volumes, self.position, size, place, self._told)
            self._pool.submit(_copy_span, *span, dropped=place.abandon)
        self.position += size


class Compressed(Forward):
    """A tar inside of a compressed stream."""

    def __init__(self, stream: Stream, head: bytes) -> None:
        super().__init__()
        self._stream, self._head = Ahead(stream), head

    @property
    def end(self) -> int:
        return self.position

    def take(self, size: int) -> bytes:
        pieces, left = [], size
        while left:
            piece, self._head = self._head[:left], self._head[left:]
            piece = piece or self._stream.read(left)
            if not piece:
                break
            pieces.append(piece)
            left -= len(piece)
        self.position += size - left
        return b"".join(pieces)

    def skip(self, size: int) -> None:
        while size:
            data = self.take(min(size, BLOCK_BYTES))
            if not data:
                return
            size -= len(data)

    def copy(self, size: int, place: Place) -> None:
        place.fill(self._blocks(size, place.name))

    def _blocks(self, size: int, name: str) -> Iterator[bytes]:
        while size:
            data = self.take(min(size, BLOCK_BYTES))
            if not data:
                raise self.ended(f"it is cut inside of the member {name}")
            size -= len(data)
            yield data

    def close(self) -> None:
        """End the thread that reads ahead."""
        self._stream.close()


def unpack_plain(volumes: Volumes, sink: Sink, pool: Pool, told: Callable[[int], None]) -> None:
    """All members of a tar that is not compressed. Raises Stop as ``unpack_tar``, and for parts that are volumes.

    A volume of GNU tar begins with a header of its own, which would become data of the member that it continues.
    """
    for start in volumes.starts[1:]:
        part = Plain(volumes, pool, told, start)
        try:
            first = next(_members(part), None)
        except (tarfile.TarError, Stop):
            continue  # no header: the archive was cut anywhere
        if first:
            is_no_file(first, part)
    unpack_tar(Plain(volumes, pool, told), sink)


def unpack_tar(source: Forward, sink: Sink) -> None:
    """All members of a tar. Raises Stop where it is cut, damaged or hostile."""
    try:
        for member in _members(source):
            kind = "folder" if is_no_file(member, source) else _kind(member)
            place = sink.take(_name(member), kind, member.size)
            if place:
                source.copy(member.size, place)
    except tarfile.TarError as error:
        told = f"it is cut or damaged at byte {source.position:,}"
        raise (Stop(told) if source.take(1) else source.ended(told)) from error
    if len(source.last) != BLOCK or any(source.last):
        raise source.ended(f"it is cut or damaged at byte {source.position:,}: its end mark is missing")
    source.finish()


def file_sizes(source: Forward) -> Iterator[tuple[str, int]]:
    """Name and bytes of every file of a tar, up to where it is damaged, which ``unpack_tar`` tells."""
    with suppress(tarfile.TarError, Stop):
        for member in _members(source):
            if _kind(member) == "file":
                yield _name(member), member.size


def _name(member: tarfile.TarInfo) -> str:
    return text(member.name.encode("utf-8", "surrogateescape"))


def _kind(member: tarfile.TarInfo) -> Kind:
    if member.isreg() and not member.issparse():
        return "file"
    return "sparse file" if member.issparse() else _KINDS.get(member.type, "special file")


def _members(source: Forward) -> Iterator[tarfile.TarInfo]:
    # Data are copied beside tarfile's back: it only ever reads headers and skips.
    with tarfile.open(
        fileobj=source,
        mode="r:",
        tarinfo=Header,
        encoding="utf-8",
        errors="surrogateescape",  # type: ignore[call-overload]
    ) as archive:
        while (member := archive.next()) is not None:
            archive.members = []  # tarfile would keep them all
            if member.size < 0:
                raise Stop(
                    f"the header before byte {source.position:,} leads backwards, which would never end"
                )
            yield member


def _copy_span(volumes: Volumes, position: int, size: int, place: Place, told: Callable[[int], None]) -> None:
    place.fill(_spans(volumes, position, size, place))
    told(size)


def _spans(volumes: Volumes, position: int, size: int, place: Place) -> Iterator[bytes]:
    """Copy inside of the kernel as far as it can; what it cannot is yielded, to be written."""
    while size:
        copied = place.copy_from(*volumes.locate(position), min(size, 64 * BLOCK_BYTES))
        if not copied:
            block = volumes.read_at(position, min(size, BLOCK_BYTES))
            if not block:
                raise Stop(f"it is cut inside of the member {place.name}")
            copied = len(block)
            yield block
        position += copied
        size -= copied
