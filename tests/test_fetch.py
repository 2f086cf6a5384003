"""Files of sources: made or copied when absent, verified once, never changed."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from functools import partial
from pathlib import Path

import py7zr
import pytest

import medcurate.build.stamps as stamps
from medcurate.build.fetch import OFFLINE, Network
from medcurate.build.fetch import ensure as ensure_all
from medcurate.build.stamps import STAMP_FILE
from medcurate.config.source import Source
from medcurate.download.lockfile import LOCK_FILE, LockFile
from medcurate.errors import ConfigError, DataMissing
from medcurate.library import load_source, packaged_sources, source_ids
from medcurate.tables import check_model

MNI = "embedded/mni152-tissues/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
PACKAGED = {"package": "medcurate.manifests", "resource": MNI}


def source(*files: dict[str, object]) -> Source:
    return check_model(
        {
            "id": "lab",
            "title": "",
            "homepage": "https://example.org/lab",
            "citation": "",
            "modality": "ct",
            "dimensions": 3,
            "licence": {"id": "CC0-1.0", "commercial": "yes"},
            "files": files,
            "pairings": [{"kind": "flat-suffix"}],
            "image": {"reader": "nifti"},
            "label": {"reader": "nifti", "decoder": "index"},
            "labels": {"1": "liver"},
        },
        Source,
        "test",
    )


def ensure(wanted: Source, data: Path, home: Path, network: Network = OFFLINE) -> Path:
    (folder,) = ensure_all([wanted], data, {wanted.id: home}, network)
    return folder


def by_hand(path: str, content: bytes | None = None) -> dict[str, object]:
    facts: dict[str, object] = {"path": path, "origin": {"by_hand": "Ask the owner."}}
    if content is not None:
        facts |= {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
    return facts


@pytest.fixture
def hashed(monkeypatch) -> list[str]:
    """Names of the files that were hashed."""
    names: list[str] = []
    original = stamps.file_digests

    def counting(path: Path, **options) -> dict[str, str]:
        names.append(path.name)
        return original(path, **options)

    monkeypatch.setattr(stamps, "file_digests", counting)
    return names


def _packaged_ids() -> list[str]:
    """The sources of which every file is in a package or generated."""
    found = {name: load_source(name).files for name in source_ids()}
    return [
        name
        for name, files in found.items()
        if files and all(file.origin.package or file.origin.generator for file in files)
    ]


def test_some_sources_are_packaged():
    assert {"mni152-tissues", "synthetic-ct-phantom"} <= set(_packaged_ids())


@pytest.mark.parametrize("name", _packaged_ids())
def test_packaged_sources_come_without_network(name, tmp_path):
    packaged = load_source(name)
    folder = ensure(packaged, tmp_path, packaged_sources())
    assert folder == tmp_path / name
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert found == {file.path for file in packaged.files} | {STAMP_FILE}
    for file in packaged.files:
        assert hashlib.sha256((folder / file.path).read_bytes()).hexdigest() == file.sha256


def test_a_lost_file_is_made_again_and_nothing_else(tmp_path):
    packaged = load_source("mni152-tissues")
    folder = ensure(packaged, tmp_path, packaged_sources())
    first, second = (folder / file.path for file in packaged.files[:2])
    first.unlink()
    before = second.stat().st_mtime_ns
    ensure(packaged, tmp_path, packaged_sources())
    assert first.is_file()
    assert second.stat().st_mtime_ns == before


def test_files_are_hashed_once(tmp_path, hashed):
    (tmp_path / "lab").mkdir()
    for name in ("a", "b"):
        (tmp_path / "lab" / name).write_bytes(name.encode())
    lab = source(by_hand("a", b"a"), by_hand("b", b"b"))
    ensure(lab, tmp_path, tmp_path)
    assert hashed == ["a", "b"]
    ensure(lab, tmp_path, tmp_path)
    assert hashed == ["a", "b"]
    os.utime(tmp_path / "lab" / "a", ns=(1, 1))
    ensure(lab, tmp_path, tmp_path)
    assert hashed == ["a", "b", "a"]


def test_a_new_declaration_is_compared_without_reading_again(tmp_path, hashed):
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "a").write_bytes(b"a")
    ensure(source(by_hand("a", b"a")), tmp_path, tmp_path)
    with pytest.raises(ConfigError, match=r"a: expected sha256 [0-9a-f]{64} \(declared\), got [0-9a-f]{64}"):
        ensure(source(by_hand("a", b"b")), tmp_path, tmp_path)
    assert hashed == ["a"]
    md5 = {"md5": hashlib.md5(b"a").hexdigest()}
    ensure(source(by_hand("a", b"a") | md5), tmp_path, tmp_path)
    with pytest.raises(ConfigError, match="expected md5 "):
        ensure(source(by_hand("a", b"a") | {"md5": "0" * 32}), tmp_path, tmp_path)
    assert hashed == ["a", "a"]


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"a": 1}', b'{"a": {}}', b"\xff"])
def test_a_damaged_stamp_only_costs_time(tmp_path, hashed, content):
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "a").write_bytes(b"a")
    (tmp_path / "lab" / STAMP_FILE).write_bytes(content)
    assert ensure(source(by_hand("a", b"a")), tmp_path, tmp_path) == tmp_path / "lab"
    assert hashed == ["a"]


def test_a_wrong_digest_is_told_with_both_and_the_file_is_kept(tmp_path):
    path = tmp_path / "lab" / "a"
    path.parent.mkdir()
    path.write_bytes(b"bad!")
    with pytest.raises(ConfigError) as caught:
        ensure(source(by_hand("a", b"good")), tmp_path, tmp_path)
    text = str(caught.value)
    for part in (
        str(path),
        hashlib.sha256(b"bad!").hexdigest(),
        hashlib.sha256(b"good").hexdigest(),
        '"lab"',
    ):
        assert part in text
    assert path.read_bytes() == b"bad!"
    assert not (path.parent / STAMP_FILE).exists()


def test_a_wrong_size_is_told_without_hashing(tmp_path, hashed):
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "a").write_bytes(b"too long")
    with pytest.raises(ConfigError, match="a: 8 bytes, but 4 are declared"):
        ensure(source(by_hand("a", b"good")), tmp_path, tmp_path)
    assert not hashed


def test_all_missing_files_are_listed_with_place_and_origin(tmp_path):
    url = {"path": "deep/b.zip", "origin": {"url": "https://example.org/b.zip"}, "size_bytes": 12345678}
    lab = source(by_hand("a", b"a"), url, {"path": "c", "origin": PACKAGED})
    with pytest.raises(DataMissing) as caught:
        ensure(lab, tmp_path, tmp_path)
    text = str(caught.value)
    assert f"files missing in {tmp_path / 'lab'}: 2. " in text
    assert f"{tmp_path}/lab/a\n    from: Ask the owner.\n    size: 1 bytes; sha256: ca978112ca1b" in text
    assert f"{tmp_path}/lab/deep/b.zip\n    from: https://example.org/b.zip\n" in text
    assert "size: 12,345,678 bytes; sha256: not known" in text
    assert str(tmp_path / "lab" / "c") not in text


def test_what_is_not_declared_is_trusted_once_and_then_held(tmp_path):
    (tmp_path / "lab").mkdir()
    path = tmp_path / "lab" / "a"
    path.write_bytes(b"anything")
    assert ensure(source(by_hand("a")), tmp_path, tmp_path) == tmp_path / "lab"
    entry = json.loads((tmp_path / "lab" / LOCK_FILE).read_bytes())["a"]
    assert (entry["sha256"], entry["size_bytes"]) == (hashlib.sha256(b"anything").hexdigest(), 8)
    assert entry["url"] == "Ask the owner."
    ensure(source(by_hand("a")), tmp_path, tmp_path)
    path.write_bytes(b"anything else")
    with pytest.raises(
        ConfigError, match=r"expected 8 bytes \(recorded on \d{4}-\d\d-\d\d in .*downloads.lock.json\)"
    ):
        ensure(source(by_hand("a")), tmp_path, tmp_path)
    assert path.read_bytes() == b"anything else"


def test_a_page_that_was_saved_instead_of_the_file_is_not_trusted(tmp_path):
    path = tmp_path / "lab" / "a.npy"
    path.parent.mkdir()
    path.write_bytes(b"<!DOCTYPE html><html>log in</html>")
    with pytest.raises(ConfigError, match=r"a\.npy: it is a web page: its host wants a login"):
        ensure(source(by_hand("a.npy")), tmp_path, tmp_path)
    path.write_bytes(b"the array")
    ensure(source(by_hand("a.npy")), tmp_path, tmp_path)


def test_a_page_may_be_the_file(tmp_path):
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "a.html").write_bytes(b"<html>")
    ensure(source(by_hand("a.html")), tmp_path, tmp_path)


def test_an_archive_that_was_placed_damaged_may_be_replaced(tmp_path):
    archive = tmp_path / "lab" / "a.zip"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w") as stream:
        stream.writestr("a.txt", b"one")
    whole = archive.read_bytes()
    archive.write_bytes(whole[:-9])
    wanted = source(by_hand("a.zip") | {"unpack": {"into": "a"}})
    with pytest.raises(ConfigError, match="remove it and run the same command again"):
        ensure(wanted, tmp_path, tmp_path)
    archive.write_bytes(whole)
    assert (ensure(wanted, tmp_path, tmp_path) / "a" / "a.txt").read_bytes() == b"one"


def zipped(path: Path, content: bytes = b"one") -> Path:
    path.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w") as stream:
        stream.writestr("d/a.txt", content)
    return path


def encrypted(path: Path, password: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    with py7zr.SevenZipFile(path, "w", password=password) as stream:
        stream.writestr(b"one", "d/a.txt")
    return path


RULE = {"into": "a"}


@pytest.mark.parametrize(
    ("make", "wrong"),
    [
        (zipped, RULE | {"include": ["typo/*"]}),
        (zipped, RULE | {"strip": 2}),
        (zipped, RULE | {"format": "tar"}),
        (partial(encrypted, password="right"), RULE),
        (partial(encrypted, password="right"), RULE | {"password": "wrong"}),
    ],
)
def test_a_wrong_unpack_table_lets_no_other_bytes_in(make, wrong, tmp_path):
    archive = make(tmp_path / "lab" / "a.bin")
    with pytest.raises(ConfigError, match=r"a\.bin: "):
        ensure(source(by_hand("a.bin") | {"unpack": wrong}), tmp_path, tmp_path)
    zipped(archive, b"other")
    with pytest.raises(ConfigError, match="recorded on"):
        ensure(source(by_hand("a.bin") | {"unpack": RULE}), tmp_path, tmp_path)


def test_of_a_damaged_member_another_copy_may_take_the_place(tmp_path):
    archive = zipped(tmp_path / "lab" / "a.zip")
    whole = archive.read_bytes()
    archive.write_bytes(whole.replace(b"one", b"0ne", 1))
    wanted = source(by_hand("a.zip") | {"unpack": RULE})
    with pytest.raises(ConfigError, match="or get the archive again"):
        ensure(wanted, tmp_path, tmp_path)
    archive.write_bytes(whole)
    assert (ensure(wanted, tmp_path, tmp_path) / "a" / "d" / "a.txt").read_bytes() == b"one"


def test_where_a_damaged_archive_of_a_declared_digest_came_from_stays_known(tmp_path):
    folder = tmp_path / "lab"
    folder.mkdir()
    (folder / "a.zip").write_bytes(b"PK\3\4 and no more")
    LockFile(folder).put(
        "a.zip",
        sha256=hashlib.sha256(b"PK\3\4 and no more").hexdigest(),
        size_bytes=16,
        url="https://example.org/a.zip",
    )
    wanted = source(by_hand("a.zip", b"PK\3\4 and no more") | {"unpack": RULE})
    with pytest.raises(ConfigError, match="remove it and run the same command again"):
        ensure(wanted, tmp_path, tmp_path)
    assert json.loads((folder / LOCK_FILE).read_bytes())["a.zip"]["url"] == "https://example.org/a.zip"


def test_a_declared_digest_counts_more_than_a_recorded_one(tmp_path):
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "a").write_bytes(b"old")
    ensure(source(by_hand("a")), tmp_path, tmp_path)
    (tmp_path / "lab" / "a").write_bytes(b"new")
    ensure(source(by_hand("a", b"new")), tmp_path, tmp_path)


def entry_with(**changed: object) -> bytes:
    entry = {"sha256": "0" * 64, "size_bytes": 1, "url": "", "etag": "", "date": "2026-01-31T00:00:00+00:00"}
    return json.dumps({"a": entry | changed}).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"a": 1}',
        b'{"a": {"sha256": "00"}}',
        entry_with(date=None),
        entry_with(sha256="A" * 64),
        entry_with(size_bytes=True),
    ],
)
def test_a_damaged_lock_file_is_not_overwritten(tmp_path, content):
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "a").write_bytes(b"a")
    (tmp_path / "lab" / LOCK_FILE).write_bytes(content)
    with pytest.raises(ConfigError, match=r"damaged .* restore it from a backup, or remove it"):
        ensure(source(by_hand("a")), tmp_path, tmp_path)
    assert (tmp_path / "lab" / LOCK_FILE).read_bytes() == content


@pytest.mark.parametrize(
    ("origin", "message"),
    [
        (PACKAGED | {"package": "no_such_package"}, 'comes with the package "no_such_package"; install that'),
        (PACKAGED | {"resource": "embedded/none"}, 'has no file "embedded/none"; reinstall it'),
        ({"generator": "ct-phantom/p99-1/image"}, 'generator "ct-phantom/p99-1/image" is unknown'),
    ],
)
def test_an_origin_that_cannot_be_had(tmp_path, origin, message):
    with pytest.raises(ConfigError, match=message):
        ensure(source({"path": "a", "origin": origin}), tmp_path, tmp_path)
    assert not list((tmp_path / "lab").glob("*"))


def test_a_lab_may_keep_its_files_beside_its_source(tmp_path):
    home = tmp_path / "mydata"
    home.mkdir()
    assert ensure(source(), tmp_path / "cache", home) == home
    assert not list(home.iterdir())


def test_the_data_folder_comes_before_the_sources_own(tmp_path):
    (tmp_path / "cache" / "lab").mkdir(parents=True)
    assert ensure(source(), tmp_path / "cache", tmp_path / "mydata") == tmp_path / "cache" / "lab"


def test_a_packaged_source_is_never_searched_in_the_installation(tmp_path):
    with pytest.raises(
        DataMissing, match=r"there is no folder .*/lab\. Get the files from https://example.org/lab"
    ):
        ensure(source(), tmp_path, packaged_sources())


def test_data_that_may_only_be_read_is_used_without_stamp(tmp_path, monkeypatch):
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "a").write_bytes(b"a")
    monkeypatch.setattr(stamps.os, "access", lambda *_: False)
    assert ensure(source(by_hand("a", b"a")), tmp_path, tmp_path) == tmp_path / "lab"
    assert not (tmp_path / "lab" / STAMP_FILE).exists()
