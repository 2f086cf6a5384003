"""Unpacking: every kind of archive to the same folder, once, whole or not at all."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
from itertools import pairwise
from pathlib import Path

import py7zr
import pytest
import rarfile
from unpack_kit import (
    KINDS,
    TREE,
    content,
    reasons,
    rule,
    seven_zip,
    tar,
    tar_info,
    tar_of,
    unpacked,
    zip_archive,
)

from medcurate.config.source import Origin, SourceFile
from medcurate.errors import ConfigError, DataMissing, DiskFull
from medcurate.unpack import damaged_members, unpack
from medcurate.unpack import room as room_module
from medcurate.unpack.clone import can_clone
from medcurate.unpack.limits import Limits
from medcurate.unpack.needed import is_unpacked
from medcurate.unpack.record import RECORD_FILE


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_gives_the_same_files(name, tmp_path):
    result = unpacked(KINDS[name](tmp_path / name), tmp_path)
    assert content(result.folder) == TREE
    assert (result.files, result.size_bytes) == (len(TREE), sum(map(len, TREE.values())))
    assert result.fresh
    assert not result.refused
    assert not list(tmp_path.glob(".tmp-*"))


@pytest.mark.parametrize("name", ["scan.nii.gz"])
def test_a_compressed_file_that_is_no_tar_is_one_file(name, tmp_path):
    (tmp_path / name).write_bytes(gzip.compress(b"voxels" * 1000))
    assert content(unpacked(tmp_path / name, tmp_path).folder) == {"scan.nii": b"voxels" * 1000}


def test_a_declared_gz_is_no_tar_even_if_it_looks_like_one(tmp_path):
    plain = tar(tmp_path / "x.tar").read_bytes()
    (tmp_path / "x.tar.gz").write_bytes(gzip.compress(plain))
    assert content(unpacked(tmp_path / "x.tar.gz", tmp_path, format="gz").folder) == {"x.tar": plain}


def test_a_wrong_format_is_told(tmp_path):
    with pytest.raises(ConfigError, match="declared as 7z, but its first bytes are of zip"):
        unpacked(zip_archive(tmp_path / "a.zip"), tmp_path, format="7z")


@pytest.mark.parametrize(
    ("start", "words"), [(b"<!DOCTYPE html><p>Sign in", "web page"), (b"\0\1\2\3" * 200, "no archive")]
)
def test_what_is_no_archive_is_told(start, words, tmp_path):
    (tmp_path / "a.zip").write_bytes(start)
    with pytest.raises(ConfigError, match=words):
        unpacked(tmp_path / "a.zip", tmp_path)


@pytest.mark.parametrize("name", ["set.tar", "deflated.zip", "set.7z"])
def test_parts_in_order_are_one_archive(name, tmp_path):
    whole = KINDS[name](tmp_path / name).read_bytes()
    cuts = [0, 100, len(whole) // 2, len(whole)]
    parts = []
    for number, (start, end) in enumerate(pairwise(cuts)):
        parts.append(tmp_path / f"part{number}")
        parts[-1].write_bytes(whole[start:end])
    result = unpack(parts[-1], tmp_path / "data", rule(), parts[:-1])
    assert content(result.folder) == TREE


@pytest.mark.skipif(not shutil.which("zip"), reason="needs Info-ZIP")
@pytest.mark.parametrize("joined", [False, True])
def test_a_split_zip_is_read_from_its_parts_and_from_parts_joined_by_copying(joined, tmp_path):
    folder = tmp_path / "tree"
    for name, blob in TREE.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(blob)
    subprocess.run(["zip", "-q", "-r", "-s", "64k", "../s.zip", "set"], cwd=folder, check=True)
    parts = sorted(tmp_path.glob("s.z[0-9]*"))
    assert len(parts) > 3
    archive = tmp_path / "s.zip"
    if joined:
        archive = tmp_path / "joined.zip"
        archive.write_bytes(b"".join(path.read_bytes() for path in [*parts, tmp_path / "s.zip"]))
        parts = []
    assert content(unpack(archive, tmp_path / "data", rule(), parts).folder) == TREE


@pytest.mark.skipif(not shutil.which("zip"), reason="needs Info-ZIP")
@pytest.mark.parametrize(
    ("name", "in_place"),
    [("set.tar", False), ("set.tar.gz", False), ("deflated.zip", False), ("deflated.zip", True)],
)
def test_whole_archives_are_no_parts_of_one(name, in_place, tmp_path):
    """Only the members of one of them would be found, as by other programs."""
    first, second = (KINDS[name](tmp_path / f"{number}-{name}") for number in (1, 2))
    with pytest.raises(ConfigError, match=r"another (tar|zip) archive .* a file of its own, not as a part"):
        unpack(second, tmp_path / "data", rule(in_place=in_place), [first])


def test_what_follows_the_end_of_a_tar_means_nothing(tmp_path):
    archive = tar(tmp_path / "a.tar")
    archive.write_bytes(archive.read_bytes() + b"\0" * 700 + b"the rest of a tape")
    assert content(unpacked(archive, tmp_path).folder) == TREE


def test_a_missing_part_is_told(tmp_path):
    (tmp_path / "a.bin").write_bytes(os.urandom(400_000))
    subprocess.run(["zip", "-q", "-s", "64k", "s.zip", "a.bin"], cwd=tmp_path, check=True)
    parts = sorted(tmp_path.glob("s.z[0-9]*"))
    with pytest.raises(ConfigError, match=f"declares {len(parts) + 1} parts, but {len(parts)} are given"):
        unpack(tmp_path / "s.zip", tmp_path / "data", rule(), parts[1:])
    with pytest.raises(ConfigError, match="one of several parts, and the others are not given"):
        unpack(tmp_path / "s.zip", tmp_path / "data", rule())


@pytest.mark.skipif(not shutil.which("zip"), reason="needs Info-ZIP")
def test_a_zip_with_a_traditional_password(tmp_path):
    (tmp_path / "a.txt").write_bytes(TREE["set/labels/case1.bin"])
    subprocess.run(["zip", "-q", "-P", "s3cret", "p.zip", "a.txt"], cwd=tmp_path, check=True)
    with pytest.raises(ConfigError, match="encrypted; state its published password"):
        unpacked(tmp_path / "p.zip", tmp_path)
    with pytest.raises(ConfigError, match="the password does not fit"):
        unpacked(tmp_path / "p.zip", tmp_path, password="wrong")
    result = unpacked(tmp_path / "p.zip", tmp_path, password="s3cret")
    assert content(result.folder) == {"a.txt": TREE["set/labels/case1.bin"]}
    assert "s3cret" not in (result.folder / ".unpacked.json").read_text()


def test_a_7z_with_a_password(tmp_path):
    archive = seven_zip(tmp_path / "a.7z", password="pass")
    with pytest.raises(ConfigError, match="encrypted; state its published password"):
        unpacked(archive, tmp_path)
    assert content(unpacked(archive, tmp_path, password="pass").folder) == TREE


@pytest.mark.parametrize("hidden_names", [False, True])
def test_a_7z_without_its_password_or_with_another_is_told(hidden_names, tmp_path):
    path = tmp_path / "a.7z"
    with py7zr.SevenZipFile(path, "w", password="secret", header_encryption=hidden_names) as archive:
        archive.writestr(b"content " * 99, "a.bin")
    with pytest.raises(
        ConfigError, match=r"it is encrypted; state its published password.*Nothing was unpacked\.$"
    ):
        unpacked(path, tmp_path)
    with pytest.raises(
        ConfigError, match="cut or damaged, or the password of its unpack table is not its own"
    ):
        unpacked(path, tmp_path, password="other")


def test_an_encrypted_rar_is_told(tmp_path, monkeypatch):
    archive = KINDS["set.rar"](tmp_path / "a.rar")
    monkeypatch.setattr(rarfile.RarFile, "needs_password", lambda self: True)
    with pytest.raises(ConfigError, match="it is encrypted; state its published password"):
        unpacked(archive, tmp_path)


def test_a_zip_behind_other_bytes(tmp_path):
    whole = zip_archive(tmp_path / "a.zip").read_bytes()
    (tmp_path / "b.zip").write_bytes(b"#!/bin/sh\nexit\n" * 50 + whole)
    assert content(unpacked(tmp_path / "b.zip", tmp_path).folder) == TREE


@pytest.mark.parametrize("rest", [b"\r\n", b"\0" * 1000, b"a signature" * 99])
@pytest.mark.parametrize("in_place", [False, True])
def test_what_follows_the_end_of_a_zip_means_nothing(rest, in_place, tmp_path):
    archive = zip_archive(tmp_path / "a.zip")
    archive.write_bytes(archive.read_bytes() + rest)
    result = unpacked(archive, tmp_path, in_place=in_place)
    assert result.files == len(TREE)
    assert in_place or content(result.folder) == TREE


def test_the_end_of_a_zip_inside_of_a_cut_one_is_not_taken_for_its_own(tmp_path):
    """Its members would be all that is there: first one that is stored in another, then one in front of another."""
    inner = zip_archive(tmp_path / "a.zip", {"a.bin": b"a" * 99}).read_bytes()
    outer = zip_archive(
        tmp_path / "b.zip", {"a.zip": inner, "b.bin": b"b" * 99}, zipfile.ZIP_STORED
    ).read_bytes()
    for cut in (outer[: outer.index(b"b.bin") + 20], inner + outer[:-9], inner + outer[:60]):
        (tmp_path / "c.zip").write_bytes(cut)
        with pytest.raises(ConfigError, match="no end record: it is cut"):
            unpacked(tmp_path / "c.zip", tmp_path)


def test_zip64_sizes_are_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("a.bin", "w", force_zip64=True) as stream:
            stream.write(b"x" * 100)
        for number in range(66_000):  # more than the 16-bit count of the end record
            archive.writestr(zipfile.ZipInfo(f"d/{number}"), b"")
    result = unpacked(tmp_path / "a.zip", tmp_path, include=["a.bin", "d/6599*"])
    assert (result.folder / "a.bin").read_bytes() == b"x" * 100
    assert result.unwanted == 66_000 - 11


def test_a_zip64_end_record_is_found_where_the_narrow_one_had_room(tmp_path):
    """As Info-ZIP leaves it of an archive whose members it read from a pipe."""
    whole = zip_archive(tmp_path / "a.zip").read_bytes()
    directory, end = whole[:-22], whole[-22:]
    count, size, offset = struct.unpack_from("<HII", end, 10)
    wide = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, size, offset)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, len(directory), 1)
    (tmp_path / "b.zip").write_bytes(directory + wide + locator + end)
    assert content(unpacked(tmp_path / "b.zip", tmp_path).folder) == TREE


# -- what GNU tar writes ----------------------------------------------------------------------------


def gnu_incremental(path: Path, listed: bytes) -> Path:
    """As ``tar -g`` writes it: a folder is a list of its files, and times stand where POSIX has a name's start."""
    blocks = []
    for name, kind, data in (("d/", b"D", listed), ("d/a.bin", tarfile.REGTYPE, b"content")):
        info = tarfile.TarInfo(name)
        info.type, info.size = kind, len(data)
        header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
        header[345:369] = b"15300547232\0" * 2
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        blocks += [bytes(header), data.ljust(512, b"\0")]
    path.write_bytes(b"".join(blocks) + b"\0" * 1024)
    return path


