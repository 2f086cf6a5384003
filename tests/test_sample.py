"""A sample in a shard, read by webdataset, tarfile, pycocotools and by (offset, size)."""

from __future__ import annotations

import io
import json
import os
import tarfile

import numpy as np
import pytest
import webdataset as wds
from kit import pieces, write_dataset
from PIL import Image
from pycocotools import mask as coco

from medcurate.format import png, sample
from medcurate.format.sample import SampleError
from medcurate.format.shards import read_sample, shard_writer


def encoded(key="demo--case--z0001", shape=(20, 30)):
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    masks = np.stack([image.reshape(*shape[:2], -1)[..., 0] > bound for bound in (60, 120, 255)])
    info = {
        "image": {"height": shape[0], "width": shape[1]},
        "annotations": [{"segmentation": rle_of(mask), "label": "légende"} for mask in masks],
    }
    return image, masks, info, sample.encode(key, png.encode(image), info)


def rle_of(mask):
    rle = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 3), (1, 1)])
def test_decode_returns_what_was_encoded(shape):
    image, masks, info, blob = encoded(shape=shape)
    found = sample.decode(blob)
    assert found.key == "demo--case--z0001"
    assert np.array_equal(found.image, image)
    assert np.array_equal(found.masks, masks)
    assert found.masks.dtype == np.bool_
    assert found.info == info


def test_a_sample_without_masks():
    image = np.zeros((4, 5), np.uint8)
    found = sample.decode(sample.encode("k", png.encode(image), {"annotations": []}))
    assert found.masks.shape == (0, 4, 5)


@pytest.fixture
def shard(tmp_path):
    """A shard of three samples and where each lies: [(key, offset, size, digest)]."""
    rows = []
    with shard_writer(tmp_path / "train-000000.tar") as writer:
        for number in range(3):
            key = f"demo--case{number}--z0001"
            blob = encoded(key, shape=(20 + number, 30))[-1]
            rows.append((key, writer.append(blob), len(blob), sample.digest(blob)))
    return tmp_path / "train-000000.tar", rows


def test_webdatasets_default_handlers_decode_a_shard(shard):
    path, rows = shard
    seen = list(wds.WebDataset(str(path), shardshuffle=False, handler=wds.reraise_exception).decode("rgb8"))
    assert [entry["__key__"] for entry in seen] == [key for key, *_ in rows]
    for number, entry in enumerate(seen):
        image, masks, info, _ = encoded(shape=(20 + number, 30))
        assert np.array_equal(entry["png"], np.repeat(image[..., np.newaxis], 3, axis=2))
        assert entry["json"] == info
        for annotation, mask in zip(entry["json"]["annotations"], masks, strict=True):
            assert np.array_equal(coco.decode(annotation["segmentation"]).astype(bool), mask)
            assert coco.area(annotation["segmentation"]) == mask.sum()


def test_tarfile_reads_plain_ustar_with_fixed_headers(shard):
    path, rows = shard
    last = rows[-1][1] + rows[-1][2]
    assert path.read_bytes()[last:] == bytes(1024)  # the end of the archive, nothing else
    with tarfile.open(path, "r:") as archive:
        members = archive.getmembers()
        assert [m.name for m in members] == [f"{key}.{end}" for key, *_ in rows for end in ("png", "json")]
        for member in members:
            assert member.isreg()
            assert (member.mode, member.mtime, member.uid, member.gid) == (0o644, 0, 0, 0)
            assert (member.uname, member.gname, member.pax_headers) == ("", "", {})
            assert member.chksum == tarfile.calc_chksums(member.tobuf(tarfile.USTAR_FORMAT))[0]
            content = archive.extractfile(member).read()
            if member.name.endswith(".json"):
                assert json.loads(content)["annotations"][0]["label"] == "légende"
            else:
                assert Image.open(io.BytesIO(content)).mode == "L"


