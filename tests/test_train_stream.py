"""The stream: the same global batches whoever makes them, every sample once, and what stands in a batch."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit import Piece, pieces, write_dataset
from PIL import Image
from pycocotools import mask as coco
from stream_kit import (
    BATCH,
    SEED,
    content,
    global_content,
    grey,
    joined_keys,
    small_dataset,
    stream,
    taken,
)

from medcurate.errors import ConfigError
from medcurate.format import sample as sample_format
from medcurate.train.config.data import DataTable, Weights
from medcurate.train.geometry import PADDING
from medcurate.train.stream.pool import WorkerError
from medcurate.train.stream.reading import BadSampleError
from medcurate.train.stream.state import StreamState
from medcurate.train.types import Frame

BATCHES = 11  # of an epoch: 64 samples of split train, the last batch has 4
TRAIN = sorted(piece.key for piece in pieces(120, size=48) if piece.split == "train")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return small_dataset(tmp_path_factory.mktemp("data") / "small")


@pytest.fixture(scope="module")
def uninterrupted(dataset, cache):
    """Two and a half epochs by one process without workers."""
    return taken(stream(dataset, cache), 25)


def test_every_sample_once_an_epoch_and_in_another_order(uninterrupted):
    epochs = [joined_keys(uninterrupted[start : start + BATCHES]) for start in (0, BATCHES)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == TRAIN
    assert epochs[0] != epochs[1]
    assert [batch.number for batch in uninterrupted] == [*range(11), *range(11), *range(3)]
    assert len({batch.seed for batch in uninterrupted}) == 25
    assert len({seed for batch in uninterrupted for seed in batch.seeds.tolist()}) == 64 + 64 + 18


@pytest.mark.parametrize("workers", [1, 2, 3, 4])
def test_batches_do_not_depend_on_workers(dataset, cache, uninterrupted, workers):
    found = taken(stream(dataset, cache, workers=workers), 25)
    assert [content(batch) for batch in found] == [content(batch) for batch in uninterrupted]


def test_spawned_workers_make_the_same(dataset, cache, uninterrupted):
    found = taken(stream(dataset, cache, workers=2, start_method="spawn"), 12)
    assert [content(batch) for batch in found] == [content(batch) for batch in uninterrupted[:12]]


@pytest.mark.parametrize("world", range(2, 9))
def test_ranks_together_have_the_same_global_batches(dataset, cache, uninterrupted, world):
    ranks = [taken(stream(dataset, cache, rank=rank, world=world), 11) for rank in range(world)]
    for parts, batch in zip(zip(*ranks, strict=True), uninterrupted, strict=False):
        assert global_content(list(parts)) == content(batch)
    empty = [row for part in ranks for batch in part for row, key in enumerate(batch.keys) if not key]
    assert bool(empty) == any(batch.samples % world for batch in uninterrupted[:11])


@settings(max_examples=8, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 8)), min_size=1, max_size=3))
def test_any_cuts_and_worlds_continue_exactly(dataset, cache, uninterrupted, cuts):
    """Run ``count`` batches with ``world`` ranks, stop, go on with others: as if nothing had happened."""
    state, done = None, 0
    for count, world in cuts:
        count = min(count, 25 - done)
        sources = [stream(dataset, cache, rank=rank, world=world, start=state) for rank in range(world)]
        parts = [[next(source) for _ in range(count)] for source in sources]
        assert len({source.state for source in sources}) == 1
        state = StreamState.from_dict(json.loads(json.dumps(sources[0].state.to_dict())))
        for ranks, batch in zip(zip(*parts, strict=True), uninterrupted[done : done + count], strict=True):
            assert global_content(list(ranks)) == content(batch)
        done += count
        for source in sources:
            source.close()


def test_elastic_two_one_four_with_workers(dataset, cache, uninterrupted):
    state, done = None, 0
    for world, workers, count in ((2, 1, 4), (1, 2, 9), (4, 1, 12)):
        sources = [
            stream(dataset, cache, rank=rank, world=world, workers=workers, start=state)
            for rank in range(world)
        ]
        parts = [taken(source, count) for source in sources]
        for ranks, batch in zip(zip(*parts, strict=True), uninterrupted[done : done + count], strict=True):
            assert global_content(list(ranks)) == content(batch)
        state, done = sources[0].state, done + count


def test_another_batch_size_in_the_middle_of_an_epoch_keeps_every_sample_once(dataset, cache):
    first = stream(dataset, cache)
    seen = joined_keys(taken(first, 3))
    rest = taken(stream(dataset, cache, batch_images=7, start=first.state), 7)
    assert len(seen) == 18
    assert sorted(seen + joined_keys(rest)) == TRAIN
    assert [batch.samples for batch in rest] == [7, 7, 7, 7, 7, 7, 4]


@pytest.mark.parametrize("drop_last", [False, True])
def test_the_last_batch_is_kept_with_its_size_or_dropped(dataset, cache, drop_last):
    data = DataTable(masks_per_image=2, drop_last=drop_last)
    source = stream(dataset, cache, data, batch_images=15)
    assert source.batches_per_epoch == (4 if drop_last else 5)
    found = taken(source, source.batches_per_epoch + 1)
    assert [batch.samples for batch in found] == ([15] * 5 if drop_last else [15, 15, 15, 15, 4, 15])
    assert found[-1].number == 0
    with pytest.raises(ConfigError, match="fewer than a batch of 65"):
        stream(dataset, cache, DataTable(drop_last=True), batch_images=65)


def test_a_batch_holds_what_the_sample_holds(dataset, cache):
    """Against PIL, pycocotools and OpenCV, at the sample's own size, smaller and larger."""
    by_key = {piece.key: piece for piece in pieces(120, size=48)}
    for side in (48, 32, 80):
        for batch in taken(
            stream(dataset, cache, DataTable(masks_per_image=3, interpolation="nearest"), side=side), 2
        ):
            for row, key in enumerate(batch.keys):
                piece = by_key[key]
                assert batch.frames[row] == Frame(48, 48, side, side, side)
                near = (np.arange(side) * 48 + 24) // side  # the pixel below each target pixel's centre
                image = piece.image[near][:, near]
                assert np.array_equal(batch.images[row].numpy(), grey(image))
                for place in range(3):
                    if batch.valid[row, place]:
                        mask = piece.masks[batch.annotations[row, place]][near][:, near]
                        assert mask.any()
                        assert np.array_equal(batch.masks[row, place].numpy(), mask)
                    else:
                        assert batch.annotations[row, place] == -1
                        assert not batch.masks[row, place].any()
                chosen = batch.annotations[row][batch.valid[row]].tolist()
                assert sorted(chosen) == list(range(len(piece.masks)))