@pytest.mark.parametrize("pressed", [False, True])
def test_a_full_dump_of_gnu_tar_is_read_under_its_own_names(pressed, tmp_path):
    archive = gnu_incremental(tmp_path / "a.tar", b"Ya.bin\0\0")
    if pressed:
        archive.write_bytes(gzip.compress(archive.read_bytes()))
    result = unpacked(archive, tmp_path)
    assert content(result.folder) == {"d/a.bin": b"content"}
    assert not result.refused


def pax(tree: dict[str, bytes], kinds: dict[str, tuple[bytes, dict[str, str]]], path: Path) -> Path:
    """A tar of ``tree`` with the types and extended headers of ``kinds`` for some."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in tree.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            info.type, info.pax_headers = kinds.get(name, (tarfile.REGTYPE, {}))
            archive.addfile(info, io.BytesIO(data))
    return path


def test_an_incremental_archive_that_lacks_files_is_refused(tmp_path):
    words = r'it is an incremental archive: "d/old.bin" and others are in an earlier one.*by hand'
    with pytest.raises(ConfigError, match=words):
        unpacked(gnu_incremental(tmp_path / "a.tar", b"Ya.bin\0Nold.bin\0\0"), tmp_path)
    kinds = {"d": (tarfile.DIRTYPE, {"GNU.dumpdir": "Ya.bin\0Nold.bin\0\0"})}
    with pytest.raises(ConfigError, match=words):
        unpacked(pax({"d": b"", "d/a.bin": b"x"}, kinds, tmp_path / "b.tar"), tmp_path)


@pytest.mark.parametrize("kind", [(b"M", {}), (tarfile.REGTYPE, {"GNU.volume.filename": "a.bin"})])
def test_a_later_volume_of_a_tar_is_refused(kind, tmp_path):
    """Its first member is the end of one that began elsewhere; the whole ones behind it would be all there is."""
    archive = pax({"a.bin": b"the end", "b.bin": b"whole"}, {"a.bin": kind}, tmp_path / "a.tar")
    with pytest.raises(ConfigError, match=r'one of several volumes: the start of "a\.bin" is in another'):
        unpacked(archive, tmp_path)


def volumes_of_a_tar(folder: Path, kind: str) -> list[Path]:
    """The two volumes that hold "a.bin", which goes on in the second."""
    (folder / "a.bin").write_bytes(TREE["set/images/case1.bin"] + bytes(100_000))
    volumes = [folder / "1.tar", folder / "2.tar"]
    make = ["tar", f"--format={kind}", "-cML", "100", "-f", volumes[0], "-C", folder, "a.bin"]
    subprocess.run(make, input=f"n {volumes[1]}\n", text=True, check=True, capture_output=True)
    return volumes


@pytest.mark.parametrize("kind", ["gnu", "posix"])
@pytest.mark.parametrize("pressed", [False, True])
@pytest.mark.parametrize("include", [[], ["b.bin"]])
def test_the_first_volume_of_a_tar_may_be_no_cut_archive(kind, pressed, include, tmp_path):
    volume, _ = volumes_of_a_tar(tmp_path, kind)
    if pressed:
        volume.write_bytes(gzip.compress(volume.read_bytes()))
    with pytest.raises(
        ConfigError, match=r"it is cut.*, or it is the first of several volumes.*tar -x -M.*by hand"
    ):
        unpacked(volume, tmp_path, include=include)


def test_what_ends_within_a_block_is_no_volume_of_a_tar(tmp_path):
    volume, _ = volumes_of_a_tar(tmp_path, "gnu")
    volume.write_bytes(volume.read_bytes()[:-1])
    with pytest.raises(ConfigError, match=r"it is cut inside of the member a\.bin\."):
        unpacked(volume, tmp_path)


@pytest.mark.parametrize("kind", ["gnu", "posix"])
def test_volumes_of_a_tar_are_no_parts_of_one(kind, tmp_path):
    """Their own headers became data of the file that goes on in them; zeros at its end passed for the archive's."""
    volumes = volumes_of_a_tar(tmp_path, kind)
    with pytest.raises(ConfigError, match=r'one of several volumes: the start of "a\.bin" is in another'):
        unpack(volumes[1], tmp_path / "data", rule(), volumes[:1])


