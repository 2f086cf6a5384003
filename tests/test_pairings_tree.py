"""What a listing offers: every file once, in any order of creation; links, pipes and stars."""

from __future__ import annotations

import os
import random
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trees import find, grow

from medcurate.pairings.tree import files_below, folders


def test_fifos_are_never_offered_and_links_are(tmp_path):
    root, store = tmp_path / "root", tmp_path / "store"
    grow(store, "abc")
    grow(root, "images/2.png", "labels/2.png", "labels/1.png", "labels/3.png")
    os.mkfifo(root / "images/3.png")
    (root / "images/1.png").symlink_to(store / "abc")
    (root / "labels/2.png").unlink()
    (root / "labels/2.png").symlink_to(store / "not-fetched")
    options = {"images": "images", "labels": "labels", "image_suffix": ".png", "label_suffix": ".png"}
    assert [f.problem for f in find(root, "paired-folders", **options)] == [
        "",
        "a link leads to a file that is not there",
        "label without image",
    ]
    os.mkfifo(root / "pipe")
    (root / "c").mkdir()
    (root / "c/ct.png").symlink_to(root / "pipe")
    (entry,) = find(root, "case-folder", cases="c", image="ct.png", label="seg.png")
    assert entry.images == ()


def test_links_in_a_circle_end(tmp_path):
    grow(tmp_path, "a/1.png", "a/1_mask.png")
    (tmp_path / "a/again").symlink_to(tmp_path, target_is_directory=True)
    assert [
        f.name
        for f in find(tmp_path, "flat-suffix", folder="**", image_suffix=".png", label_suffix="_mask.png")
    ] == ["a/1"]
    assert len(files_below(tmp_path, Path())) == 2


def test_only_stars_are_wildcards(tmp_path):
    grow(tmp_path, "set[1]/x.png", "set1/x.png")
    assert [folder.path.as_posix() for folder in folders(tmp_path, "set[1]")] == ["set[1]"]
    assert [(f.path.as_posix(), f.wildcards, f.name) for f in folders(tmp_path, "s*t[*]")] == [
        ("set[1]", ("e", "1"), "set[1]")
    ]


STEM = st.text("ab1_ -.", min_size=1, max_size=4).filter(lambda s: not s.startswith("."))
FILE = st.tuples(
    st.sampled_from(["a/images", "b/images", "a/masks", "b/masks"]),
    STEM,
    st.sampled_from([".png", "_m.png", "_m2.png"]),
)
SUFFIXES = {"image_suffix": ".png", "label_suffix": "_m*.png"}
KINDS = [
    (
        "paired-folders",
        {"images": "*/images", "labels": "*/masks"} | SUFFIXES | {"label_suffix": ["_m.png", ".png"]},
    ),
    ("paired-folders", {"images": "a/images", "labels": "*/masks"} | SUFFIXES),
    ("flat-suffix", {"folder": "**"} | SUFFIXES),
]


@settings(max_examples=60, deadline=None)
@given(
    files=st.sets(FILE, min_size=1, max_size=12), seed=st.integers(0, 1 << 16), kind=st.sampled_from(KINDS)
)
def test_every_file_is_accounted_for_once_in_any_order_of_creation(tmp_path_factory, files, seed, kind):
    names = sorted("".join((folder, "/", *rest)) for folder, *rest in files)
    trees = [tmp_path_factory.mktemp("tree") for _ in range(2)]
    for tree in trees:
        for folder in ("a/images", "a/masks", "b/images", "b/masks"):
            (tree / folder).mkdir(parents=True)
    grow(trees[0], *names)
    grow(trees[1], *random.Random(seed).sample(names, len(names)))
    first, second = (find(tree, kind[0], **kind[1]) for tree in trees)
    assert first == second
    assert [entry.name for entry in first] == sorted({entry.name for entry in first})
    paths = [p.as_posix() for entry in first for part in (*entry.images, *entry.labels) for p in part.paths]
    looked_at = [name for name in names if _explained(name, kind)]
    assert sorted(paths) == looked_at


def _explained(name: str, kind) -> bool:
    """An independent statement of which files the options of ``KINDS`` speak about."""
    folder, file = name.rsplit("/", 1)
    if kind[0] == "flat-suffix":
        return file != ".png"
    is_image = folder.endswith("images")
    if "a/images" in kind[1]["images"]:
        return folder == "a/images" if is_image else "_m" in file[1:]
    return True


@pytest.mark.parametrize("reverse", [False, True])
def test_the_order_of_the_file_system_does_not_matter(tmp_path, monkeypatch, reverse):
    real = os.scandir

    @contextmanager
    def scandir(path):
        with real(path) as listing:
            yield iter(sorted(listing, key=lambda entry: entry.name, reverse=reverse))

    monkeypatch.setattr("medcurate.pairings.tree.os.scandir", scandir)
    grow(tmp_path, *(f"{folder}/a{end}.png" for folder in "yx" for end in ("", "_m_2", "_m", "_m_1")))
    found = find(tmp_path, "flat-suffix", folder="*", image_suffix=".png", label_suffix="_m*.png")
    assert [f.name for f in found] == ["x/a", "y/a"]
    assert [label.paths[0].name for label in found[0].labels] == ["a_m.png", "a_m_1.png", "a_m_2.png"]
    found = find(tmp_path, "case-folder", image="a.png", label="a_m*.png", several_labels=True)
    assert [f.name for f in found] == ["x", "y"]
    assert [label.paths[0].name for label in found[0].labels] == ["a_m.png", "a_m_1.png", "a_m_2.png"]
