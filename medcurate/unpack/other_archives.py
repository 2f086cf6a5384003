"""7z and rar archives, through the libraries that read them."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from medcurate.errors import MedcurateError
from medcurate.unpack.limits import Stop
from medcurate.unpack.sink import Kind, Place, Sink
from medcurate.unpack.streams import BLOCK_BYTES
from medcurate.zips.volumes import BadMember, VolumeFile, Volumes

_INSTALL = 'install it with "pip install medcurate[archives]" and run the same command again'
_ENCRYPTED = "it is encrypted; state its published password in its unpack table"
_RAR_TOOL = (
    "rar archives need a program that reads them: install unrar, unar, 7zz or bsdtar (on Debian: apt-get install "
    "unar) and run the same command again, or unpack it by hand into the folder that its unpack table names"
)


def unpack_7z(volumes: Volumes, sink: Sink) -> None:
    """All members of a 7z. Members share compressed blocks, so that damage stops all. Raises Stop."""
    try:
        import py7zr
        from py7zr.exceptions import PasswordRequired
    except ImportError as error:
        raise Stop(f"7z archives need py7zr: {_INSTALL}", damage=False) from error
    writers = _Writers(sink)
    try:
        with py7zr.SevenZipFile(
            cast("Any", VolumeFile(volumes)), password=sink.rule.password or None
        ) as archive:
            if archive.needs_password() and not sink.rule.password:
                raise Stop(_ENCRYPTED, damage=False)
            writers.choose(archive.list())
            if writers.places:
                archive.extract(targets=list(writers.targets), factory=cast("Any", writers))
    except (Stop, MedcurateError):
        raise
    except PasswordRequired as error:  # for its list of members
        raise Stop(_ENCRYPTED, damage=False) from error
    except Exception as error:  # of py7zr or of any of the decompressors that it hands damaged bytes to
        raise Stop(f"it is cut or damaged{_or_locked(sink)} ({type(error).__name__})") from error
    finally:
        writers.abandon()


def _or_locked(sink: Sink) -> str:
    """What else may be wrong: a wrong password gives bytes that are no archive's."""
    return ", or the password of its unpack table is not its own" if sink.rule.password else ""


class _Writers:
    """py7zr's factory of writers: places were taken before, in the archive's order."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self.places: dict[str, Place] = {}
        self.targets: list[str] = []

    def choose(self, members: list[Any]) -> None:
        """Take a place for every wanted member, with its size checked."""
        self._sink.budget.check(sum(member.uncompressed for member in members))
        self._sink.check_room((member.filename, member.uncompressed) for member in members if member.is_file)
        for member in members:
            kind: Kind = "folder" if member.is_directory else "file" if member.is_file else "link"
            place = self._sink.take(member.filename, kind, member.uncompressed)
            name = posixpath.normpath(member.filename)
            if place:
                self.places[name] = place
                self.targets.append(member.filename)
            elif kind == "file" and name in self.places:  # a second one of that name: the first goes too
                self.places.pop(name).done()
                self.targets = [each for each in self.targets if posixpath.normpath(each) != name]

    def create(self, filename: str) -> _Writer:
        """The writer of a member, called by py7zr."""
        return _Writer(self.places.pop(posixpath.normpath(filename)))

    def abandon(self) -> None:
        """Close what was not written."""
        for place in self.places.values():
            place.abandon()


class _Writer:
    """What py7zr asks of a writer; it checks the CRC after the last write and before the next member."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def write(self, data: bytes | bytearray) -> int:
        self._place.write(bytes(data))
        return len(data)

    def read(self, size: int | None = None) -> bytes:
        return b""

    def seek(self, offset: int, whence: int = 0) -> int:
        return 0

    def seekable(self) -> bool:
        return False

    def flush(self) -> None:
        pass

    def size(self) -> int:
        return self._place.written

    def close(self) -> None:
        self._place.done()


def unpack_rar(paths: list[Path], sink: Sink) -> None:
    """All members of a rar, whose further volumes lie beside the first under their usual names. Raises Stop."""
    try:
        import rarfile  # type: ignore[import-untyped]
    except ImportError as error:
        raise Stop(f"rar archives need rarfile: {_INSTALL}", damage=False) from error
    try:
        # Not strict, it would take what stands before a damaged header for the whole archive.
        with rarfile.RarFile(str(paths[0]), errors="strict") as archive:
            if sink.rule.password:
                archive.setpassword(sink.rule.password)
            elif archive.needs_password():
                raise Stop(_ENCRYPTED, damage=False)
            members = archive.infolist()
            sink.budget.check(sum(member.file_size for member in members))
            sink.check_room((member.filename, member.file_size) for member in members if member.is_file())
            cut = _rar_cut(paths, members)
            for member in members:
                if member is cut:
                    raise Stop(f"it is cut inside of or after the member {member.filename}")
                place = sink.take(member.filename, _rar_kind(member), member.file_size)
                if place:
                    place.fill(_rar_blocks(rarfile, archive, member))
    except rarfile.RarCannotExec as error:
        raise Stop(_RAR_TOOL, damage=False) from error
    except rarfile.NeedFirstVolume as error:
        raise Stop(
            "it is a later one of several volumes; declare the first one too, and before it", damage=False
        ) from error
    except (rarfile.Error, OSError) as error:
        raise Stop(f"it is cut or damaged{_or_locked(sink)} ({type(error).__name__})") from error


def _rar_cut(paths: list[Path], members: list[Any]) -> Any:
    """The last member if nothing follows its data, not even an end mark; rarfile passes over that in silence."""
    if len(paths) > 1 or not members:
        return None
    last = max(members, key=lambda member: int(member.header_offset))
    ends_at = int(last.data_offset) + int(last.compress_size)
    return last if ends_at >= paths[0].stat().st_size else None


def _rar_kind(member: Any) -> Kind:
    if member.is_dir():
        return "folder"
    return "file" if member.is_file() else "link"


def _rar_blocks(library: Any, archive: Any, member: Any) -> Iterator[bytes]:
    """The bytes of a member; rarfile checks size and CRC as the last one is read."""
    try:
        with archive.open(member) as stream:
            yield from iter(lambda: stream.read(BLOCK_BYTES), b"")
    except library.RarCannotExec as error:
        raise Stop(_RAR_TOOL, damage=False) from error
    except (library.Error, OSError) as error:
        raise BadMember(f"its data are damaged ({type(error).__name__})") from error