def test_labels_and_headers_for_all_are_no_members(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "a commit"}) as archive:
        label = tarfile.TarInfo("Volume 1")
        label.type = b"V"
        archive.addfile(label)
        for name in ("a.bin", "long/" * 60 + "ü.bin"):
            info = tarfile.TarInfo(name)
            info.size = 1
            archive.addfile(info, io.BytesIO(b"x"))
    result = unpacked(path, tmp_path)
    assert content(result.folder) == {"a.bin": b"x", "long/" * 60 + "ü.bin": b"x"}
    assert not result.refused


SPARSE = {
    "0.0": {"GNU.sparse.size": "1024", "GNU.sparse.numblocks": "1", "GNU.sparse.offset": "0",
            "GNU.sparse.numbytes": "4"},
    "0.1": {"GNU.sparse.size": "1024", "GNU.sparse.numblocks": "1", "GNU.sparse.map": "0,4"},
    "1.0": {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "s", "GNU.sparse.realsize": "1024"},
}  # fmt: skip


@pytest.mark.parametrize("version", SPARSE)
def test_sparse_files_are_left_out_and_told(version, tmp_path):
    data = b"1\n0\n4\n".ljust(512, b"\0") + b"data" if version == "1.0" else b"data"
    archive = pax({"s": data, "z": b"z"}, {"s": (tarfile.REGTYPE, SPARSE[version])}, tmp_path / "a.tar")
    result = unpacked(archive, tmp_path)
    assert content(result.folder) == {"z": b"z"}
    assert [(each.member, each.detail) for each in result.refused] == [
        ("s", "a sparse file, not a regular file")
    ]


