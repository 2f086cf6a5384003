"""Hostile and damaged archives: nothing outside of the folder, no full disk, no endless work, no silent loss."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import re
import resource
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import py7zr
import pytest
import pyzipper
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from unpack_kit import (
    KINDS,
    TREE,
    content,
    loop_tar,
    pressed_tar,
    rar,
    reasons,
    rule,
    seven_zip,
    tar,
    tar_info,
    tar_of,
    unpacked,
    zip_archive,
)

from medcurate.errors import ConfigError
from medcurate.unpack import DamagedArchive, damaged_members, unpack
from medcurate.unpack.limits import Limits
from medcurate.unpack.names import UnsafeName, components, matches

LETTERS = st.characters(min_codepoint=0x20, exclude_categories=["Cs", "Cc"])
GOOD = (tar_info("good.txt", 4), b"good")
UNSAFE_NAMES = [
    "../out.txt",
    "a/../../out.txt",
    "/tmp/medcurate-out.txt",
    "//tmp/medcurate-out.txt",
    "C:/out.txt",
    "c:out.txt",
    "..\\out.txt",
    "a\\b.txt",
    "a/./../b.txt",
]


def everything(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


@pytest.mark.parametrize("name", UNSAFE_NAMES)
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_a_name_that_leads_out_is_left_out_and_told(kind, name, tmp_path):
    place = tmp_path / "a" / "b"
    place.mkdir(parents=True)
    if kind == "tar":
        tar_of(place / "x", GOOD, (tar_info(name, 3), b"bad"))
    else:
        zip_archive(place / "x", {"good.txt": b"good", name: b"bad"})
    result = unpacked(place / "x", place)
    assert content(result.folder) == {"good.txt": b"good"}
    assert reasons(result) == {name: "UNSAFE_MEMBER"}
    assert everything(tmp_path) == {
        "a", "a/b", "a/b/x", "a/b/data", "a/b/data/good.txt", "a/b/data/.unpacked.json"
    }  # fmt: skip
    assert not Path("/tmp/medcurate-out.txt").exists()


def test_a_link_and_what_is_written_through_it(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    archive = tar_of(
        tmp_path / "slip.tar",
        GOOD,
        (tar_info("link", kind=tarfile.SYMTYPE, link=str(outside)), b""),
        (tar_info("link/evil.txt", 4), b"evil"),
        (tar_info("hard", kind=tarfile.LNKTYPE, link="/etc/passwd"), b""),
    )
    result = unpacked(archive, tmp_path)
    assert content(result.folder) == {"good.txt": b"good", "link/evil.txt": b"evil"}
    assert reasons(result) == {"link": "UNSAFE_MEMBER", "hard": "UNSAFE_MEMBER"}
    assert not list(outside.iterdir())


def test_a_link_in_a_zip(tmp_path):
    info = zipfile.ZipInfo("link")
    info.create_system, info.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
        archive.writestr("link/x", "x")
    result = unpacked(tmp_path / "a.zip", tmp_path)
    assert reasons(result) == {"link": "UNSAFE_MEMBER"}
    assert content(result.folder) == {"link/x": b"x"}


@pytest.mark.parametrize("kind", [tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, b"Z"])
def test_only_regular_files(kind, tmp_path):
    result = unpacked(tar_of(tmp_path / "a.tar", GOOD, (tar_info("odd", kind=kind), b"")), tmp_path)
    assert content(result.folder) == {"good.txt": b"good"}
    assert reasons(result) == {"odd": "UNSAFE_MEMBER"}


def test_a_tar_that_loops_stops_at_once(tmp_path):
    (tmp_path / "neg2.tar").write_bytes(loop_tar())
    started = time.monotonic()
    with pytest.raises(ConfigError, match=r'leads backwards.*last good member is "first\.bin"'):
        unpacked(tmp_path / "neg2.tar", tmp_path)
    assert time.monotonic() - started < 5
    assert not (tmp_path / "data").exists()


def test_a_header_that_claims_gigabytes_is_not_read(tmp_path):
    info = tar_info("././@LongLink", 8 << 30, tarfile.GNUTYPE_LONGNAME)
    (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + b"x" * 5000)
    with pytest.raises(ConfigError, match="a header of 8,589,934,592 bytes"):
        unpacked(tmp_path / "a.tar", tmp_path)


ZEROS = b"\0" * (1 << 20)


def bomb_gz(path: Path, mebibytes: int, *, as_tar: bool, name: str = "bomb.bin") -> Path:
    press = zlib.compressobj(9, zlib.DEFLATED, 31)
    with open(path, "wb") as out:
        if as_tar:
            out.write(press.compress(tar_info(name, mebibytes << 20).tobuf()))
        for _ in range(mebibytes):
            out.write(press.compress(ZEROS))
        out.write(press.compress(b"\0" * 1024) + press.flush())
    return path


BOMBED = """
import re, sys
from pathlib import Path
from medcurate.config.source import Unpack
from medcurate.errors import ConfigError
from medcurate.unpack import unpack
try:
    unpack(Path(sys.argv[1]), Path(sys.argv[2]), Unpack(into="data", nested=("*.zip", "*.nii.gz")))