def test_offset_and_size_give_one_sample(shard):
    path, rows = shard
    descriptor = os.open(path, os.O_RDONLY)
    try:
        for key, offset, size, digest in reversed(rows):
            assert sample.decode(read_sample(descriptor, offset, size, digest)).key == key
        _, offset, size, digest = rows[-1]
        with pytest.raises(SampleError, match="differ"):
            read_sample(descriptor, offset, size, digest ^ 1)
        with pytest.raises(SampleError, match="cut"):
            read_sample(descriptor, offset, size + 4096, digest)
    finally:
        os.close(descriptor)


def test_a_failed_writer_leaves_no_shard(tmp_path):
    def fail():
        with shard_writer(tmp_path / "train-000000.tar") as writer:
            writer.append(encoded()[-1])
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_equal_samples_are_equal_bytes():
    assert encoded()[-1] == encoded()[-1]
    assert len(encoded()[-1]) % 512 == 0


def test_every_cut_and_every_appended_byte_is_refused():
    blob = encoded(shape=(6, 7))[-1]
    for size in range(len(blob)):
        with pytest.raises(SampleError):
            sample.decode(blob[:size])
    for tail in (b"\0", b"\0" * 512, blob):
        with pytest.raises(SampleError):
            sample.decode(blob + tail)


def test_a_flipped_bit_never_changes_pixels_and_never_crashes():
    image, _, _, blob = encoded(shape=(6, 7))
    refused = 0
    for place in range(len(blob)):
        damaged = bytearray(blob)
        damaged[place] ^= 1 << place % 8
        try:
            found = sample.decode(bytes(damaged))
        except SampleError:
            refused += 1
        else:
            # Padding, and digits or letters of the JSON: what the manifest's digest is for.
            assert np.array_equal(found.image, image)
            assert sample.digest(bytes(damaged)) != sample.digest(blob)
    assert refused > len(blob) / 2


@pytest.mark.parametrize(
    "info",
    [
        [1],
        None,
        {},
        {"annotations": None},
        {"annotations": [{}]},
        {"annotations": [{"segmentation": {"counts": 5}}]},
        {"annotations": [{"segmentation": {"counts": [1, 2]}}]},
        {"annotations": [{"segmentation": {"counts": "é"}}]},
        {"annotations": [{"segmentation": {"counts": "04"}}]},
    ],
)
def test_json_of_another_shape_is_refused(info):
    blob = sample.encode("key", png.encode(np.zeros((4, 5), np.uint8)), info)
    with pytest.raises(SampleError, match="key"):
        sample.decode(blob)


@pytest.mark.parametrize("text", [b"[1]", b"null", b"{", b""])
def test_members_that_hold_no_json_object_are_refused(text):
    with pytest.raises(SampleError):
        sample.split_members(sample.member("a.png", b"") + sample.member("a.json", text))


def test_members_of_other_names_are_refused():
    image = png.encode(np.zeros((4, 5), np.uint8))
    for first, second in (("a.png", "b.json"), ("a.json", "a.png"), ("a", "a.json")):
        with pytest.raises(SampleError, match="instead of KEY"):
            sample.decode(sample.member(first, image) + sample.member(second, b'{"annotations": []}'))


def test_names_that_ustar_cannot_hold_are_refused():
    assert len(sample.member("n" * 100, b"")) == 512
    with pytest.raises(ValueError, match="over 100 bytes"):
        sample.member("n" * 101, b"")


def test_infinite_numbers_are_not_written():
    with pytest.raises(ValueError, match="JSON compliant"):
        sample.encode("key", b"", {"annotations": [], "spacing": float("nan")})


def test_the_kits_dataset_reads_back(tmp_path):
    made = {piece.key: piece for piece in pieces(12, size=32)}
    write_dataset(tmp_path, list(made.values()), per_shard=4)
    shards = sorted(str(path) for path in tmp_path.glob("shards/*.tar"))
    seen = list(wds.WebDataset(shards, shardshuffle=False).decode())
    assert {entry["__key__"] for entry in seen} == set(made)
    for entry in seen:
        image = made[entry["__key__"]].image
        assert np.array_equal(
            png.decode(entry["png"]) if isinstance(entry["png"], bytes) else entry["png"], image
        )