def test_strip_and_include(tmp_path):
    result = unpacked(tar(tmp_path / "a.tar"), tmp_path, strip=1, include=["set/*/case1.bin", "set/READ*"])
    assert sorted(content(result.folder)) == ["README.txt", "images/case1.bin", "labels/case1.bin"]
    assert result.unwanted == 2


def test_nothing_left_is_told_with_counts(tmp_path):
    with pytest.raises(ConfigError, match="5 members do not match include"):
        unpacked(tar(tmp_path / "a.tar"), tmp_path, include=["*.nii.gz"])
    assert not (tmp_path / "data").exists()


def test_hidden_members_are_left_out_and_counted(tmp_path):
    tree = {"a/case.nii": b"1", "a/._case.nii": b"2", "__MACOSX/a/._case.nii": b"3", ".DS_Store": b"4"}
    result = unpacked(zip_archive(tmp_path / "a.zip", tree), tmp_path)
    assert content(result.folder) == {"a/case.nii": b"1"}
    assert result.hidden == 3


def test_nested_archives_are_unpacked_where_they_lie(tmp_path):
    deep = zip_archive(tmp_path / "deep.zip", {"z.txt": b"z"}).read_bytes()
    inner = zip_archive(tmp_path / "inner.zip", {"y.txt": b"y", "more/deep.zip": deep}).read_bytes()
    gz = gzip.compress(b"volume")
    tree = {"top/one/inner.zip": inner, "top/two/x.nii.gz": gz, "top/keep.zip": inner}
    archive = tar(tmp_path / "a.tar", tree)
    result = unpacked(archive, tmp_path, strip=1, nested=["top/one/**/*.zip"])
    assert content(result.folder) == {
        "keep.zip": inner,
        "one/more/z.txt": b"z",
        "one/y.txt": b"y",
        "two/x.nii.gz": gz,
    }