except ConfigError as error:
    print(error)
# Not ru_maxrss: that of a child begins with what its parent had.
print("RSS", re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


def bomb_zip(path: Path, mebibytes: int) -> Path:
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive,
        archive.open("bomb.bin", "w") as stream,
    ):
        for _ in range(mebibytes):
            stream.write(ZEROS)
    return path


def nested_bomb(path: Path) -> Path:
    inner = bomb_zip(path.with_name("inner.zip"), 350)
    return zip_archive(path, {"inner.zip": inner.read_bytes()}, zipfile.ZIP_STORED)


def nested_nifti_bomb(path: Path) -> Path:
    inner = bomb_gz(path.with_name("inner.nii.gz"), 350, as_tar=False)
    return zip_archive(path, {"inner.nii.gz": inner.read_bytes()}, zipfile.ZIP_STORED)


def bomb_of(press: Callable[[bytes], bytes], suffix: str) -> Callable[[Path], Path]:
    """350 MiB of zeros as streams of 10 MiB, one after another."""

    def make(path: Path) -> Path:
        path = path.with_name(f"{path.name}{suffix}")
        path.write_bytes(press(ZEROS * 10) * 35)
        return path

    return make


def bomb_7z(path: Path) -> Path:
    with py7zr.SevenZipFile(path, "w", filters=[{"id": py7zr.FILTER_DEFLATE}]) as archive:
        archive.writestr(ZEROS * 350, "bomb.bin")
    return path


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: bomb_zip(path, 350), r'"bomb\.bin" was left out: TOO_LARGE, .* raise ratio there'),
        (lambda path: bomb_gz(path, 350, as_tar=True), "TOO_LARGE"),
        (lambda path: bomb_gz(path, 350, as_tar=False), "TOO_LARGE"),
        (lambda path: bomb_gz(path.with_name("bomb.nii.gz"), 350, as_tar=False), "TOO_LARGE"),
        (nested_bomb, r'"bomb\.bin" was left out: TOO_LARGE, .* raise ratio there'),
        (nested_nifti_bomb, r"inner\.nii\.gz: TOO_LARGE"),
        (bomb_of(bz2.compress, ".bz2"), "TOO_LARGE"),
        (bomb_of(lzma.compress, ".xz"), "TOO_LARGE"),
        (bomb_of(lambda content: zstandard.ZstdCompressor().compress(content), ".zst"), "TOO_LARGE"),
        (bomb_7z, "TOO_LARGE"),
    ],
    ids=["zip", "tar.gz", "gz", "nii.gz", "nested zip", "nested nii.gz", "bz2", "xz", "zst", "7z"],
)
def test_bombs_stop_before_they_fill_disk_or_memory(make, words, tmp_path):
    archive = make(tmp_path / "bomb")
    done = subprocess.run(
        [sys.executable, "-c", BOMBED, str(archive), str(tmp_path / "data")],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (300 << 20, 300 << 20)),
    )
    assert re.search(words, done.stdout), done.stdout
    assert int(done.stdout.split("RSS")[1]) < 300_000  # kB
    assert not (tmp_path / "data").exists()
    assert not list(tmp_path.glob(".tmp-*"))