def test_the_bytes_of_a_sample_are_read_by_other_tools_alike(dataset, cache):
    batch = taken(stream(dataset, cache, side=48), 1)[0]
    shards = sorted((dataset / "shards").glob("train-*.tar"))
    text = b"".join(shard.read_bytes() for shard in shards)
    start = text.index(f"{batch.keys[0]}.png".encode())
    size = int(text[start + 124 : start + 135], 8)
    image = np.asarray(Image.open(io.BytesIO(text[start + 512 : start + 512 + size])))
    assert np.array_equal(batch.images[0].numpy(), grey(image))
    after = start + 512 + size + -size % 512
    info = json.loads(text[after + 512 : after + 512 + int(text[after + 124 : after + 135], 8)])
    wanted = coco.decode(info["annotations"][int(batch.annotations[0, 0])]["segmentation"])
    assert np.array_equal(batch.masks[0, 0].numpy(), wanted.astype(bool))


def test_rgb_stays_rgb_and_sizes_may_differ(tmp_path, cache):
    rng = np.random.default_rng(1)
    made = []
    for number, (height, width) in enumerate([(40, 60), (64, 64), (20, 30), (90, 30)] * 4):
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        masks = np.zeros((2, height, width), bool)
        masks[0, : height // 2], masks[1, :, width // 3 :] = True, True
        made.append(Piece(f"demo--case{number:03d}--z0000", image, masks, "train"))
    folder = write_dataset(tmp_path / "rgb", made)
    by_key = {piece.key: piece for piece in made}
    for fit, order in (("pad", "rgb"), ("sam-med2d", "bgr")):
        table = DataTable(masks_per_image=2, fit=fit)
        for batch in taken(stream(folder, cache, table, side=64, channel_order=order), 2):
            for row, key in enumerate(batch.keys):
                frame, piece = batch.frames[row], by_key[key]
                inside = np.s_[
                    frame.top : frame.top + frame.scaled_height, frame.left : frame.left + frame.scaled_width
                ]
                outside = np.ones((64, 64), bool)
                outside[inside] = False
                colour = np.array(PADDING[order])[:, None]
                assert (batch.images[row].numpy()[:, outside] == colour).all()
                assert not batch.masks[row].numpy()[:, outside].any()
                if piece.image.shape[:2] == (frame.scaled_height, frame.scaled_width):
                    shown = batch.images[row].numpy()[(slice(None), *inside)]
                    assert np.array_equal(shown.transpose(1, 2, 0), piece.image)


def test_masks_emptied_by_resizing_are_counted_and_never_shown(tmp_path, cache):
    image = np.full((64, 64), 9, np.uint8)
    dot, block, corner = (np.zeros((64, 64), bool) for _ in range(3))
    dot[1, 1], block[10:40, 10:40], corner[5, 5] = True, True, True
    made = [
        Piece(f"demo--case{n:03d}--z0000", image, np.stack([dot, block, corner]), "train") for n in range(6)
    ]
    made.append(Piece("demo--case009--z0000", image, np.stack([dot, corner]), "train"))
    folder = write_dataset(tmp_path / "dots", made)
    data = DataTable(masks_per_image=2)
    source = stream(folder, cache, data, side=8, batch_images=7)
    for batch in taken(source, 3):
        for row, key in enumerate(batch.keys):
            has_any = key != "demo--case009--z0000"
            assert batch.valid[row].tolist() == [has_any, False]
            assert batch.annotations[row].tolist() == [1 if has_any else -1, -1]
            assert bool(batch.masks[row, 0].any()) == has_any
    assert source.counts.lost_masks >= 3 * 8
    repeated = taken(
        stream(folder, cache, DataTable(masks_per_image=2, repeat_masks=True), side=8, batch_images=7), 1
    )
    assert repeated[0].annotations.sum() == 6 * 2 - 2


def test_all_masks_of_an_image_are_shown_over_epochs(tmp_path, cache):
    masks = np.zeros((7, 16, 16), bool)
    for number in range(7):
        masks[number, number * 2 : number * 2 + 2] = True
    made = [
        Piece(f"demo--case{n:03d}--z0000", np.zeros((16, 16), np.uint8), masks, "train") for n in range(5)
    ]
    folder = write_dataset(tmp_path / "many", made)
    shown: dict[str, set[int]] = {}
    for batch in taken(stream(folder, cache, DataTable(masks_per_image=3), side=16, batch_images=5), 3):
        assert batch.valid.all()
        for key, numbers in zip(batch.keys, batch.annotations.tolist(), strict=True):
            assert len(set(numbers)) == 3
            shown.setdefault(key, set()).update(numbers)
    assert list(shown.values()) == [set(range(7))] * 5


def test_where_and_split_select_masks(dataset, cache):
    by_key = {piece.key: piece for piece in pieces(120, size=48)}
    data = DataTable(split="", where="organ = 'liver' AND modality = 'mr'", masks_per_image=3)
    source = stream(dataset, cache, data)
    found = taken(source, source.batches_per_epoch)
    keys = joined_keys(found)
    assert sorted(keys) == sorted(key for key in by_key if int(key[10:13]) % 2 == 1)
    assert {a for batch in found for a in batch.annotations[batch.valid].tolist()} == {0}
    assert source.groups == {f"demo:{key.split('--')[1]}" for key in keys}


def test_weights_change_the_shares_and_nothing_else(dataset, cache):
    data = DataTable(split="", masks_per_image=1, weights=Weights(by=("modality", "organ"), temper=0.0))
    source = stream(dataset, cache, data)
    assert source.samples_per_epoch == 120
    by_case = [int(key[10:13]) % 2 for batch in taken(source, 40) for key in batch.keys]
    assert abs(sum(by_case) / len(by_case) - 0.5) < 0.02


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            DataTable(where="organ = 'spleen'"),
            r"no mask of split \"train\" with where = \"organ = 'spleen'\"",
        ),
        (DataTable(where="orgn = 'liver'"), r"\[data\] where .*orgn"),
        (DataTable(where="random() < 0.5"), r"\[data\] where .*random"),
    ],
)
def test_mistakes_in_what_is_selected_are_named(dataset, cache, data, message):
    with pytest.raises(ConfigError, match=message):
        stream(dataset, cache, data)


