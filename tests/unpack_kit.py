"""Archives for tests: whole ones of every kind, and hostile ones, all built in the test."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import py7zr
import zstandard

from medcurate.config.source import Unpack
from medcurate.unpack import Unpacked, unpack

RNG = np.random.default_rng(7)
TREE = {
    "set/images/case1.bin": RNG.bytes(70_000),
    "set/images/case2.bin": RNG.bytes(600_000),  # above what one thread copies at once
    "set/labels/case1.bin": b"label " * 9_000,
    "set/labels/case2.bin": b"",
    "set/README.txt": b"read me\n",
}


def tar(path: Path, tree: Mapping[str, bytes] = TREE, mode: str = "w") -> Path:
    """A tar of ``tree`` with folders as members of their own."""
    with tarfile.open(path, mode) as archive:
        for name, content in tree.items():
            archive.addfile(tar_info(name, len(content)), io.BytesIO(content))
    return path


def tar_info(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = size, kind, link
    return info


def tar_of(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    """A tar of members as they are given."""
    with tarfile.open(path, "w") as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return path


def zip_archive(path: Path, tree: Mapping[str, bytes] = TREE, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in tree.items():
            archive.writestr(name, content)
    return path


def seven_zip(path: Path, tree: Mapping[str, bytes] = TREE, password: str | None = None) -> Path:
    with py7zr.SevenZipFile(path, "w", password=password) as archive:
        for name, content in tree.items():
            archive.writestr(content, name)
    return path


def pressed_tar(path: Path, press: Callable[[bytes], bytes]) -> Path:
    plain = tar(path.with_suffix(".plain"))
    path.write_bytes(press(plain.read_bytes()))
    plain.unlink()
    return path


def zstd(content: bytes) -> bytes:
    """Two frames, the second of them without its size."""
    middle = len(content) // 2
    second = zstandard.ZstdCompressor(write_content_size=False)
    return zstandard.ZstdCompressor().compress(content[:middle]) + second.compress(content[middle:])


def pzstd(content: bytes) -> bytes:
    """What pzstd writes: before every frame a skippable one that states its size."""
    middle = len(content) // 2
    frames = [zstandard.ZstdCompressor().compress(part) for part in (content[:middle], content[middle:])]
    return b"".join(struct.pack("<III", 0x184D2A50, 4, len(frame)) + frame for frame in frames)


KINDS: dict[str, Callable[[Path], Path]] = {
    "set.tar": tar,
    "set.tar.gz": lambda path: pressed_tar(path, lambda content: gzip.compress(content, 1)),
    "set.tgz": lambda path: pressed_tar(
        path, lambda content: gzip.compress(content[:999]) + gzip.compress(content[999:])
    ),
    "set.tar.bz2": lambda path: pressed_tar(path, bz2.compress),
    "set.tar.xz": lambda path: pressed_tar(path, lzma.compress),
    "set.tar.zst": lambda path: pressed_tar(path, zstd),
    "parallel.tar.zst": lambda path: pressed_tar(path, pzstd),
    "stored.zip": lambda path: zip_archive(path, method=zipfile.ZIP_STORED),
    "deflated.zip": zip_archive,
    "bzip2.zip": lambda path: zip_archive(path, method=zipfile.ZIP_BZIP2),
    "lzma.zip": lambda path: zip_archive(path, method=zipfile.ZIP_LZMA),
    "set.7z": seven_zip,
    "set.rar": lambda path: rar(path),
}


def rar(path: Path, tree: Mapping[str, bytes] = TREE) -> Path:
    """A RAR 4 archive of stored members (method 0x30), which rarfile reads without any program.

    Layout: the technical note that RARLAB publishes with its program; only stored blocks are made here.
    """
    blocks = [b"Rar!\x1a\x07\x00", _rar_block(0x73, 0, b"\0" * 6)]
    for name, content in tree.items():
        raw = name.replace("/", "\\").encode()
        fixed = struct.pack(
            "<IIBIIBBHI",
            len(content),
            len(content),
            3,
            zlib.crc32(content),
            0x58E10000,
            20,
            0x30,
            len(raw),
            0o100644,
        )
        blocks += [_rar_block(0x74, 0x8000, fixed + raw), content]
    blocks.append(_rar_block(0x7B, 0x4000, b""))
    path.write_bytes(b"".join(blocks))
    return path


def _rar_block(kind: int, flags: int, rest: bytes) -> bytes:
    head = struct.pack("<BHH", kind, flags, 7 + len(rest)) + rest
    return struct.pack("<H", zlib.crc32(head) & 0xFFFF) + head


def rule(**values: object) -> Unpack:
    return Unpack(into="data", **values)


def unpacked(archive: Path, folder: Path, **values: object) -> Unpacked:
    return unpack(archive, folder / "data", rule(**values))


def content(folder: Path) -> dict[str, bytes]:
    """All visible files below ``folder``; none may be a link."""
    found = {}
    for path in sorted(folder.rglob("*")):
        assert not path.is_symlink(), path
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not name.startswith("."):
            found[name] = path.read_bytes()
    return found


def reasons(result: Unpacked) -> dict[str, str]:
    return {refused.member: refused.reason for refused in result.refused}


def loop_tar() -> bytes:
    """CVE-2025-8194: the second header's PAX size leads back to the first."""
    head = tar_info("first.bin", 5).tobuf(tarfile.USTAR_FORMAT) + b"hello".ljust(512, b"\0")
    second = bytearray(tar_info("second.bin", 0).tobuf(tarfile.USTAR_FORMAT))
    second[124:136] = b"\xff" * 10 + b"\xfc\x00"  # base-256: -1024
    second[148:156] = b" " * 8
    second[148:156] = f"{sum(second):06o}\0 ".encode()
    return head + bytes(second) + b"\0" * 1024