def test_what_is_passed_over_counts_too(tmp_path):
    """A member that nobody wants costs the time to inflate it."""
    archive = bomb_gz(tmp_path / "a.tar.gz", 350, as_tar=True, name=".hidden")
    with pytest.raises(ConfigError, match="TOO_LARGE"):
        unpacked(archive, tmp_path)


def test_members_that_share_their_data_stop_at_the_ratio(tmp_path):
    """The overlapping bomb: ten thousand directory entries that point to one member."""
    archive = bomb_zip(tmp_path / "a.zip", 100).read_bytes()
    at = archive.index(b"PK\x01\x02")
    end = archive.index(b"PK\x05\x06")
    count = 10_000
    central = archive[at:end] * count
    tail = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, count, count, len(central), at, 0)
    (tmp_path / "b.zip").write_bytes(archive[:at] + central + tail)
    with pytest.raises(ConfigError, match="TOO_LARGE"):
        unpacked(tmp_path / "b.zip", tmp_path)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(members=3), "more than 3 members"),
        (Limits(size_bytes=1000), "TOO_LARGE"),
        (Limits(seconds=-1), "took"),
    ],
)
@pytest.mark.parametrize("name", ["set.tar", "deflated.zip", "set.7z"])
def test_other_bounds(name, limits, words, tmp_path):
    with pytest.raises(ConfigError, match=words):
        unpack(KINDS[name](tmp_path / name), tmp_path / "data", rule(), limits=limits)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("name", ["set.tar", "deflated.zip", "set.7z"])
def test_too_many_members_of_one_name_are_no_damage(name, tmp_path):
    with pytest.raises(ConfigError, match=r"more than 1 members .*Mend the unpack table") as caught:
        unpack(KINDS[name](tmp_path / name), tmp_path / "data", rule(strip=2), limits=Limits(refused=1))
    assert not isinstance(caught.value, DamagedArchive)


def test_a_higher_ratio_is_the_users_to_allow(tmp_path):
    archive = bomb_zip(tmp_path / "a.zip", 300)
    with pytest.raises(ConfigError, match="left out"):
        unpacked(archive, tmp_path)
    assert unpacked(archive, tmp_path, ratio=1100).size_bytes == 300 << 20


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("share", [0.2, 0.6, 0.98])
def test_a_cut_archive_stops(name, share, tmp_path):
    path = KINDS[name](tmp_path / name)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(DamagedArchive, match=r"cut|damaged|left out|end record") as caught:
        unpacked(path, tmp_path)
    if share > 0.5 and name in {"set.tar", "set.tar.gz", "stored.zip", "deflated.zip"}:
        last = "set/images/case1.bin" if share < 0.9 else 'set/[^"]*'
        assert re.search(f'last (good|whole) member is "({last})"', str(caught.value))
    assert not (tmp_path / "data").exists()
    assert not list(tmp_path.glob(".tmp-*"))


def test_a_tar_cut_between_two_members_stops(tmp_path):
    path = tar(tmp_path / "a.tar")
    with tarfile.open(path) as archive:
        border = archive.getmembers()[2].offset
    path.write_bytes(path.read_bytes()[:border])
    with pytest.raises(
        ConfigError, match=r'end mark is missing.*last good member is "set/images/case2\.bin"'
    ):
        unpacked(path, tmp_path)


def test_a_damaged_header_in_the_middle_of_a_tar_stops(tmp_path):
    """tarfile takes it for the end of the archive, in silence."""
    path = tar(tmp_path / "a.tar")
    with tarfile.open(path) as archive:
        at = archive.getmembers()[2].offset
    damaged = bytearray(path.read_bytes())
    damaged[at + 100] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(ConfigError, match="end mark is missing"):
        unpacked(path, tmp_path)


