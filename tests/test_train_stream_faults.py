"""The stream over HTTP: what it costs, and what it does with servers and disks that misbehave."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from fault_server import Fault, fault_server
from http_kit import served
from stream_kit import content, joined_keys, small_dataset, stream, taken

import medcurate.storage
from medcurate.train.config.data import DataTable
from medcurate.train.stream import mirror as mirror_module
from medcurate.train.stream import reading
from medcurate.train.stream.mirror import Mirror
from medcurate.train.stream.reading import BadSampleError

BATCHES = 11
BAD = Fault(status=503)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return small_dataset(tmp_path_factory.mktemp("data") / "small")


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def epoch(dataset, tmp_path_factory):
    """An epoch and a batch from the local files."""
    return [content(b) for b in taken(stream(dataset, tmp_path_factory.mktemp("cache")), BATCHES + 1)]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(reading, "RETRY_SECONDS", (0.01, 0.02, 0.04, 0.05))
    monkeypatch.setattr("medcurate.train.stream.open.REMOTE_AHEAD_BYTES", 1 << 16)  # about one batch of six


@pytest.fixture
def server(dataset):
    with fault_server() as state:
        for path in dataset.rglob("*"):
            if path.is_file():
                state.serve("/" + path.relative_to(dataset).as_posix(), path.read_bytes())
        yield state


def shards(server) -> list:
    return [one for path, one in server.objects.items() if "/shards/train" in path]


@pytest.mark.parametrize(("world", "workers"), [(1, 0), (1, 2), (3, 1)])
def test_nothing_is_read_twice(dataset, cache, epoch, world, workers):
    with served(dataset) as server:
        ranks = [stream(server.url, cache, rank=rank, world=world, workers=workers) for rank in range(world)]
        found = [taken(source, BATCHES) for source in ranks]
        read = sum(size for path, size in server.bodies if "/shards/" in path)
        assert sorted(joined_keys([b for part in found for b in part])) == sorted(
            k for b in epoch[:BATCHES] for k in b[3]
        )
        needed = sum(path.stat().st_size - 1024 for path in (dataset / "shards").glob("train-*.tar"))
        ahead = (
            2 * world * (1 << 16) + needed // 2
        )  # what was read for the next epoch before the end was known
        assert needed <= read <= needed + ahead
        counts = [source.counts for source in ranks]
        assert sum(c.read_bytes for c in counts) <= 1.05 * sum(c.needed_bytes for c in counts)
    assert len({path for path, _ in server.bodies if "manifest" in path}) == 1


def test_reading_ahead_is_the_only_excess(dataset, cache, monkeypatch):
    """Ten epochs: bytes sent are bytes delivered, but for a bounded rest."""
    monkeypatch.setattr("medcurate.train.stream.open.REMOTE_AHEAD_BYTES", 1 << 14)
    with served(dataset) as server:
        source = stream(server.url, cache, batch_images=8)
        taken(source, 80)
        read = sum(size for path, size in server.bodies if "/shards/" in path)
    epoch_bytes = sum(path.stat().st_size - 1024 for path in (dataset / "shards").glob("train-*.tar"))
    assert 10 * epoch_bytes <= read <= 1.05 * 10 * epoch_bytes


def test_selected_samples_are_read_without_their_neighbours(dataset, cache):
    with served(dataset) as server:
        source = stream(
            server.url, cache, DataTable(where="\"case\" IN ('case000', 'case008')"), batch_images=4
        )
        taken(source, 2)
        read = sum(size for path, size in server.bodies if "/shards/" in path)
        assert source.samples_per_epoch == 8
        assert read <= 1.05 * 5 * source.counts.needed_bytes / 2  # at most five epochs were read ahead
        assert read < sum(path.stat().st_size for path in (dataset / "shards").glob("*.tar"))


@pytest.mark.parametrize(
    "faults",
    [
        [Fault(flip=3000)],
        [Fault(cut_bytes=700)],
        [Fault(short=100_000)],
        [BAD, BAD, BAD],
        [Fault(reset=True)],
        [Fault(wrong_range=512)],
        [BAD, Fault(flip=9000), Fault(cut_bytes=10)],
    ],
    ids=["flip", "cut", "short", "503", "reset", "shifted", "mixed"],
)
def test_faults_that_pass_are_survived(server, cache, epoch, faults):
    for one in shards(server):
        one.script = [*faults, Fault()]
    source = stream(server.url, cache, workers=0)
    assert [content(batch) for batch in taken(source, BATCHES)] == epoch[:BATCHES]
    assert source.counts.skipped == 0


def test_a_server_that_falls_silent_is_asked_again(server, cache, epoch, monkeypatch):
    monkeypatch.setattr(medcurate.storage, "STALL_SECONDS", 0.3)
    shards(server)[0].script = [Fault(stall_bytes=100), Fault()]
    assert [content(batch) for batch in taken(stream(server.url, cache), BATCHES)] == epoch[:BATCHES]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (Fault(flip=3000), "differ from the manifest's digest"),
        (BAD, "503"),
        (Fault(ignore_range=True), "ignores byte ranges"),
        (Fault(short=100_000), "bytes"),
    ],
    ids=["flip", "503", "ignored", "short"],
)
def test_faults_that_stay_end_the_run_with_shard_and_key(server, cache, fault, why, workers):
    path = "/shards/train-000002.tar"
    server.objects[path].script = [fault]
    with pytest.raises(BadSampleError, match=rf"train-000002\.tar: sample demo--case\d+--z\d+ \(.*{why}"):
        taken(stream(server.url, cache, workers=workers), BATCHES)


def test_a_range_that_is_ignored_is_not_asked_for_again(server, cache):
    for one in shards(server):
        one.script = [Fault(ignore_range=True)]
    with pytest.raises(BadSampleError):
        taken(stream(server.url, cache), BATCHES)
    assert max(len(one.requests) for one in shards(server)) <= 8  # one for each of its samples at most


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_samples_are_skipped_in_step(server, dataset, cache, epoch, workers):
    """One flipped byte costs one sample; every other one is delivered, and all ranks do as many steps."""
    flipped = server.objects["/shards/train-000001.tar"]
    flipped.script = [Fault(flip=3000)]
    data = DataTable(masks_per_image=2, on_bad_sample="skip")
    ranks = [stream(server.url, cache, data, rank=rank, world=2, workers=workers) for rank in range(2)]
    found = [taken(source, BATCHES) for source in ranks]
    assert sum(source.counts.skipped for source in ranks) == 1
    assert [len(part) for part in found] == [BATCHES, BATCHES]
    for step, parts in enumerate(zip(*found, strict=True)):
        assert len({batch.images.shape for batch in parts}) == 1
        assert {batch.samples for batch in parts} == {len(epoch[step][3])}
    rows = [
        (b.keys[r], b.valid[r], b.masks[r])
        for part in found
        for b in part
        for r in range(len(b.keys))
        if b.keys[r]
    ]
    left_out = [key for key, valid, _ in rows if not valid.any()]
    assert len(rows) == 64
    assert len(left_out) == 1
    assert not next(masks for key, _, masks in rows if key == left_out[0]).any()


def test_a_shard_replaced_in_the_middle_of_an_epoch_is_noticed(server, dataset, cache, tmp_path):
    other = small_dataset(tmp_path / "other", size=40)
    source = stream(server.url, cache)
    with source:
        next(source)
        for path, one in server.objects.items():
            if "/shards/train" in path:
                one.content = (other / path[1:]).read_bytes()
        with pytest.raises(BadSampleError, match=r"manifest's digest|instead of"):
            [next(source) for _ in range(BATCHES)]


def test_a_damaged_local_shard_ends_the_run(tmp_path, cache):
    folder = small_dataset(tmp_path / "local")
    shard = folder / "shards/train-000003.tar"
    data = bytearray(shard.read_bytes())
    data[2000] ^= 1
    shard.write_bytes(data)
    with pytest.raises(BadSampleError, match=r"train-000003\.tar: sample demo--.*digest.*medcurate verify"):
        taken(stream(folder, cache), BATCHES)
    shard.write_bytes(data[:5000])
    with pytest.raises(BadSampleError, match=r"train-000003\.tar: sample demo--.*the file is cut"):
        taken(stream(folder, cache), BATCHES)
    shard.unlink()
    with pytest.raises(BadSampleError, match=r"train-000003\.tar: sample demo--.*no such file"):
        taken(stream(folder, cache), BATCHES)


CACHED = DataTable(masks_per_image=2, cache_bytes=1 << 30)


def mirrored(cache: Path) -> list[Path]:
    return sorted(cache.glob("shards/*/shards/*.tar"))


def test_the_second_epoch_comes_from_the_local_copy(server, cache, epoch, dataset):
    assert [content(b) for b in taken(stream(server.url, cache, CACHED), BATCHES)] == epoch[:BATCHES]
    before = sum(one.sent_bytes for one in shards(server))
    source = stream(server.url, cache, CACHED, workers=2)
    assert [content(b) for b in taken(source, BATCHES + 1)] == epoch
    assert sum(one.sent_bytes for one in shards(server)) == before
    for path in mirrored(cache):
        assert path.read_bytes() == (dataset / "shards" / path.name).read_bytes()[:-1024]


def test_a_damaged_local_copy_is_read_anew_and_mended(server, cache, epoch, dataset):
    taken(stream(server.url, cache, CACHED), BATCHES)
    flipped, cut, gone, *_ = mirrored(cache)
    flipped.write_bytes(flipped.read_bytes().replace(b"annotations", b"annotationz"))
    os.truncate(cut, 4000)
    gone.unlink()
    assert [content(b) for b in taken(stream(server.url, cache, CACHED), BATCHES)] == epoch[:BATCHES]
    for path in (flipped, cut, gone):
        assert path.read_bytes() == (dataset / "shards" / path.name).read_bytes()[:-1024]


def test_a_full_disk_costs_the_copy_and_not_the_run(server, cache, epoch, monkeypatch, caplog):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(mirror_module.os, "pwrite", full)
    assert [content(b) for b in taken(stream(server.url, cache, CACHED), BATCHES)] == epoch[:BATCHES]
    assert "No space left on device" in caplog.text
    assert len([record for record in caplog.records if "cache" in record.message]) == 1


def test_the_copy_stays_within_its_cap(server, cache, epoch, caplog):
    data = DataTable(masks_per_image=2, cache_bytes=60_000)
    for _ in range(2):  # what was kept by the first is counted by the second
        assert [content(b) for b in taken(stream(server.url, cache, data), BATCHES)] == epoch[:BATCHES]
        used = sum(path.stat().st_blocks * 512 for path in mirrored(cache))
        assert 0 < used <= 60_000 + 4096 * 2 * 16  # blocks at the ends of sixteen stretches
    assert "no more is kept" in caplog.text


def test_local_files_have_no_copy(dataset, cache):
    taken(stream(dataset, cache, CACHED), 2)
    assert not (cache / "shards").exists()


def test_a_mirror_never_gives_what_it_was_not_given(tmp_path):
    mirror = Mirror(tmp_path / "m", 1000)
    mirror.recount()
    assert mirror.read("s.tar", 0, 8, 1) is None
    mirror.write("s.tar", 16, b"12345678")
    assert mirror.read("s.tar", 0, 8, 0) is None
    assert mirror.read("s.tar", 20, 8, 0) is None
    assert mirror.read("s.tar", 16, 8, reading.digest(b"12345678")) == b"12345678"
    mirror.write("s.tar", 32, bytes(2000))
    assert (tmp_path / "m/s.tar").stat().st_size == 24


def test_a_manifest_that_changed_after_the_build_is_refused(tmp_path, cache, server):
    folder = small_dataset(tmp_path / "changed")
    with open(folder / "manifest.parquet", "ab") as file:
        file.write(b"x")
    with pytest.raises(medcurate.storage.MedcurateError, match="changed after the build"):
        stream(folder, cache)
    manifest = server.objects["/manifest.parquet"]
    manifest.content = bytes(len(manifest.content))
    with pytest.raises(medcurate.storage.MedcurateError, match=r"not those that dataset\.json records"):
        stream(server.url, cache)
    assert not list(cache.glob("indexes/*.parquet"))
