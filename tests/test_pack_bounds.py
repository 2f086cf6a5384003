"""The largest shard that was asked for is kept together with a new size, whatever the pictures are like."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from kit import Piece, pieces, write_dataset
from pack_kit import pack, tree

from medcurate.errors import OutputError
from medcurate.pack.types import DamagedInput

SIDES = ((64, 64), (150, 90))


def drawings(height: int, width: int) -> list[np.ndarray]:
    """Pictures that deflate to little as they are, and to much at another size; and noise."""
    rng = np.random.default_rng(height)
    y, x = np.mgrid[:height, :width]
    grey = [
        (y + x) % 2 * 255,
        (y // 3 + x // 5) % 2 * 255,
        rng.integers(0, 2, (height, width)) * 255,
        np.full((height, width), 7),
        rng.integers(0, 256, (height, width)),
        (x * x + y * y) // 7 % 256,
        rng.integers(0, 256, (height, width, 3)),
        np.stack([x * y % 256, (x + y) % 2 * 255, y], axis=-1),
    ]
    return [image.astype(np.uint8) for image in grey]


def outlines(height: int, width: int) -> np.ndarray:
    """Masks with few and with very many runs."""
    rng = np.random.default_rng(width)
    y, x = np.mgrid[:height, :width]
    return np.stack([
        x < width / 2,
        (y + x) % 2 == 0,
        (y // 3 + x // 2) % 2 == 0,
        rng.random((height, width)) < 0.5,
        np.hypot(y - height / 2, x - width / 2) % 9 < 4,
    ])


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> Path:
    samples = []
    for height, width in SIDES:
        masks = outlines(height, width)
        for image in drawings(height, width):
            for chosen in (masks, masks[:1]):
                samples.append(Piece(f"demo--case{len(samples):03d}--z0000", image, chosen, "train"))
    return write_dataset(tmp_path_factory.mktemp("hostile") / "in", samples)


@pytest.mark.parametrize(
    ("size_px", "shard_bytes"), [(16, 65_536), (65, 65_536), (128, 131_072), (400, 1_000_000)]
)
def test_no_shard_is_larger_than_was_asked_for(hostile, tmp_path, size_px, shard_bytes):
    out = pack(hostile, tmp_path / "out", size_px=size_px, shard_bytes=shard_bytes)
    shards = pq.read_table(out / "manifest.parquet", columns=["shard", "key"]).group_by("shard")
    alone = {
        row["shard"]
        for row in shards.aggregate([("key", "count_distinct")]).to_pylist()
        if row["key_count_distinct"] == 1
    }
    sizes = {path.relative_to(out).as_posix(): path.stat().st_size for path in out.glob("shards/*.tar")}
    assert len(sizes) > 1
    assert [name for name, size in sizes.items() if size > shard_bytes and name not in alone] == []


@pytest.mark.parametrize(("size_px", "least"), [(32, 0.6), (64, 0.9), (128, 0.5)])
def test_shards_of_noise_are_nearly_full(tmp_path, size_px, least):
    """Noise is what a picture takes at most: fuller shards could pass the size."""
    source = write_dataset(tmp_path / "in", pieces(96, size=64))
    out = pack(source, tmp_path / "out", size_px=size_px, shard_bytes=131_072)
    train = sorted(out.glob("shards/train-*.tar"))
    assert len(train) > 1
    share = sum(path.stat().st_size for path in train[:-1]) / (131_072 * (len(train) - 1))
    assert share > least


def test_a_size_that_all_pictures_have_cuts_as_if_none_was_given(tmp_path):
    source = write_dataset(tmp_path / "in", pieces(48, size=64))
    same = pack(source, tmp_path / "same", size_px=64, shard_bytes=65_536)
    kept = pack(source, tmp_path / "kept", shard_bytes=65_536)
    names = {name for name in tree(kept) if name.endswith(".tar")}
    assert {name: tree(same)[name] for name in names} == {name: tree(kept)[name] for name in names}


def test_a_sample_that_begins_as_none_does_is_named(tmp_path):
    source = write_dataset(tmp_path / "in", pieces(8))
    row = pq.read_table(source / "manifest.parquet").to_pylist()[0]
    with open(source / row["shard"], "r+b") as stream:
        stream.seek(row["offset"] + 124)
        stream.write(b"no size")
    with pytest.raises(DamagedInput, match=f"{row['key']} is damaged"):
        pack(source, tmp_path / "out", size_px=32)
    (source / row["shard"]).unlink()
    with pytest.raises(OutputError, match="cannot be opened"):
        pack(source, tmp_path / "out", size_px=32)