def test_a_state_of_another_selection_is_refused(dataset, cache, tmp_path):
    source = stream(dataset, cache)
    taken(source, 1)
    with pytest.raises(ConfigError, match="another selection"):
        stream(dataset, cache, DataTable(where="organ = 'liver'"), start=source.state)
    with pytest.raises(ConfigError, match="another selection"):
        stream(dataset, cache, DataTable(weights=Weights(by=("organ",), temper=0.5)), start=source.state)
    with pytest.raises(ConfigError, match="another manifest"):
        stream(small_dataset(tmp_path / "other", 80), cache, start=source.state)
    with pytest.raises(ConfigError, match="no finished dataset"):
        stream(tmp_path, cache)
    with pytest.raises(ConfigError, match="not the state"):
        StreamState.from_dict({"seed": 1})


def test_the_seed_of_a_state_wins(dataset, cache, uninterrupted):
    state = StreamState(seed=SEED)
    found = taken(stream(dataset, cache, seed=99, start=state), 2)
    assert [content(batch) for batch in found] == [content(batch) for batch in uninterrupted[:2]]


def test_batches_are_their_owners(dataset, cache):
    """A batch that is kept is not overwritten by later ones."""
    with stream(dataset, cache, DataTable(masks_per_image=2, prefetch=1), workers=2) as source:
        first = next(source)
        before = content(first)
        for _ in range(6):
            next(source)
        assert content(first) == before


