"""Archives read in place: an index that is looked up on disk, and paths that lead into it."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unpack_kit import TREE, content, reasons, tar, unpacked, zip_archive

from medcurate.errors import CaseRejected, ConfigError, DataMissing, Reason
from medcurate.pairings.tree import entries, files_below, folders, names_in
from medcurate.readers.files import CaseFiles
from medcurate.zips import index as index_module
from medcurate.zips import inside
from medcurate.zips.directory import Entry, find_directory
from medcurate.zips.directory import entries as members_of
from medcurate.zips.index import Index, Item, key_of, write_index
from medcurate.zips.member import read_member
from medcurate.zips.volumes import BadZip, Volumes

LIMIT = 1 << 30


def in_place(archive: Path, folder: Path, **values: object):
    return unpacked(archive, folder, in_place=True, **values)


def item(path: str, size: int = 1) -> Item:
    return Item(key_of(path.split("/")), Entry(b"", True, 0, 0, 0, size, size, 0, 0, 0, 0))


NAMES = st.lists(
    st.lists(st.text(st.sampled_from("ab-._é1"), min_size=1, max_size=4), min_size=1, max_size=3).map(
        "/".join
    ),
    unique=True,
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(paths=NAMES, run=st.integers(1, 7))
def test_an_index_is_what_a_dictionary_would_be(paths, run, tmp_path_factory):
    """Whatever the size of the sorted runs; a path that is also a folder's stays out of this."""
    paths = [path for path in paths if not any(other.startswith(f"{path}/") for other in paths)]
    target = tmp_path_factory.mktemp("index") / "i"
    old, index_module.RUN_ENTRIES = index_module.RUN_ENTRIES, run
    try:
        written = write_index(target, [item(path, size) for size, path in enumerate(paths)], {"a": 1})
    finally:
        index_module.RUN_ENTRIES = old
    index = Index(target)
    assert (written.members, written.size_bytes, written.twice) == (len(paths), sum(range(len(paths))), [])
    assert index.facts == {"a": 1}
    for size, path in enumerate(paths):
        entry = index.entry(path.split("/"))
        assert entry is not None
        assert entry.size_bytes == size
    above = {path.rpartition("/")[0] for path in paths} | {""}
    above |= {"/".join(folder.split("/")[:depth]) for folder in above for depth in range(1, 3)}
    for folder in above:
        parts = folder.split("/") if folder else []
        files = sorted(p.rpartition("/")[2] for p in paths if p.rpartition("/")[0] == folder)
        below = sorted({f.rpartition("/")[2] for f in above - {""} if f.rpartition("/")[0] == folder})
        assert index.listing(parts) == (files, below)
        assert list(index.names(parts)) == sorted(files + below)
        assert index.is_folder(parts)
    assert index.entry(["no", "such"]) is None
    assert not index.is_folder(["nowhere"])


def test_paths_of_several_members_are_left_out(tmp_path):
    written = write_index(
        tmp_path / "i", [item("a/x"), item("b"), item("a/x"), item("c"), item("c"), item("c")], {}
    )
    assert written.twice == ["c", "a/x"]
    assert written.members == 1
    assert Index(tmp_path / "i").entry(["a", "x"]) is None


def test_what_is_no_index_is_refused(tmp_path):
    (tmp_path / "i").write_bytes(b"x" * 100)
    with pytest.raises(ValueError, match="not an index"):
        Index(tmp_path / "i")


def test_a_case_reads_the_same_bytes_in_place(tmp_path):
    zip_archive(tmp_path / "a.zip")
    result = in_place(tmp_path / "a.zip", tmp_path)
    assert content(result.folder) == {}
    assert (result.files, result.size_bytes) == (len(TREE), sum(map(len, TREE.values())))
    files = CaseFiles(tmp_path, LIMIT)
    for name, blob in TREE.items():
        assert files.read(Path("data") / name) == blob
        assert files.inputs[Path("data") / name].size_bytes == len(blob)
        assert inside.exists(tmp_path / "data" / name)
    assert files.head(Path("data/set/README.txt"), 4) == b"read"
    with pytest.raises(CaseRejected) as caught:
        files.read(Path("data/set/none.bin"))
    assert caught.value.reason == Reason.MISSING_FILE
    with pytest.raises(CaseRejected) as caught:
        CaseFiles(tmp_path, 100).read(Path("data/set/images/case1.bin"))
    assert caught.value.reason == Reason.HEADER_SIZE