@pytest.mark.parametrize("where", ["crc", "data"])
@pytest.mark.parametrize("big", [False, True])
def test_one_damaged_member_is_left_out_alone(where, big, tmp_path):
    size = (17 << 20) if big else 50_000
    tree = {"a.bin": b"a" * 1000, "s0864.nii.gz": os.urandom(size), "z.bin": b"z" * 1000}
    path = zip_archive(tmp_path / "a.zip", tree)
    damaged = bytearray(path.read_bytes())
    if where == "data":
        damaged[damaged.index(b"s0864") + 5_000] ^= 0x10
    else:
        damaged[damaged.rindex(b"s0864") - 30] ^= 0x10  # the CRC in the directory
    path.write_bytes(damaged)
    result = unpacked(path, tmp_path)
    assert sorted(content(result.folder)) == ["a.bin", "z.bin"]
    assert [refused.reason for refused in damaged_members(result.folder)] == ["DAMAGED"]
    assert damaged_members(result.folder)[0].member == "s0864.nii.gz"
    assert result.files == 2


def test_one_damaged_nested_archive_is_left_out_whole(tmp_path):
    good = gzip.compress(tar(tmp_path / "g", {"one.txt": b"1"}).read_bytes())
    bad = bytearray(gzip.compress(tar(tmp_path / "b", {"two.txt": b"2", "three.txt": b"3"}).read_bytes()))
    bad[-6] ^= 1  # its checksum: the members come out before it is read
    archive = zip_archive(tmp_path / "a.zip", {"x/good.tgz": good, "y/bad.tgz": bytes(bad)})
    result = unpacked(archive, tmp_path, nested=["**/*.tgz"])
    assert content(result.folder) == {"x/one.txt": b"1"}
    assert reasons(result) == {"y/bad.tgz": "DAMAGED"}
    assert result.files == 1


def test_of_a_cut_nested_tar_no_member_stays_that_waited_for_a_thread(tmp_path, capfd):
    """Members of more than a quarter of a MiB are copied by threads; those in the queue are given up."""
    whole = tar(tmp_path / "b", {f"{n:02d}.bin": os.urandom(300_000) for n in range(24)}).read_bytes()
    cut = whole[:-200_000]
    archive = zip_archive(tmp_path / "a.zip", {"good.txt": b"1", **{f"{n}/bad.tar": cut for n in range(4)}})
    before = len(os.listdir("/proc/self/fd"))
    result = unpacked(archive, tmp_path, nested=["**/*.tar"])
    assert content(result.folder) == {"good.txt": b"1"}
    assert result.files == 1
    assert set(reasons(result).values()) == {"DAMAGED"}
    assert len(os.listdir("/proc/self/fd")) == before
    assert "Traceback" not in capfd.readouterr().err


def test_two_headers_of_different_names_are_not_believed(tmp_path):
    path = zip_archive(tmp_path / "a.zip", {"good.txt": b"1", "case.txt": b"2"})
    damaged = bytearray(path.read_bytes())
    at = damaged.index(b"case.txt")
    damaged[at : at + 4] = b"evil"
    path.write_bytes(damaged)
    assert reasons(unpacked(path, tmp_path)) == {"case.txt": "DAMAGED"}