def test_without_images_masks_and_frames_are_the_same(dataset, cache, uninterrupted):
    found = taken(stream(dataset, cache, DataTable(masks_per_image=2, embeddings=True), workers=1), 2)
    for batch, usual in zip(found, uninterrupted, strict=False):
        assert tuple(batch.images.shape) == (BATCH, 3, 0, 0)
        assert (batch.keys, batch.frames) == (usual.keys, usual.frames)
        assert batch.masks.equal(usual.masks)


def test_a_killed_worker_ends_the_stream_with_its_signal(dataset, cache):
    with stream(dataset, cache, workers=2) as source:
        next(source)
        os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
        with pytest.raises(WorkerError, match="-9"):
            list(islice(source, 20))


def test_a_schedulers_signal_to_all_processes_does_not_end_workers(dataset, cache, uninterrupted):
    """The trainer still wants its batch, and then writes a checkpoint."""
    with stream(dataset, cache, workers=2) as source:
        found = [next(source)]
        for child in multiprocessing.active_children():
            os.kill(child.pid, signal.SIGTERM)
            os.kill(child.pid, signal.SIGINT)
        found += islice(source, 14)
    assert [content(batch) for batch in found] == [content(batch) for batch in uninterrupted[:15]]


def test_a_program_that_forgets_to_close_ends(dataset, cache):
    script = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from pathlib import Path\nfrom stream_kit import stream\n"
        f"source = stream({str(dataset)!r}, Path({str(cache)!r}), workers=2)\nnext(source)\n"
    )
    root = Path(__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", script], cwd=root, timeout=60, check=False).returncode == 0


def test_workers_end_with_their_parent(dataset, cache):
    def orphan(link):
        source = stream(dataset, cache, workers=2)
        next(source)
        link.send([child.pid for child in multiprocessing.active_children()])
        time.sleep(60)

    ours, theirs = multiprocessing.Pipe()
    parent = multiprocessing.get_context("fork").Process(target=orphan, args=(theirs,))
    parent.start()
    children = ours.recv()
    parent.kill()
    parent.join()
    deadline = time.monotonic() + 20
    while any(_alive(pid) for pid in children):
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.05)


