"""Evaluations that are killed, resumed and shared by processes: the same bytes as one that nothing happened to."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from answering import (
    add_checkpoint,
    answering,
    every_checkpoint_is,
    recipe_of,
    write_run,
    write_tiny_recipe,
)
from kit import pieces, write_dataset

from medcurate.errors import ConfigError, MedcurateError, OutputError
from medcurate.lock import LOCK_FILE, locked
from medcurate.train.evaluation import run as running
from medcurate.train.evaluation import work as working
from medcurate.train.evaluation.parts import FOLDER
from medcurate.train.evaluation.run import Options, evaluate
from medcurate.train.evaluation.spread import ProcessDied, spread
from medcurate.train.model.build import build_sam
from medcurate.train.model.checkpoint import save_original

FILES = ["predictions.parquet", "prompts.parquet", "scores.json", "scores.parquet", "volumes.parquet"]
PARTS = 5  # of the test split's masks


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a dataset and a run."""
    folder = tmp_path_factory.mktemp("place")
    write_dataset(folder / "dataset", pieces(1200, size=40), per_shard=64)
    write_run(folder / "run")
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
    assert [path.name for path in (folder / "scores" / FOLDER).iterdir()] == [LOCK_FILE]
    return {path.name: path.read_bytes() for path in (folder / "scores").iterdir() if path.is_file()}


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
    every_checkpoint_is(monkeypatch, answering())
    common = {"data": str(place / "dataset"), "checkpoint": "x", "prompts": "2", "where": "organ = 'liver'"}
    evaluate(Options(**common, out=tmp_path / "fresh", seed=1))
    monkeypatch.setattr(running, "write_results", lambda *_: pytest.fail("stopped"))
    with pytest.raises(pytest.fail.Exception):
        evaluate(Options(**common, out=tmp_path / "scores"))
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "cache"))
    every_checkpoint_is(monkeypatch, answering())
    evaluate(Options(**common, out=tmp_path / "scores", seed=1))
    for name in ("scores.parquet", "prompts.parquet"):
        assert (tmp_path / "scores" / name).read_bytes() == (tmp_path / "fresh" / name).read_bytes()


def then(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], None]) -> None:
    """Let something happen when all models are found, before the first is asked."""
    find = running.find_candidates

    def found_then(*to: Any) -> Any:
        candidates = find(*to)
        happens()
        return candidates

    monkeypatch.setattr(running, "find_candidates", found_then)


@pytest.fixture
def options(place, tmp_path, monkeypatch) -> Options:
    """An evaluation of a run that may be changed, with boxes."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "cache"))
    run = str(write_run(tmp_path / "run"))
    return Options(data=str(place / "dataset"), checkpoint=run, prompts="box", out=tmp_path / "scores")


def test_a_run_that_trains_on_is_scored_at_one_checkpoint(options, tmp_path, monkeypatch) -> None:
    evaluate(replace(options, out=tmp_path / "before"))
    then(monkeypatch, lambda: add_checkpoint(tmp_path / "run", 8, seed=4))
    evaluate(options)
    record = json.loads((options.out / "scores.json").read_text())
    assert record["models"] == {"run/step-00000007": str(tmp_path / "run/checkpoints/step-00000007")}
    names = ("scores.parquet", "predictions.parquet")
    assert all(
        (options.out / name).read_bytes() == (tmp_path / "before" / name).read_bytes() for name in names
    )


def test_weights_that_change_meanwhile_are_not_scored(options, tmp_path, monkeypatch) -> None:
    then(monkeypatch, lambda: add_checkpoint(tmp_path / "run", 7, seed=4))
    with pytest.raises(ConfigError, match="step-00000007: is another model than it was"):
        evaluate(replace(options, processes=2))
    assert not list(options.out.glob(f"{FOLDER}/*/scores-*"))


def test_one_process_needs_a_checkpoint_once(options, tmp_path, monkeypatch) -> None:
    """What it has found it asks: the run may remove, or overwrite, the checkpoint meanwhile."""
    evaluate(replace(options, out=tmp_path / "before"))
    then(monkeypatch, lambda: shutil.rmtree(tmp_path / "run"))
    evaluate(options)
    assert (options.out / "scores.parquet").read_bytes() == (tmp_path / "before/scores.parquet").read_bytes()


def test_every_checkpoint_is_read_once(options, tmp_path, monkeypatch) -> None:
    recipe = write_tiny_recipe(tmp_path)
    for seed in (1, 2):
        torch.manual_seed(seed)
        save_original(build_sam(recipe_of().model), tmp_path / f"sam{seed}.pth")
    read, load = [], torch.load
    monkeypatch.setattr(torch, "load", lambda path, **how: read.append(path) or load(path, **how))
    first, second = (str(tmp_path / f"sam{seed}.pth") for seed in (1, 2))
    evaluate(replace(options, checkpoint=first, recipe=recipe, against=(second,), where="organ = 'lung'"))
    assert [str(path) for path in read] == [first, second]


def test_prompts_that_change_meanwhile_are_not_given(options, tmp_path, monkeypatch) -> None:
    evaluate(replace(options, out=tmp_path / "first"))
    evaluate(replace(options, out=tmp_path / "second", prompts="2"))
    replay = tmp_path / "first/prompts.parquet"
    then(monkeypatch, lambda: (tmp_path / "second/prompts.parquet").replace(replay))
    with pytest.raises(ConfigError, match="is another file than it was"):
        evaluate(replace(options, replay=replay))


def test_two_evaluations_do_not_share_a_folder(options, tmp_path) -> None:
    """The one that comes second touches nothing of the first."""
    out = options.out
    kept = [out / FOLDER / "pass/scores-000000.parquet", out / "scores.json", out / ".tmp-1-scores.parquet"]
    with locked(out / FOLDER, "evaluating run/step-00000003"):
        for path in kept:
            path.parent.mkdir(exist_ok=True)
            path.write_text("of the first")
        with pytest.raises(OutputError, match=r"in use by process .*evaluating run/step-00000003"):
            evaluate(options)
        assert {path.read_text() for path in kept} == {"of the first"}
    evaluate(options)
    assert found(tmp_path).keys() == set(FILES)


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
    every_checkpoint_is(monkeypatch, trained)
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