@settings(max_examples=120, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@pytest.mark.parametrize("name", ["deflated.zip", "set.tar.gz"])
def test_no_flipped_bit_changes_a_file_in_silence(name, place, bit, tmp_path_factory):
    folder = tmp_path_factory.mktemp("flip")
    path = KINDS[name](folder / name)
    damaged = bytearray(path.read_bytes())
    damaged[int(place * len(damaged))] ^= 1 << bit
    path.write_bytes(damaged)
    try:
        result = unpacked(path, folder)
    except ConfigError:
        return
    for found, blob in content(result.folder).items():
        # A zip's names have no checksum of their own, but both headers must agree on them.
        assert blob == TREE.get(found, blob)
    assert len(content(result.folder)) + len(result.refused) + result.hidden + result.unwanted >= len(TREE)


def test_members_behind_a_damaged_header_of_a_rar_are_not_lost_in_silence(tmp_path):
    archive = KINDS["set.rar"](tmp_path / "a.rar")
    raw = bytearray(archive.read_bytes())
    raw[raw.index(b"set\\labels\\case2.bin") - 20] ^= 1
    archive.write_bytes(raw)
    with pytest.raises(ConfigError, match="it is cut or damaged"):
        unpacked(archive, tmp_path)


@pytest.mark.parametrize("place", range(32, 1100, 213))
def test_what_the_decompressor_of_a_7z_cannot_take_is_told(place, tmp_path):
    archive = seven_zip(tmp_path / "a.7z", {"a.txt": b"".join(b"%d " % number for number in range(3000))})
    raw = bytearray(archive.read_bytes())
    raw[place : place + 8] = b"\xff" * 8
    archive.write_bytes(raw)
    with pytest.raises(ConfigError, match="it is cut or damaged"):
        unpacked(archive, tmp_path)


def test_rar_without_a_program_says_what_to_install(tmp_path, monkeypatch):
    path = rar(tmp_path / "a.rar")
    damaged = path.read_bytes().replace(b"\x14\x30", b"\x14\x33")  # compressed, so that a program is needed
    fixed = bytearray(damaged)
    at = 20
    while at + 7 < len(fixed):  # mend the header checksums
        kind, _, size = struct.unpack_from("<BHH", fixed, at + 2)
        fixed[at : at + 2] = struct.pack("<H", zlib.crc32(bytes(fixed[at + 2 : at + size])) & 0xFFFF)
        at += size + (struct.unpack_from("<I", fixed, at + 7)[0] if kind == 0x74 else 0)
    path.write_bytes(fixed)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match="apt-get install unar"):
        unpacked(path, tmp_path)


@settings(max_examples=500, deadline=None)
@given(st.text(st.sampled_from("./\\:aC\0\n\udce9é~ x"), max_size=30))
def test_a_safe_name_never_leads_out(name):
    try:
        parts = components(name)
    except UnsafeName:
        return
    joined = os.path.normpath(os.path.join("/root/folder", *parts))
    assert joined == "/root/folder" or joined.startswith("/root/folder/")
    assert "\\" not in joined
    assert all(part.encode("utf-8") and "/" not in part and part not in {".", ".."} for part in parts)
    assert components("/".join(parts)) == parts


@settings(max_examples=200, deadline=None)
@given(st.text(LETTERS, min_size=200, max_size=400), st.text(LETTERS, min_size=200, max_size=400))
def test_names_that_differ_stay_different_when_shortened(one, two):
    names = [f"b{text}a.nii.gz".translate(dict.fromkeys(map(ord, "/\\\0:"), "-")) for text in (one, two)]
    held = ["/".join(components(name)) for name in names]
    assert all(len(name.encode()) <= 255 and name.endswith(".nii.gz") for name in held)
    assert (held[0] == held[1]) == (names[0] == names[1])


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("*.zip", "a.zip", True),
        ("*.zip", "d/a.zip", False),
        ("**/*.zip", "a.zip", True),
        ("**/*.zip", "d/e/a.zip", True),
        ("d/**", "d/e/a.zip", True),
        ("d/**", "e/d/a.zip", False),
        ("d/**/x", "d/x", True),
        ("d/[1]*", "d/[1]x", True),
        ("d/*", "d/e/x", False),
    ],
)
def test_patterns(pattern, name, fits):
    assert matches([pattern], name.split("/")) is fits


def test_aes_as_its_specification_says(tmp_path):
    with pyzipper.AESZipFile(
        tmp_path / "a.zip", "w", compression=zipfile.ZIP_DEFLATED, encryption=pyzipper.WZ_AES
    ) as out:
        out.setpassword(b"pw")
        for name, blob in TREE.items():
            out.writestr(name, blob)
    assert content(unpacked(tmp_path / "a.zip", tmp_path, password="pw").folder) == TREE


def test_a_stream_of_one_pressed_tar_inside_of_another(tmp_path):
    inner = pressed_tar(tmp_path / "i.tgz", gzip.compress).read_bytes()
    outer = io.BytesIO()
    with tarfile.open(fileobj=outer, mode="w:xz") as archive:
        archive.addfile(tar_info("sub/i.tgz", len(inner)), io.BytesIO(inner))
    (tmp_path / "o.tar.xz").write_bytes(outer.getvalue())
    result = unpacked(tmp_path / "o.tar.xz", tmp_path, nested=["**/*.tgz"])
    assert content(result.folder) == {f"sub/{name}": blob for name, blob in TREE.items()}
