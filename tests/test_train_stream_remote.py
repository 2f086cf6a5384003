"""The stream from ``s3://`` and ``https://``: local samples, nothing read twice, faults survived or told."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from fault_server import Fault
from kit import pieces, write_dataset
from loop_kit import finish, last_state, start, torchrun, weights, write_recipe
from remote_kit import Remote, forget_s3, remote_dataset
from stream_kit import content, small_dataset, stream, taken
from typer.testing import CliRunner

from medcurate.cli.main import app
from medcurate.errors import ConfigError
from medcurate.train.config.data import DataTable
from medcurate.train.stream import reading
from medcurate.train.stream.reading import BadSampleError

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl to make a certificate")

BATCHES, EPOCHS = 11, 10
WORKERS = [(0, "fork"), (2, "fork"), (2, "spawn")]
DATA = DataTable(masks_per_image=2, prefetch=2)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    return small_dataset(tmp_path_factory.mktemp("data") / "small")


@pytest.fixture(scope="module")
def epoch(dataset, tmp_path_factory) -> list[tuple]:
    """An epoch from the local files."""
    return [content(b) for b in taken(stream(dataset, tmp_path_factory.mktemp("cache"), DATA), BATCHES)]


@pytest.fixture(params=["s3", "https"])
def remote(request, dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "RETRY_SECONDS", (0.01, 0.02, 0.04, 0.05))
    monkeypatch.setattr("medcurate.train.stream.open.REMOTE_AHEAD_BYTES", 1 << 14)
    with remote_dataset(request.param, dataset, tmp_path, monkeypatch) as found:
        yield found


@pytest.fixture
def cache(tmp_path) -> Path:
    return tmp_path / "cache"


@pytest.mark.parametrize(("workers", "method"), WORKERS, ids=["alone", "fork", "spawn"])
def test_samples_are_the_local_ones_and_no_byte_is_paid_twice(
    remote: Remote, dataset, cache, epoch, workers, method
):
    """Ten epochs: what the server sent is what was delivered, but for what was read ahead at the end."""
    source = stream(remote.url, cache, DATA, workers=workers, start_method=method)
    found = taken(source, EPOCHS * BATCHES)
    assert [content(batch) for batch in found[:BATCHES]] == epoch
    needed = EPOCHS * sum(path.stat().st_size - 1024 for path in (dataset / "shards").glob("train-*.tar"))
    assert needed <= remote.sent_bytes() <= 1.05 * needed
    assert source.counts.read_bytes <= 1.05 * source.counts.needed_bytes
    assert not remote.sent_bytes("val")


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    "fault",
    [Fault(flip=3000), Fault(short=100_000), Fault(cut_bytes=700), Fault(wrong_range=512), Fault(status=503)],
    ids=["flip", "short", "cut", "shifted", "503"],
)
def test_faults_that_pass_are_survived(remote: Remote, cache, epoch, fault, workers):
    for one in remote.shards():
        one.script = [fault, Fault()]
    source = stream(remote.url, cache, DATA, workers=workers)
    assert [content(batch) for batch in taken(source, BATCHES)] == epoch
    assert source.counts.skipped == 0
    assert all(one.script == [Fault()] for one in remote.shards())


FLIP = (Fault(flip=3000), "differ from the manifest's digest")
SHORT = (Fault(short=100_000), "bytes")


@pytest.mark.parametrize(
    ("workers", "method", "fault", "why"),
    [*((*who, *FLIP) for who in WORKERS), *((*who, *SHORT) for who in WORKERS[:2])],
    ids=["flip-alone", "flip-fork", "flip-spawn", "short-alone", "short-fork"],
)
def test_faults_that_stay_end_the_run_with_shard_and_key(remote: Remote, cache, workers, method, fault, why):
    remote.object("shards/train-000002.tar").script = [fault]
    text = (
        rf"{remote.url}/shards/train-000002\.tar: sample demo--case\d+--z\d+ \(.*{why}.*tried up to 5 times"
    )
    with pytest.raises(BadSampleError, match=text):
        taken(stream(remote.url, cache, DATA, workers=workers, start_method=method), BATCHES)


def test_a_range_that_is_ignored_ends_the_run_at_once(remote: Remote, cache):
    shard = remote.object("shards/train-000002.tar")
    shard.script = [Fault(ignore_range=True)]
    with pytest.raises(BadSampleError, match=r"train-000002\.tar: sample demo--.*ignores byte ranges"):
        taken(stream(remote.url, cache, DATA), BATCHES)
    assert len(shard.requests) <= 8  # one for each of its samples at most


def test_a_shard_replaced_in_the_middle_of_an_epoch_is_noticed(remote: Remote, cache, tmp_path):
    other = small_dataset(tmp_path / "other", size=40)
    with stream(remote.url, cache, DATA) as source:
        next(source)
        for number, one in enumerate(remote.shards()):
            one.content = (other / f"shards/train-{number:06d}.tar").read_bytes()
        with pytest.raises(BadSampleError, match=r"sample demo--.*(manifest's digest|instead of)"):
            [next(source) for _ in range(BATCHES)]


@pytest.mark.parametrize("signed", [True, False])
def test_a_bucket_is_read_with_the_credentials_that_there_are(
    dataset, cache, epoch, tmp_path, monkeypatch, signed
):
    """Or with none, as open buckets can be."""
    with remote_dataset("s3", dataset, tmp_path, monkeypatch) as remote:
        if not signed:
            for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
                monkeypatch.delenv(name)
            forget_s3()
        assert [content(b) for b in taken(stream(remote.url, cache, DATA), BATCHES)] == epoch
        headers = [names for one in remote.shards() for names in one.requests]
        assert {"authorization" in names for names in headers} == {signed}
    forget_s3()


def test_where_there_is_no_dataset_that_is_said(remote: Remote, cache):
    with pytest.raises(ConfigError, match=r"elsewhere: no finished dataset here"):
        stream(f"{remote.url}/elsewhere", cache, DATA)


# --- as a user ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, Path, Path]:
    """(recipe, dataset, run) of a run from local files."""
    folder = tmp_path_factory.mktemp("trained")
    recipe, data = write_recipe(folder), write_dataset(folder / "dataset", pieces(48, size=64), per_shard=4)
    finish(start(recipe, data, folder / "run"))
    return recipe, data, folder / "run"


@pytest.mark.parametrize(("scheme", "processes"), [("s3", 2), ("https", 1)])
def test_verbs_take_a_url_and_do_the_same(scheme, processes, trained, tmp_path, monkeypatch):
    """Train, evaluate, query: as from local files. With one process, to the bit."""
    recipe, data, run = trained
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with remote_dataset(scheme, data, tmp_path, monkeypatch) as remote:
        launcher = torchrun(2) if processes == 2 else ()
        finish(start(recipe, remote.url, tmp_path / "run", launcher=launcher))
        assert last_state(tmp_path / "run")["sample_digest"] == last_state(run)["sample_digest"]
        if processes == 1:
            assert all(value.equal(weights(run)[name]) for name, value in weights(tmp_path / "run").items())
        for name, of in (("near", data), ("far", remote.url)):
            words = ["evaluate", str(of), "--checkpoint", str(run), "--out", str(tmp_path / name)]
            assert CliRunner().invoke(app, [*words, "--prompts", "box,1"]).exit_code == 0
        sql = "SELECT split, count(*) AS n FROM manifest GROUP BY ALL ORDER BY ALL"
        near, far = (CliRunner().invoke(app, ["query", str(of), sql]) for of in (data, remote.url))
    assert pq.read_table(tmp_path / "near/scores.parquet") == pq.read_table(tmp_path / "far/scores.parquet")
    assert "val" in near.stdout
    assert far.stdout == near.stdout