def test_trees_look_the_same_in_place(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    archive = zip_archive(tmp_path / "a.zip", TREE | {"set/more/deep/x.bin": b"x", "set/.hidden/y": b"y"})
    one = unpacked(archive, tmp_path / "one").folder.parent
    two = in_place(archive, tmp_path / "two").folder.parent
    for template in ("data", "data/set", "data/*", "data/**", "**", "data/set/im*", "data/none"):
        assert folders(two, template) == folders(one, template), template
    for folder in ("", "data", "data/set", "data/set/images", "data/none"):
        assert entries(two / folder) == entries(one / folder), folder
    assert files_below(two, Path("data")) == files_below(one, Path("data"))
    assert list(names_in(two / "data/set/images")) == list(names_in(one / "data/set/images"))
    assert not inside.exists(two / "data/set/none")


def test_strip_include_and_refusals_are_those_of_unpacking(tmp_path):
    tree = {"top/a.txt": b"a", "top/b.bin": b"b", "../out.txt": b"o", "top/._a.txt": b"h", "readme": b"r"}
    archive = zip_archive(tmp_path / "a.zip", tree)
    rules = {"strip": 1, "include": ["**/*.txt"]}
    (tmp_path / "one").mkdir()
    one, two = unpacked(archive, tmp_path / "one", **rules), in_place(archive, tmp_path, **rules)
    assert reasons(one) == reasons(two) == {"../out.txt": "UNSAFE_MEMBER"}
    assert (one.files, one.hidden, one.unwanted) == (two.files, two.hidden, two.unwanted)
    assert inside.read(tmp_path / "data/a.txt", LIMIT) == b"a"


def test_a_damaged_member_is_refused_as_it_is_read(tmp_path):
    archive = zip_archive(tmp_path / "a.zip", {"a.bin": os.urandom(5000), "b.bin": b"b"}, zipfile.ZIP_STORED)
    in_place(archive, tmp_path)
    damaged = bytearray(archive.read_bytes())
    damaged[2000] ^= 1
    archive.write_bytes(damaged)
    files = CaseFiles(tmp_path, LIMIT)
    assert files.read(Path("data/b.bin")) == b"b"
    with pytest.raises(CaseRejected) as caught:
        files.read(Path("data/a.bin"))
    assert caught.value.reason == Reason.CORRUPT
    assert "a.bin" not in caught.value.detail


def test_only_a_zip_is_read_in_place_and_its_absence_is_told(tmp_path):
    with pytest.raises(ConfigError, match="only zip archives"):
        in_place(tar(tmp_path / "a.tar"), tmp_path)
    archive = zip_archive(tmp_path / "a.zip")
    in_place(archive, tmp_path)
    assert not in_place(archive, tmp_path).fresh
    archive.rename(tmp_path / "elsewhere.zip")
    with pytest.raises(DataMissing, match="reads it in place"):
        in_place(archive, tmp_path)


def test_a_moved_lab_is_read_where_it_is_now(tmp_path):
    (tmp_path / "lab").mkdir()
    in_place(zip_archive(tmp_path / "lab/a.zip"), tmp_path / "lab")
    (tmp_path / "lab").rename(tmp_path / "moved")
    assert inside.read(tmp_path / "moved/data/set/README.txt", LIMIT) == TREE["set/README.txt"]


MEMORY = """
import resource, sys
from pathlib import Path
from medcurate.zips import index
from medcurate.zips.directory import Entry
index.RUN_ENTRIES = 10_000
count, target = int(sys.argv[1]), Path(sys.argv[2])
entry = Entry(b"", True, 0, 0, 0, 1, 1, 0, 0, 0, 0)
names = (f"image--with--a--long--name--{number * 7919 % count:09d}.png" for number in range(count))
index.write_index(target, (index.Item(b"folder\\0" + name.encode(), entry) for name in names), {})
opened = index.Index(target)
for number in range(0, count, count // 200):
    assert opened.entry(["folder", f"image--with--a--long--name--{number:09d}.png"]) is not None
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_an_index_of_many_members_takes_no_more_memory_than_one_of_few(tmp_path):
    peaks_kb = []
    for count in (10_000, 200_000):
        arguments = [sys.executable, "-c", MEMORY, str(count), str(tmp_path / str(count))]
        peaks_kb.append(int(subprocess.run(arguments, capture_output=True, text=True, check=True).stdout))
    size_kb = (tmp_path / "200000").stat().st_size // 1000  # pages of the mapped file count too
    assert peaks_kb[1] - peaks_kb[0] < size_kb + 8_000


# -- what writers without zip64 let run over -----------------------------------------------------------


def narrow_zip(path: Path, places: Mapping[int, bytes], count: int) -> Path:
    """A zip of stored members "0", "1", … at these positions, which declares ``count`` of them, without zip64."""
    records = []
    with open(path, "wb") as stream:
        for number, (place, data) in enumerate(places.items()):
            name, sizes = str(number).encode(), (zlib.crc32(data), len(data), len(data))
            if stream.tell() != place:
                stream.seek(place)
            stream.write(
                struct.pack("<4s5H3I2H", b"PK\3\4", 20, 0, 0, 0, 0, *sizes, len(name), 0) + name + data
            )
            facts = (20, 20, 0, 0, 0, 0, *sizes, len(name), 0, 0, 0, 0, 0, place % 2**32)
            records.append(struct.pack("<4s6H3I5H2I", b"PK\1\2", *facts) + name)
        at, directory = stream.tell(), b"".join(records)
        stream.write(
            directory + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count, count, len(directory), at % 2**32, 0)
        )
    return path


def members(path: Path) -> list[Entry]:
    with Volumes([path]) as volumes:
        return list(members_of(volumes, find_directory(volumes)))


@pytest.mark.parametrize("gib", [0, 5, 9])
def test_positions_that_ran_over_are_found(gib, tmp_path):
    """As macOS packs more than 4 GiB; the file has holes."""
    places = {0: b"first", 1000: b"second", (gib << 30) + 2000: b"third", (gib << 30) + 5000: b"fourth"}
    archive = narrow_zip(tmp_path / "a.zip", places, 4)
    with Volumes([archive]) as volumes:
        assert [read_member(volumes, entry, b"") for entry in members(archive)] == list(places.values())


def test_a_count_that_ran_over_is_no_damage(tmp_path):
    places = {100 * number: b"" for number in range(65_540)}
    archive = narrow_zip(tmp_path / "a.zip", places, 4)
    assert len(members(archive)) == 65_540
    raw = archive.read_bytes()
    archive.write_bytes(raw[:-14] + struct.pack("<2H", 5, 5) + raw[-10:])
    with pytest.raises(BadZip, match="has 65540 members, but 5 are declared"):
        members(archive)


def test_a_directory_of_fewer_members_than_its_zip64_record_declares_is_refused(tmp_path):
    archive = zip_archive(tmp_path / "a.zip")
    raw = archive.read_bytes()
    at = raw.rfind(b"PK\5\6")
    _, _, _, count, _, size, offset, _ = struct.unpack("<4s4H2IH", raw[at:])
    wide = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, *[count + 2**16] * 2, size, offset)
    archive.write_bytes(raw[:at] + wide + struct.pack("<4sIQI", b"PK\6\7", 0, at, 1) + raw[at:])
    with pytest.raises(BadZip, match=f"has {count} members, but {count + 2**16} are declared"):
        members(archive)