def test_compressed_members_keep_their_names(tmp_path):
    tree = {f"a/im{n}.ppm.gz": gzip.compress(b"P6 %d" % n) for n in (1, 2)}
    result = unpacked(tar(tmp_path / "a.tar", tree), tmp_path, nested=["**/*.gz"])
    assert content(result.folder) == {"a/im1.ppm": b"P6 1", "a/im2.ppm": b"P6 2"}


def test_modes_are_fixed_whatever_archive_and_umask_say(tmp_path):
    info = tar_info("a/tool.sh", 2)
    info.mode = 0o6777
    old = os.umask(0o077)
    try:
        folder = unpacked(tar_of(tmp_path / "a.tar", (info, b"hi")), tmp_path).folder
    finally:
        os.umask(old)
    assert stat.S_IMODE((folder / "a/tool.sh").stat().st_mode) == 0o644
    assert stat.S_IMODE((folder / "a").stat().st_mode) == 0o755
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755


def test_it_is_not_unpacked_again(tmp_path):
    archive = zip_archive(tmp_path / "a.zip")
    first = unpacked(archive, tmp_path)
    (first.folder / "set/README.txt").write_bytes(b"touched")
    again = unpacked(archive, tmp_path)
    assert not again.fresh
    assert (again.files, again.refused) == (first.files, first.refused)
    assert (again.folder / "set/README.txt").read_bytes() == b"touched"
    archive.unlink()
    assert not unpacked(archive, tmp_path).fresh  # the folder is all that is needed


@pytest.mark.parametrize("known", [False, True])
def test_a_copied_archive_is_the_same_only_by_its_digest(known, tmp_path):
    archive, digest = zip_archive(tmp_path / "a.zip"), "0" * 64 if known else ""
    unpack(archive, tmp_path / "data", rule(), sha256=digest)
    os.utime(archive, (1, 1))
    assert unpack(archive, tmp_path / "data", rule(), sha256=digest).fresh is not known