def _alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] not in {"Z", "X"}
    except FileNotFoundError:
        return False


def test_fork_is_safe_after_opencv_used_threads(dataset, cache):
    """OpenCV's pool of threads does not survive a fork; a worker that waited for it would hang."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(3)
    try:
        cv2.GaussianBlur(np.zeros((2000, 2000, 3), np.uint8), (0, 0), 5)
        assert len(taken(stream(dataset, cache, workers=1), 2)) == 2
        assert cv2.getNumThreads() == 3
    finally:
        cv2.setNumThreads(before)


def test_a_sample_that_is_no_sample_is_named(tmp_path, cache):
    """Bytes with the right digest, whose JSON is not the contract's."""
    folder = small_dataset(tmp_path / "odd")
    text = (folder / "shards/train-000000.tar").read_bytes()
    assert sample_format.digest(text)
    (folder / "shards/train-000000.tar").write_bytes(text.replace(b'"counts":"', b'"countz":"'))
    _redigest(folder)
    with pytest.raises(BadSampleError, match=r"train-000000\.tar: sample demo--.*not a sample"):
        taken(stream(folder, cache), BATCHES)
    skipping = stream(folder, cache, DataTable(masks_per_image=2, on_bad_sample="skip"))
    found = taken(skipping, BATCHES)
    assert skipping.counts.skipped == 8
    assert [batch.samples for batch in found] == [BATCH] * 10 + [4]
    empty = [row for batch in found for row in range(batch.samples) if not batch.valid[row].any()]
    assert len(empty) == 8


def _redigest(folder) -> None:
    """Write the manifest's digests anew, as if the damage had been built."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from medcurate.commit import sha256_file

    table = pq.read_table(folder / "manifest.parquet")
    digests = []
    for shard, offset, size in zip(
        *(table.column(n).to_pylist() for n in ("shard", "offset", "size")), strict=True
    ):
        digests.append(sample_format.digest((folder / shard).read_bytes()[offset : offset + size]))
    place = table.column_names.index("digest")
    pq.write_table(
        table.set_column(place, "digest", pa.array(digests, pa.uint64())), folder / "manifest.parquet"
    )
    record = json.loads((folder / "dataset.json").read_text())
    file = folder / "manifest.parquet"
    record["files"]["manifest.parquet"] = {"size_bytes": file.stat().st_size, "sha256": sha256_file(file)}
    (folder / "dataset.json").write_text(json.dumps(record))


def test_side_by_side_streams_share_one_index(dataset, tmp_path):
    assert not (tmp_path / "indexes").exists()
    context = multiprocessing.get_context("fork")
    starts = [context.Process(target=taken, args=(stream(dataset, tmp_path), 1)) for _ in range(2)]
    for process in starts:
        process.start()
    for process in starts:
        process.join()
    assert [process.exitcode for process in starts] == [0, 0]
    found = [path for path in (tmp_path / "indexes").iterdir() if path.is_dir()]
    assert len(found) == 1


def test_a_damaged_index_is_made_again(dataset, tmp_path, uninterrupted):
    taken(stream(dataset, tmp_path), 1)
    (folder,) = (path for path in (tmp_path / "indexes").iterdir() if path.is_dir())
    for name in ("offset", "about.json"):
        os.truncate(folder / name, 100)
        assert content(taken(stream(dataset, tmp_path), 1)[0]) == content(uninterrupted[0])
    (folder / "keys").unlink()
    assert content(taken(stream(dataset, tmp_path), 1)[0]) == content(uninterrupted[0])
