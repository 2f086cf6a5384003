"""Cached embeddings: equal to the encoder's, proved on reading, resumed after a kill, refused for other encoders."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import typer
from kit import pieces, write_dataset
from typer.testing import CliRunner

from medcurate.commit import TEMP_PREFIX
from medcurate.errors import ConfigError
from medcurate.format.sample import decode
from medcurate.storage import Location, StorageError, locate
from medcurate.tables import check_model
from medcurate.train.config.recipe import TrainRecipe
from medcurate.train.embed import write
from medcurate.train.embed.command import embed
from medcurate.train.embed.store import SCHEMA, EmbeddingStore, default_folder, identity_of
from medcurate.train.embed.write import Embedding, Share
from medcurate.train.geometry import PADDING, frame_of, place_image
from medcurate.train.loop.run import train
from medcurate.train.loop.start import Options
from medcurate.train.model.build import build_sam
from medcurate.train.model.checkpoint import save_original
from medcurate.train.model.sam import Sam
from medcurate.train.stream.index import Index
from medcurate.train.stream.open import open_stream
from medcurate.train.stream.reading import Reader
from medcurate.train.stream.select import open_index

torch.set_num_threads(1)
SIDE = 64
COUNT = 22
DIMS = {"width": 16, "depth": 1, "heads": 2, "global_blocks": [0], "prompt_width": 16, "decoder_heads": 2}
VALUE = {
    "name": "test",
    "title": "Test",
    "model": {"kind": "tiny", "dims": DIMS, "image_side": SIDE, "trainable": ["mask-decoder"]},
    "data": {"embeddings": True, "fit": "pad", "split": ""},
    "steps": {"method": "decoder-only"},
    "run": {"epochs": 1},
}
RECIPE = check_model(VALUE, TrainRecipe, "test")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "set", pieces(COUNT), per_shard=5)


@pytest.fixture(scope="module")
def index(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Index:
    return open_index(locate(dataset), split="", where="", by=(), cache=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def sam() -> Sam:
    torch.manual_seed(0)
    return build_sam(RECIPE.model).eval()


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "SHARD_BYTES", 4 * 2 * 16 * 16)  # four embeddings of 16 x 4 x 4 half floats


def embedding(sam: Sam, index: Index, dataset: Path, folder: Path) -> Embedding:
    reader = Reader(locate(dataset), index, threads=0)
    return Embedding(sam, identity_of(sam, RECIPE), index, reader, folder, batch=3)


def store(sam: Sam, folder: Path) -> EmbeddingStore:
    return EmbeddingStore(Location(str(folder)), identity_of(sam, RECIPE))


def keys_of(index: Index) -> list[str]:
    return [index.key(at) for at in range(len(index))]


def square(dataset: Path, index: Index, at: int) -> torch.Tensor:
    """The image in the model's square, uint8 (3, S, S), by the contract's own decoder."""
    start = int(index.offset[at])
    blob = (dataset / index.shards[int(index.shard[at])]).read_bytes()[start : start + int(index.size[at])]
    image = decode(blob).image
    out = np.zeros((3, SIDE, SIDE), np.uint8)
    place_image(image, frame_of(*image.shape[:2], SIDE, "pad"), "linear", out, PADDING["rgb"])
    return torch.from_numpy(out)


def test_embeddings_are_those_of_the_encoder_in_any_order(sam, index, dataset, tmp_path) -> None:
    assert embedding(sam, index, dataset, tmp_path).run(Share()) == COUNT
    order = np.random.default_rng(0).permutation(COUNT)[:13].tolist()
    keys = keys_of(index)
    found = store(sam, tmp_path).read([*(keys[at] for at in order), "", keys[order[0]]])
    with torch.no_grad():
        expected = sam.encode(torch.stack([square(dataset, index, at) for at in order]))
    assert found.dtype == torch.float16
    torch.testing.assert_close(found[:13].float(), expected, rtol=2e-3, atol=2e-3)
    assert not found[13].any()
    assert torch.equal(found[14], found[0])
    assert store(sam, tmp_path).read(["", ""]).shape == (2, 16, 4, 4)


def test_shards_are_plain_tars_of_npy_files(sam, index, dataset, tmp_path) -> None:
    embedding(sam, index, dataset, tmp_path).run(Share())
    found = {}
    shards = sorted(tmp_path.glob("*/shards/*"))
    assert len(shards) == 6
    for shard in shards:
        with tarfile.open(shard) as archive:
            for entry in archive:
                found[entry.name.removesuffix(".npy")] = np.load(
                    io.BytesIO(archive.extractfile(entry).read())
                )
    keys = keys_of(index)
    assert set(found) == set(keys)
    read = store(sam, tmp_path).read(keys)
    np.testing.assert_array_equal(np.stack([found[key] for key in keys]), read.numpy())


def test_a_killed_run_goes_on_where_it_stopped(sam, index, dataset, tmp_path, monkeypatch) -> None:
    whole = tmp_path / "whole"
    embedding(sam, index, dataset, whole).run(Share())
    calls = 0
    encode = sam.encode

    def dies(images: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 6:
            raise KeyboardInterrupt
        return encode(images)

    cut = tmp_path / "cut"
    monkeypatch.setattr(sam, "encode", dies)
    with pytest.raises(KeyboardInterrupt):
        embedding(sam, index, dataset, cut).run(Share())
    with pytest.raises(ConfigError, match="no embeddings of this encoder"):
        store(sam, cut)
    monkeypatch.setattr(sam, "encode", encode)
    assert embedding(sam, index, dataset, cut).run(Share()) == COUNT - 8
    trees = [{p.relative_to(f): p.read_bytes() for p in f.rglob("*") if p.is_file()} for f in (whole, cut)]
    assert trees[0] == trees[1]
    assert embedding(sam, index, dataset, cut).run(Share()) == 0


HANGS = """
import sys, time
from medcurate.train.embed.command import embed
from medcurate.train.model.sam import Sam

