"""Evaluations that are killed, resumed and shared by processes: the same bytes as one that nothing happened to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from answering import answering, recipe_of
from kit import pieces, write_dataset

from medcurate.errors import MedcurateError
from medcurate.train.evaluation import run as running
from medcurate.train.evaluation import work as working
from medcurate.train.evaluation.parts import FOLDER
from medcurate.train.evaluation.run import Options, evaluate
from medcurate.train.evaluation.spread import ProcessDied, spread
from medcurate.train.loop.checkpoint import GROUPS_FILE, RUN_FILE
from medcurate.train.model.build import build_sam
from medcurate.train.model.checkpoint import save_original

FILES = ["predictions.parquet", "prompts.parquet", "scores.json", "scores.parquet", "volumes.parquet"]
PARTS = 5  # of the test split's masks


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a dataset and a run."""
    folder = tmp_path_factory.mktemp("place")
    write_dataset(folder / "dataset", pieces(1200, size=40), per_shard=64)
    recipe = recipe_of(64)
    torch.manual_seed(3)
    save_original(build_sam(recipe.model), folder / "run/checkpoints/step-00000007/model.safetensors")
    (folder / "run" / RUN_FILE).write_text(json.dumps({"recipe": recipe.model_dump(mode="json")}))
    (folder / "run" / GROUPS_FILE).write_text("[]")
    return folder


def words_of(place: Path, *more: str) -> list[str]:
    against = ["--against", "filled-box"]
    data, run = str(place / "dataset"), str(place / "run")
    return ["evaluate", data, "--checkpoint", run, *against, "--out", "scores", "--prompts", "box,2", *more]


def started(place: Path, folder: Path, *more: str) -> subprocess.Popen[str]:
    """The verb, in ``folder``."""
    folder.mkdir()
    code = "from medcurate.cli.main import run; run()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *words_of(place, *more)],
        cwd=folder,
        env=os.environ | {"XDG_CACHE_HOME": str(place / "cache")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finished(process: subprocess.Popen[str], code: int = 0) -> str:
    _, told = process.communicate(timeout=240)
    assert process.returncode == code, told
    return told


def found(folder: Path) -> dict[str, bytes]:
    """All that an evaluation in ``folder`` left."""
    return {path.name: path.read_bytes() for path in (folder / "scores").iterdir()}


@pytest.fixture(scope="module")
def undisturbed(place: Path) -> dict[str, bytes]:
    finished(started(place, place / "undisturbed", "--processes", "1"))
    files = found(place / "undisturbed")
    assert sorted(files) == FILES
    return files


@pytest.mark.parametrize("processes", [3])
def test_any_number_of_processes_finds_the_same(place, undisturbed, processes, tmp_path) -> None:
    finished(started(place, tmp_path / "shared", "--processes", str(processes)))
    assert found(tmp_path / "shared") == undisturbed


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_killed_evaluation_goes_on_and_ends_with_the_same(
    place, undisturbed, processes, tmp_path, monkeypatch
) -> None:
    """Finished parts are not done again, nor are those of a model before the one that it was killed in."""
    folder = tmp_path / "killed"
    process = started(place, folder, "--processes", processes)
    limit = time.monotonic() + 120
    while len(list(folder.glob(f"scores/{FOLDER}/*/scores-*.parquet"))) < 2:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < limit
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (folder / "scores/scores.json").exists()
    kept = len(list(folder.glob(f"scores/{FOLDER}/*/scores-*.parquet")))
    read = working.samples
    done: list[range] = []
    monkeypatch.setattr(working, "samples", lambda *to: done.append(to[2]) or read(*to))
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "cache"))
    monkeypatch.chdir(folder)
    evaluate(
        Options(
            data=str(place / "dataset"), checkpoint=str(place / "run"), out=Path("scores"), prompts="box,2",
            against=("filled-box",),
        )
    )  # fmt: skip
    assert 2 <= kept < 2 * PARTS
    assert len(done) == 2 * PARTS - kept
    assert found(folder) == undisturbed


def test_what_was_asked_otherwise_is_not_taken_up(place, tmp_path, monkeypatch) -> None:
    """Parts of another seed are not those of this one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "cache"))
    monkeypatch.setattr(running, "load_trained", lambda *_, **__: answering())
    common = {"data": str(place / "dataset"), "checkpoint": "x", "prompts": "2", "where": "organ = 'liver'"}
    evaluate(Options(**common, out=tmp_path / "fresh", seed=1))
    monkeypatch.setattr(running, "write_results", lambda *_: pytest.fail("stopped"))
    with pytest.raises(pytest.fail.Exception):
        evaluate(Options(**common, out=tmp_path / "scores"))
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "cache"))
    monkeypatch.setattr(running, "load_trained", lambda *_, **__: answering())
    evaluate(Options(**common, out=tmp_path / "scores", seed=1))
    for name in ("scores.parquet", "prompts.parquet"):
        assert (tmp_path / "scores" / name).read_bytes() == (tmp_path / "fresh" / name).read_bytes()


def test_a_bad_sample_in_another_process_is_told_without_a_traceback(place, tmp_path) -> None:
    shard = place / "dataset/shards/test-000002.tar"
    whole = shard.read_bytes()
    try:
        shard.write_bytes(whole[:5000])
        told = finished(started(place, tmp_path / "bad", "--processes", "2"), code=1)
    finally:
        shard.write_bytes(whole)
    assert "test-000002.tar: sample demo--" in told
    assert "Traceback" not in told


def test_a_process_that_dies_is_told() -> None:
    with pytest.raises(ProcessDied, match=r"exit code 7 .*fewer --processes"):
        list(spread(os._exit, [7, 7], 2))
    with pytest.raises(MedcurateError, match="continues"):
        list(spread(signal.raise_signal, [signal.SIGKILL] * 2, 2))


def test_a_model_computes_on_one_core(place, tmp_path, monkeypatch) -> None:
    """Whatever was set before, so that rounding is the same wherever a part is done."""
    seen: set[int] = set()
    trained = answering()
    decode = trained.sam.decode
    monkeypatch.setattr(trained.sam, "decode", lambda *to: seen.add(torch.get_num_threads()) or decode(*to))
    monkeypatch.setattr(running, "load_trained", lambda *_, **__: trained)
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "cache"))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        evaluate(
            Options(
                data=str(place / "dataset"), checkpoint="x", out=tmp_path / "scores", prompts="box",
                where="organ = 'lung'",
            )
        )  # fmt: skip
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen == {1}
