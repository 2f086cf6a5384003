"""One archive by two rules whose patterns overlap: what both want is unpacked once and lies on the disk once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from unpack_kit import KINDS, TREE, content, reasons, rule, zip_archive

from medcurate.config.source import Unpack
from medcurate.errors import DiskFull
from medcurate.unpack import DamagedArchive, Sibling, Unpacked, unpack
from medcurate.unpack import room as room_module
from medcurate.unpack import sink as sink_module
from medcurate.unpack import zip_archive as zip_archive_module

SHA = "0" * 64
IMAGES, CASE_1 = ["set/images/*"], ["set/*/case1.bin", "**/README.txt"]
SHARED = "images/case1.bin"


def made(
    archive: Path, folder: Path, others: list[tuple[Unpacked, Unpack]] = (), sha256: str = SHA, **values
):
    wanted = rule(**values)
    siblings = [Sibling(found.folder, other) for found, other in others]
    return unpack(archive, folder / "data", wanted, sha256=sha256, others=siblings), wanted


def inode(folder: Path, name: str) -> int:
    return (folder / name).stat().st_ino


@pytest.mark.parametrize("name", KINDS)
def test_what_both_want_is_one_file(name, tmp_path):
    archive = KINDS[name](tmp_path / name)
    first = made(archive, tmp_path / "a", strip=1, include=IMAGES)
    second, _ = made(archive, tmp_path / "b", [first], include=CASE_1)
    alone, _ = made(archive, tmp_path / "c", include=CASE_1)
    assert inode(first[0].folder, SHARED) == inode(second.folder, f"set/{SHARED}")
    assert content(second.folder) == content(alone.folder)
    assert content(alone.folder) == {key: TREE[key] for key in TREE if "case1" in key or "README" in key}
    assert (second.files, second.size_bytes, second.unwanted) == (
        alone.files,
        alone.size_bytes,
        alone.unwanted,
    )


def edited(folder: Path) -> None:
    (folder / SHARED).write_bytes(b"shorter")


def removed(folder: Path) -> None:
    (folder / "images/case2.bin").unlink()


def placed(folder: Path) -> None:
    (folder / ".unpacked.json").unlink()


@pytest.mark.parametrize("change", [edited, removed, placed])
def test_a_folder_that_is_not_as_it_was_made_gives_nothing(change, tmp_path):
    archive = zip_archive(tmp_path / "a.zip")
    first = made(archive, tmp_path / "a", strip=1, include=IMAGES)
    change(first[0].folder)
    second, _ = made(archive, tmp_path / "b", [first], include=CASE_1)
    assert content(second.folder)[f"set/{SHARED}"] == TREE[f"set/{SHARED}"]
    if change is not edited:
        assert inode(first[0].folder, SHARED) != inode(second.folder, f"set/{SHARED}")


@pytest.mark.parametrize("known", ["", "1" * 64])
def test_another_archive_gives_nothing(known, tmp_path):
    first = made(zip_archive(tmp_path / "a.zip"), tmp_path / "a", include=CASE_1)
    other = zip_archive(tmp_path / "b.zip", {name: bytes(len(data)) for name, data in TREE.items()})
    second, _ = made(other, tmp_path / "b", [first], sha256=known, include=CASE_1)
    assert not any(content(second.folder)[f"set/{SHARED}"])


def test_a_member_of_one_path_by_another_name_is_not_taken(tmp_path):
    """With their first folder left out, both are x.bin."""
    archive = zip_archive(tmp_path / "a.zip", {"ct/x.bin": b"ct", "mr/x.bin": b"mr", "mr/y.bin": b"y"})
    first = made(archive, tmp_path / "a", strip=1, include=["ct/*"])
    second, _ = made(archive, tmp_path / "b", [first], strip=1, include=["mr/*"])
    assert content(second.folder) == {"x.bin": b"mr", "y.bin": b"y"}
    both, _ = made(archive, tmp_path / "c", [first], strip=1, include=["*/x.bin", "*/y.bin"])
    assert reasons(both) == {"mr/x.bin": "DUPLICATE"}
    assert content(both.folder) == {"y.bin": b"y"}


def test_no_hard_links_means_unpacking(tmp_path, monkeypatch):
    archive = zip_archive(tmp_path / "a.zip")
    first = made(archive, tmp_path / "a", include=IMAGES)
    monkeypatch.setattr(
        os, "link", lambda *_, **__: (_ for _ in ()).throw(OSError(18, "another file system"))
    )
    second, _ = made(archive, tmp_path / "b", [first], include=CASE_1)
    assert content(second.folder)[f"set/{SHARED}"] == TREE[f"set/{SHARED}"]


@pytest.mark.parametrize("name", ["deflated.zip", "set.7z", "set.rar"])
def test_room_is_asked_for_what_is_wanted(name, tmp_path, monkeypatch):
    """Of an archive of terabytes a few labels may be all that is wanted."""
    archive = KINDS[name](tmp_path / name)
    asked = []
    for module in (sink_module, zip_archive_module):
        monkeypatch.setattr(
            module, "check_room", lambda folder, size_bytes, files: asked.append((size_bytes, files))
        )
    result, _ = made(archive, tmp_path / "a", include=["set/README.txt"])
    assert asked == [(result.size_bytes, 1)]


@pytest.fixture
def little_room(tmp_path, monkeypatch):
    """100 kB, less than every archive here has."""
    facts = os.statvfs(tmp_path)
    small = os.statvfs_result((*facts[:4], 100_000 // facts.f_frsize, *facts[5:]))
    monkeypatch.setattr(room_module.os, "statvfs", lambda folder: small)


@pytest.mark.parametrize("name", ["set.tar", "set.tar.gz", "set.tar.zst"])
def test_room_for_what_is_wanted_of_a_tar_is_told_before_anything_is_written(
    name, tmp_path, monkeypatch, little_room
):
    archive = KINDS[name](tmp_path / name)
    result, _ = made(archive, tmp_path / "a", include=["set/images/case1.bin"])
    assert content(result.folder) == {"set/images/case1.bin": TREE["set/images/case1.bin"]}
    monkeypatch.setattr(sink_module, "create", lambda path: pytest.fail("written"))
    with pytest.raises(DiskFull, match="unpacking needs 67"):
        made(archive, tmp_path / "b", include=IMAGES)


@pytest.mark.parametrize("name", ["set.tar", "set.tar.gz"])
def test_a_cut_tar_is_told_as_such_where_room_is_little(name, tmp_path, little_room):
    archive = KINDS[name](tmp_path / name)
    archive.write_bytes(archive.read_bytes()[:-20_000])
    with pytest.raises(DamagedArchive, match=r'last good member is "set/images/case1\.bin"'):
        made(archive, tmp_path / "a", include=["set/images/case1.bin"])