def test_a_changed_rule_or_archive_replaces_the_folder(tmp_path):
    archive = zip_archive(tmp_path / "a.zip")
    unpacked(archive, tmp_path)
    assert sorted(content(unpacked(archive, tmp_path, strip=1).folder))[0] == "README.txt"
    zip_archive(archive, {"set/new.txt": b"new"})
    assert content(unpacked(archive, tmp_path, strip=1).folder) == {"new.txt": b"new"}
    assert not list(tmp_path.glob(".tmp-*"))


def test_a_raised_ratio_brings_what_was_too_large_before(tmp_path):
    archive = zip_archive(
        tmp_path / "a.zip", {"plain.bin": TREE["set/images/case1.bin"], "flat.bin": bytes(90_000)}
    )
    done = {}
    for ratio in (2.0, 2.0, 1000.0, 1000.0):
        limits = Limits(ratio=ratio, grace_bytes=1000)
        result = unpack(archive, tmp_path / "data", rule(ratio=ratio), limits=limits)
        done[ratio] = (result.fresh, sorted(content(result.folder)), reasons(result))
    assert done == {
        2.0: (False, ["plain.bin"], {"flat.bin": "TOO_LARGE"}),
        1000.0: (False, ["flat.bin", "plain.bin"], {}),
    }
    unpacked_by = SourceFile(path="a.zip", origin=Origin(by_hand="Ask."), unpack=rule(ratio=1000.0))
    assert is_unpacked(unpacked_by, tmp_path)
    limits = Limits(ratio=2.0, grace_bytes=1000)
    shutil.rmtree(tmp_path / "data")
    unpack(archive, tmp_path / "data", rule(ratio=2.0), limits=limits)
    assert not is_unpacked(unpacked_by, tmp_path), "its archive is needed once more"
    bounded = unpacked_by.model_copy(update={"unpack": rule(ratio=2.0)})
    assert can_clone(bounded, bounded, tmp_path)
    assert not can_clone(unpacked_by, bounded, tmp_path), "another source wants more of it"


def test_a_folder_placed_by_hand_is_left_alone(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/mine.txt").write_text("mine")
    result = unpacked(tmp_path / "absent.zip", tmp_path)
    assert result.by_hand
    assert content(result.folder) == {"mine.txt": b"mine"}
    assert damaged_members(result.folder) == ()


@pytest.mark.parametrize("text", ["{", "[]", '{"version": 0}', '{"version": 1}'])
def test_a_folder_with_an_unreadable_record_is_not_taken_for_one_placed_by_hand(tmp_path, text):
    folder = unpacked(zip_archive(tmp_path / "a.zip"), tmp_path).folder
    (folder / RECORD_FILE).write_text(text)
    with pytest.raises(ConfigError, match="Remove the folder"):
        unpacked(tmp_path / "a.zip", tmp_path)
    with pytest.raises(ConfigError, match="Remove the folder"):
        damaged_members(folder)


def test_nobody_is_told_to_remove_a_folder_whose_record_may_not_be_read(tmp_path):
    (tmp_path / "data" / RECORD_FILE).mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"\.unpacked\.json: cannot be read: .*Make it readable"):
        unpacked(tar(tmp_path / "a.tar"), tmp_path)


def test_a_missing_archive_is_told(tmp_path):
    with pytest.raises(DataMissing, match=r"absent\.zip: the archive is not there"):
        unpacked(tmp_path / "absent.zip", tmp_path)


def test_the_record_says_what_was_done(tmp_path):
    archive = tar(tmp_path / "a.tar")
    result = unpacked(archive, tmp_path, strip=1)
    record = json.loads((result.folder / ".unpacked.json").read_text())
    assert record["archive"]["files"][0]["size_bytes"] == archive.stat().st_size
    assert record["rule"]["strip"] == 1
    assert (record["files"], record["size_bytes"]) == (result.files, result.size_bytes)


def test_no_room_is_told_before_anything_is_written(tmp_path, monkeypatch):
    archive = zip_archive(tmp_path / "a.zip")
    facts = os.statvfs(tmp_path)
    small = os.statvfs_result((*facts[:4], 10, *facts[5:]))
    monkeypatch.setattr(room_module.os, "statvfs", lambda folder: small)
    with pytest.raises(DiskFull, match="unpacking needs"):
        unpacked(archive, tmp_path)
    assert not (tmp_path / "data").exists()
    assert not list(tmp_path.glob(".tmp-*"))