Sam.encode = lambda *_: time.sleep(120)
embed(recipe=sys.argv[1], data=sys.argv[2], checkpoint=sys.argv[3], split="all", device="cpu")
"""


def test_what_a_killed_process_left_is_removed_and_never_what_a_living_one_writes(
    dataset, sam, index, tmp_path
) -> None:
    copy = tmp_path / "set"
    shutil.copytree(dataset, copy)
    recipe, weights = tmp_path / "mine.toml", tmp_path / "weights.safetensors"
    recipe.write_text(_toml(VALUE), encoding="utf-8")
    save_original(sam, weights)
    folder = default_folder(str(copy)).path
    command = [sys.executable, "-c", HANGS, str(recipe), str(copy), str(weights)]
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    with subprocess.Popen(command, env=environment) as living:
        try:
            limit = time.monotonic() + 60
            while not (begun := list(folder.glob(f"*/shards/{TEMP_PREFIX}*"))):
                assert living.poll() is None
                assert time.monotonic() < limit
                time.sleep(0.02)
            assert embedding(sam, index, dataset, folder).run(Share()) == COUNT
            assert list(folder.glob(f"*/shards/{TEMP_PREFIX}*")) == begun
        finally:
            living.kill()
    left_index = begun[0].parents[1] / f"{TEMP_PREFIX}0-index.parquet"
    left_index.touch()
    assert embedding(sam, index, dataset, folder).run(Share()) == 0
    assert not [path for path in folder.rglob("*") if path.name.startswith(TEMP_PREFIX)]
    assert len(store(sam, folder).read(keys_of(index))) == COUNT


def test_processes_share_the_work_and_the_last_writes_the_index(sam, index, dataset, tmp_path) -> None:
    first = embedding(sam, index, dataset, tmp_path).run(Share(rank=1, world=2))
    assert 0 < first < COUNT
    with pytest.raises(ConfigError, match="no embeddings of this encoder"):
        store(sam, tmp_path)
    assert embedding(sam, index, dataset, tmp_path).run(Share(rank=0, world=2)) == COUNT - first
    assert len(store(sam, tmp_path).read(keys_of(index))) == COUNT


def test_another_process_may_write_the_index_meanwhile(sam, index, dataset, tmp_path, monkeypatch) -> None:
    first, second = (embedding(sam, index, dataset, tmp_path) for _ in range(2))
    first.run(Share(rank=1, world=2))
    real = write.pq.read_table
    finished = []

    def read_table(file: Path, **options: object) -> pa.Table:
        """Once all shards are there, another process finishes after the records were listed."""
        if len(list(tmp_path.glob("*/shards/*.parquet"))) == 6 and not finished:
            finished.append(file)
            first._finish()
        return real(file, **options)

    monkeypatch.setattr(write.pq, "read_table", read_table)
    second.run(Share(rank=0, world=2))
    assert finished
    assert len(store(sam, tmp_path).read(keys_of(index))) == COUNT


def test_more_samples_are_added_and_nothing_is_made_twice(sam, index, dataset, tmp_path) -> None:
    cache = tmp_path / "cache"
    some = open_index(locate(dataset), split="train", where="", by=(), cache=cache)
    assert 0 < len(some) < COUNT
    folder = tmp_path / "out"
    assert embedding(sam, some, dataset, folder).run(Share()) == len(some)
    assert embedding(sam, index, dataset, folder).run(Share()) == COUNT - len(some)
    assert len(store(sam, folder).read(keys_of(index))) == COUNT


def test_a_changed_sample_is_embedded_anew_and_then_there(sam, index, dataset, tmp_path) -> None:
    embedding(sam, index, dataset, tmp_path).run(Share())
    file = next(tmp_path.glob("*/index.parquet"))
    rows = pq.read_table(file).to_pylist()
    rows[3]["sample_digest"] ^= 1  # as if the sample had been another one then
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), file)
    with pytest.raises(ConfigError, match="1 of 22 images have no embedding, or have changed since"):
        store(sam, tmp_path).require(index.keys, pa.array(index.digest))
    assert embedding(sam, index, dataset, tmp_path).run(Share()) == 1
    store(sam, tmp_path).require(index.keys, pa.array(index.digest))
    assert len(pq.read_table(file)) == COUNT


def test_a_damaged_embedding_is_found_and_named(sam, index, dataset, tmp_path) -> None:
    embedding(sam, index, dataset, tmp_path).run(Share())
    shard = sorted(tmp_path.glob("*/shards/*.tar"))[0]
    with tarfile.open(shard) as archive:
        victim = archive.getmembers()[1]
    data = bytearray(shard.read_bytes())
    data[victim.offset_data + 200] ^= 1
    shard.write_bytes(data)
    with pytest.raises(
        StorageError, match=f"{shard.name}: the embedding of sample {victim.name[:-4]} is damaged"
    ):
        store(sam, tmp_path).read(keys_of(index))
    shard.unlink()
    next(tmp_path.glob("*/index.parquet")).unlink()
    assert embedding(sam, index, dataset, tmp_path).run(Share()) > 0
    assert len(store(sam, tmp_path).read(keys_of(index))) == COUNT


def test_another_encoder_image_size_or_channel_order_has_another_identity(sam) -> None:
    own = identity_of(sam, RECIPE)
    torch.manual_seed(1)
    assert identity_of(build_sam(RECIPE.model), RECIPE).id != own.id
    changes = [("model", "channel_order", "bgr"), ("data", "fit", "resize"), ("run", "precision", "bf16")]
    for table, key, value in changes:
        other = check_model({**VALUE, table: {**VALUE[table], key: value}}, TrainRecipe, "test")
        assert identity_of(sam, other).id != own.id
    assert replace(own).id == own.id


def test_the_decoder_does_not_count(sam) -> None:
    own = identity_of(sam, RECIPE).id
    kept = sam.mask_decoder.iou_token.weight.detach().clone()
    with torch.no_grad():
        sam.mask_decoder.iou_token.weight += 1
    assert identity_of(sam, RECIPE).id == own
    with torch.no_grad():
        sam.mask_decoder.iou_token.weight.copy_(kept)


def test_what_a_run_needs_is_checked_before_it_starts(sam, index, dataset, tmp_path) -> None:
    embedding(sam, index, dataset, tmp_path).run(Share())
    there = store(sam, tmp_path)
    keys, digests = pa.array(keys_of(index)), pa.array(index.digest)
    there.require(keys, digests)
    changed = np.array(index.digest)
    changed[3] += 1
    with pytest.raises(ConfigError, match=r"1 of 22 images have no embedding, or have changed"):
        there.require(keys, pa.array(changed))
    with pytest.raises(ConfigError, match="1 of 23 images"):
        there.require(
            pa.array([*keys_of(index), "other"]), pa.array([*index.digest.tolist(), 5], pa.uint64())
        )
    with pytest.raises(StorageError, match="no embedding of sample other"):
        there.read([index.key(0), "other"])


def test_the_command_embeds_beside_the_dataset(dataset, sam, index, tmp_path) -> None:
    copy = tmp_path / "set"
    shutil.copytree(dataset, copy)
    recipe = tmp_path / "mine.toml"
    recipe.write_text(_toml(VALUE), encoding="utf-8")
    weights = tmp_path / "weights.safetensors"
    save_original(sam, weights)
    app = typer.Typer()
    app.command()(embed)
    words = [str(recipe), "--data", str(copy), "--split", "all", "--device", "cpu"]
    refused = CliRunner().invoke(app, words)
    assert isinstance(refused.exception, ConfigError)
    assert str(refused.exception).startswith("embeddings of random weights serve nobody")
    unknown = CliRunner().invoke(app, [*words[:-1], "gpu", "--checkpoint", str(weights)])
    assert isinstance(unknown.exception, ConfigError)
    assert "known: auto, cpu, cuda" in str(unknown.exception)
    done = CliRunner().invoke(app, [*words, "--checkpoint", str(weights)])
    assert done.exit_code == 0, done.output
    assert f"{COUNT} images embedded" in done.output
    folder = default_folder(str(copy)).path
    found = EmbeddingStore(Location(str(folder)), identity_of(sam, RECIPE)).read(keys_of(index))
    assert len(found) == COUNT
    facts = json.loads(next(folder.glob("*/embeddings.json")).read_text(encoding="utf-8"))
    assert (facts["image_side"], facts["fit"]) == (SIDE, "pad")


def _toml(value: dict[str, object]) -> str:
    """Tables of plain values, one level deep but for inline tables."""

    def shown(item: object) -> str:
        if isinstance(item, dict):
            return "{ " + ", ".join(f"{key} = {shown(part)}" for key, part in item.items()) + " }"
        return json.dumps(item)

    return "\n".join(f"{key} = {shown(item)}" for key, item in value.items())


def test_the_index_names_every_column(sam, index, dataset, tmp_path) -> None:
    embedding(sam, index, dataset, tmp_path).run(Share())
    table = pq.read_table(next(tmp_path.glob("*/index.parquet")))
    assert table.column_names == ["key", "sample_digest", "shard", "offset", "size", "digest"]
    assert sorted(table["sample_digest"].to_pylist()) == sorted(index.digest.tolist())


@pytest.mark.parametrize("workers", [0, 2])
def test_the_stream_brings_embeddings_in_place_of_images(sam, index, dataset, tmp_path, workers) -> None:
    embedding(sam, index, dataset, tmp_path).run(Share())
    there = store(sam, tmp_path)
    where = {"cache": tmp_path / "cache", "embeddings": there}
    with open_stream(
        dataset, RECIPE.data, side=SIDE, seed=1, batch_images=5, workers=workers, **where
    ) as stream:
        for _ in range(7):  # into the second epoch
            batch = next(stream)
            assert batch.images.shape[2:] == (0, 0)
            assert torch.equal(batch.embeddings, there.read(batch.keys))


def test_training_reads_the_cache_and_never_runs_the_encoder(sam, dataset, tmp_path, monkeypatch) -> None:
    copy = tmp_path / "set"
    shutil.copytree(dataset, copy)
    weights = tmp_path / "weights.safetensors"
    save_original(sam, weights)
    model = {**VALUE["model"], "checkpoint": str(weights)}
    recipe = check_model(
        {**VALUE, "model": model, "run": {"batches": 3, "batch_images": 4}}, TrainRecipe, "test"
    )
    options = Options(data=str(copy), out=tmp_path / "run", workers=0, device="cpu")
    with pytest.raises(ConfigError, match="no embeddings of this encoder"):
        train(recipe, options)
    whole = open_index(locate(copy), split="", where="", by=(), cache=tmp_path / "cache")
    embedding(sam, whole, copy, default_folder(str(copy)).path).run(Share())
    monkeypatch.setattr(Sam, "encode", lambda *_: pytest.fail("the encoder ran"))
    assert train(recipe, options).batches == 3
