"""What an archive is, by its first bytes."""

from __future__ import annotations

from medcurate.unpack.limits import Stop
from medcurate.unpack.streams import MAGIC
from medcurate.unpack.tar_archive import BLOCK, is_tar
from medcurate.zips.directory import has_end_record
from medcurate.zips.volumes import Volumes

_ARCHIVES = {
    "zip": (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08", b"PK00"),
    "7z": (b"7z\xbc\xaf\x27\x1c",),
    "rar": (b"Rar!\x1a\x07",),
}


def archive_kind(volumes: Volumes) -> str:
    """ "zip", "7z", "rar", "tar", or a compression ("gz", "bz2", "xz", "zst") of a tar or of one file.

    Raises Stop for anything else, and says so where it is a web page.
    """
    head = volumes.read_at(0, BLOCK)
    for kind, magics in _ARCHIVES.items():
        if head.startswith(magics):
            return kind
    for compression, magics in MAGIC.items():
        if head.startswith(magics):
            return compression
    if len(head) == BLOCK and is_tar(head):
        return "tar"
    if has_end_record(volumes):  # behind a program that unpacks itself, or the last of several parts
        return "zip"
    if head.lstrip()[:1] == b"<":
        raise Stop(
            "it is a web page and no archive: its host wants a login or a consent. Get it by hand",
            damage=False,
        )
    raise Stop("its first bytes are of no archive that is known: zip, tar, gz, bz2, xz, zst, 7z or rar")
