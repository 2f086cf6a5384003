"""One archive of any kind to a sink."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from medcurate.progress import progress
from medcurate.unpack.kinds import archive_kind
from medcurate.unpack.limits import Stop
from medcurate.unpack.other_archives import unpack_7z, unpack_rar
from medcurate.unpack.pool import Pool
from medcurate.unpack.sink import Sink
from medcurate.unpack.streams import BLOCK_BYTES, MAGIC, SUFFIXES, Stream, opened
from medcurate.unpack.tar_archive import (
    BLOCK,
    Compressed,
    Plain,
    file_sizes,
    is_tar,
    unpack_plain,
    unpack_tar,
)
from medcurate.unpack.zip_archive import unpack_zip
from medcurate.zips.volumes import BadZip, Volumes

Told = Callable[[int], None]


def unpack_one(paths: Sequence[Path], sink: Sink, form: str, told: Told) -> None:
    """Unpack the archive made of ``paths``. ``form``: as ``Unpack.format``; ``told``: stored bytes done.

    Raises Stop, OutputError.
    """
    with Volumes(paths) as volumes:
        kind = archive_kind(volumes)
        _check_form(form, kind)
        if kind in MAGIC:
            _unpack_stream(volumes, kind, sink, form, told)
            return
        if kind == "7z":
            unpack_7z(volumes, sink)
        elif kind == "rar":
            unpack_rar(list(paths), sink)
        else:
            _unpack_by_position(volumes, kind, sink, told)


def check_tar_room(paths: Sequence[Path], sink: Sink, form: str) -> None:
    """Raise DiskFull where the members of a tar that are wanted do not fit: all of its headers are read for that.

    Other kinds list their members in one place, and are judged as they are unpacked. Raises Stop as ``unpack_one``.
    """
    with Volumes(paths) as volumes:
        kind = archive_kind(volumes)
        if kind != "tar" and kind not in MAGIC:
            return
        with progress(f"measuring {paths[-1].name}", volumes.size, "B") as shown:
            if kind == "tar":
                _check_plain_room(volumes, sink)
                shown.advance(volumes.size)
            else:
                _check_stream_room(opened(kind, volumes, shown.advance, sink.budget.passing), sink, form)


def _check_plain_room(volumes: Volumes, sink: Sink) -> None:
    with Pool() as pool:
        sink.check_room(file_sizes(Plain(volumes, pool, lambda size: None)))


def _check_stream_room(stream: Stream, sink: Sink, form: str) -> None:
    head = _head(stream)
    if _holds_tar(head, form):
        source = Compressed(stream, head)
        try:
            sink.check_room(file_sizes(source))
        finally:
            source.close()


def _check_form(form: str, kind: str) -> None:
    found = "tar or gz" if kind in MAGIC else kind
    if form and form not in found.split(" or "):
        raise Stop(
            f"it is declared as {form}, but its first bytes are of {found}; mend format in its unpack table, or get "
            "the archive again",
            damage=False,
        )


def _unpack_by_position(volumes: Volumes, kind: str, sink: Sink, told: Told) -> None:
    try:
        with Pool() as pool:
            if kind == "zip":
                unpack_zip(volumes, sink, pool, told)
            else:
                unpack_plain(volumes, sink, pool, told)
    except BadZip as error:
        raise Stop(str(error)) from error


def _unpack_stream(volumes: Volumes, compression: str, sink: Sink, form: str, told: Told) -> None:
    stream = opened(compression, volumes, told, sink.budget.passing)
    head = _head(stream)
    if not _holds_tar(head, form):
        _unpack_single(volumes, SUFFIXES[compression], stream, head, sink)
        return
    source = Compressed(stream, head)
    try:
        unpack_tar(source, sink)
    finally:
        source.close()


def _holds_tar(head: bytes, form: str) -> bool:
    return form == "tar" or (form != "gz" and len(head) == BLOCK and is_tar(head))


def _head(stream: Stream) -> bytes:
    head = b""
    while len(head) < BLOCK and (more := stream.read(BLOCK - len(head))):
        head += more
    return head


def _unpack_single(volumes: Volumes, suffix: str, stream: Stream, head: bytes, sink: Sink) -> None:
    """A compressed file that is no tar: one member, named like the archive without its last ending."""
    name = sink.archive_name or volumes.paths[-1].name
    place = sink.take(
        name.removesuffix(suffix) if name != suffix else name, "file", -1
    )  # no header has its size
    if place:
        place.fill(_rest(head, stream))


def _rest(head: bytes, stream: Stream) -> Iterator[bytes]:
    yield head
    yield from iter(lambda: stream.read(BLOCK_BYTES), b"")