KILLED = """
import sys, os, time
from pathlib import Path
from medcurate.config.source import Unpack
from medcurate.unpack import unpack
unpack(Path(sys.argv[1]), Path(sys.argv[2]), Unpack(into="data"))
"""


@pytest.mark.parametrize("name", ["big.zip", "big.tar"])
def test_kill_9_leaves_nothing_or_everything_and_a_rerun_ends_it(name, tmp_path):
    tree = {f"d{number % 7}/f{number}.bin": bytes([number % 251]) * 40_000 for number in range(1000)}
    archive = (zip_archive if name.endswith("zip") else tar)(tmp_path / name, tree)
    target = tmp_path / "data"
    states = set()
    for pause in (0.0, 0.05, 0.15, 0.3, 5.0):
        shutil.rmtree(target, ignore_errors=True)
        child = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(archive), str(target)], stderr=subprocess.DEVNULL
        )
        while child.poll() is None and not list(tmp_path.glob(".tmp-*")) and not target.exists():
            time.sleep(0.002)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(pause)
        child.send_signal(signal.SIGKILL)
        child.wait()
        states.add(target.exists())
        if target.exists():
            assert len(content(target)) == len(tree)
    assert states == {False, True}  # both outcomes have been seen
    shutil.rmtree(target)
    assert content(unpacked(archive, tmp_path).folder) == tree
    assert not list(tmp_path.glob(".tmp-*")), "what killed ones left is gone"


def test_another_process_at_work_keeps_its_folder(tmp_path):
    import fcntl

    other = tmp_path / ".tmp-0123-data"
    other.mkdir()
    lock = os.open(other, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    unpacked(zip_archive(tmp_path / "a.zip"), tmp_path)
    assert other.is_dir()
    os.close(lock)


def test_names_that_no_disk_holds_are_escaped_the_same_way_everywhere(tmp_path):
    long = "x" * 300 + ".nii.gz"
    latin = tar_info("caf\udce9/a.txt", 1)
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w", encoding="utf-8", errors="surrogateescape") as out:
        out.addfile(latin, io.BytesIO(b"1"))
        out.addfile(tar_info(long, 1), io.BytesIO(b"2"))
        out.addfile(tar_info("Case.txt", 1), io.BytesIO(b"3"))
        out.addfile(tar_info("case.txt", 1), io.BytesIO(b"4"))
    result = unpacked(archive, tmp_path)
    names = content(result.folder)
    assert names["caf%E9/a.txt"] == b"1"
    assert (names["Case.txt"], names["case.txt"]) == (b"3", b"4")
    held = dict(result.renamed)[long]
    assert names[held] == b"2"
    assert held.endswith(".nii.gz")
    assert len(held.encode()) == 255


def test_members_of_one_name_are_all_left_out(tmp_path):
    archive = tar_of(
        tmp_path / "a.tar",
        (tar_info("a.txt", 1), b"1"),
        (tar_info("b.txt", 1), b"b"),
        (tar_info("./a.txt", 1), b"2"),
        (tar_info("a.txt", 1), b"3"),
        (tar_info("b.txt/c.txt", 1), b"c"),
    )
    result = unpacked(archive, tmp_path)
    assert content(result.folder) == {"b.txt": b"b"}
    assert result.files == 1
    assert reasons(result) == {"./a.txt": "DUPLICATE", "a.txt": "DUPLICATE", "b.txt/c.txt": "UNSAFE_MEMBER"}


def test_members_of_one_name_in_a_7z_are_left_out_alone(tmp_path):
    with py7zr.SevenZipFile(tmp_path / "a.7z", "w") as archive:
        for name, data in (
            ("a.bin", b"1"),
            ("b.bin", b"2"),
            ("a.bin", b"3"),
            ("a.bin", b"4"),
            ("c.bin", b"5"),
        ):
            archive.writestr(data, name)
    result = unpacked(tmp_path / "a.7z", tmp_path)
    assert content(result.folder) == {"b.bin": b"2", "c.bin": b"5"}
    assert (result.files, result.size_bytes, reasons(result)) == (2, 2, {"a.bin": "DUPLICATE"})
