"""Runs that are killed, stopped, restarted and spread over processes, against one that is left alone."""

from __future__ import annotations

import json
import os
import random
import signal
from pathlib import Path

import pytest
import torch
from loop_kit import (
    BATCHES,
    RECIPE,
    checkpoints,
    finish,
    last_state,
    losses,
    start,
    torchrun,
    wait_for,
    weights,
    write_recipe,
)
from stream_kit import small_dataset

TOLERANCE = 2e-4  # relative, of a loss: sums over ranks are taken in another order


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return small_dataset(tmp_path_factory.mktemp("data") / "small")


@pytest.fixture(scope="module")
def alone(tmp_path_factory, dataset):
    """The run that nothing disturbs, by one process."""
    folder = tmp_path_factory.mktemp("alone")
    finish(start(write_recipe(folder), dataset, folder / "run"))
    return folder / "run"


def _assert_same_bits(run: Path, alone: Path) -> None:
    assert last_state(run) == last_state(alone)
    assert losses(run) == losses(alone)
    mine, theirs = weights(run), weights(alone)
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_a_run_learns_logs_and_keeps_the_last_checkpoints(alone):
    assert len(losses(alone)) == BATCHES
    assert [path.name for path in checkpoints(alone)] == [f"step-{number:08d}" for number in (6, 9, 10)]
    state = last_state(alone)
    assert (state["batches"], state["steps"]) == (BATCHES, 3 * BATCHES)
    first = json.loads((alone / "run.json").read_text())
    assert first["recipe"]["run"]["batches"] == BATCHES
    assert json.loads((alone / "groups.json").read_text())


def test_a_run_killed_at_random_batches_ends_as_if_nothing_had_happened(tmp_path, dataset, alone):
    recipe, run = write_recipe(tmp_path), tmp_path / "run"
    for batch in sorted(random.Random(3).sample(range(1, BATCHES - 1), 2)):
        process = start(recipe, dataset, run, "--workers", "1")
        wait_for(run, batch, process)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    finish(start(recipe, dataset, run))
    _assert_same_bits(run, alone)


def test_a_scheduler_s_signal_ends_in_a_checkpoint(tmp_path, dataset, alone):
    recipe, run = write_recipe(tmp_path), tmp_path / "run"
    process = start(recipe, dataset, run)
    wait_for(run, 4, process)
    process.send_signal(signal.SIGTERM)
    finish(process, 128 + signal.SIGTERM)
    stopped = last_state(run)["batches"]
    assert 4 <= stopped < BATCHES
    finish(start(recipe, dataset, run))
    _assert_same_bits(run, alone)


@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_processes_see_the_same_samples_and_learn_the_same(tmp_path, dataset, alone, processes):
    recipe, run = write_recipe(tmp_path), tmp_path / "run"
    finish(start(recipe, dataset, run, "--workers", "0", launcher=torchrun(processes)))
    assert last_state(run)["sample_digest"] == last_state(alone)["sample_digest"]
    assert losses(run) == pytest.approx(losses(alone), rel=TOLERANCE)


def test_a_dead_process_is_replaced(tmp_path, dataset, alone):
    recipe, run = write_recipe(tmp_path), tmp_path / "run"
    process = start(recipe, dataset, run, "--workers", "0", launcher=torchrun(2, restarts=1))
    wait_for(run, 4, process)
    os.kill(_child(process.pid), signal.SIGKILL)
    finish(process)
    assert last_state(run)["sample_digest"] == last_state(alone)["sample_digest"]
    assert losses(run) == pytest.approx(losses(alone), rel=TOLERANCE)


def test_a_run_goes_on_with_another_number_of_processes(tmp_path, dataset, alone):
    recipe, run = write_recipe(tmp_path), tmp_path / "run"
    process = start(recipe, dataset, run, "--workers", "0", launcher=torchrun(2))
    wait_for(run, 2, process)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    stopped = last_state(run)["batches"]
    assert 2 <= stopped < BATCHES
    process = start(recipe, dataset, run, "--workers", "1")
    wait_for(run, stopped + 2, process)
    process.send_signal(signal.SIGTERM)
    finish(process, 128 + signal.SIGTERM)
    finish(start(recipe, dataset, run, "--workers", "0", launcher=torchrun(3)))
    assert last_state(run)["sample_digest"] == last_state(alone)["sample_digest"]
    assert losses(run) == pytest.approx(losses(alone), rel=TOLERANCE)


def _child(parent: int) -> int:
    """A training process that torchrun started."""
    tasks = Path(f"/proc/{parent}/task/{parent}/children").read_text(encoding="utf-8").split()
    found = [
        int(child) for child in tasks if b"medcurate.train" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]
    return found[-1]


def test_accumulation_equals_the_large_batch(tmp_path, dataset, alone):
    text = RECIPE.replace("batch_images = 4", "batch_images = 4\nmicro_batch = 1")
    run = tmp_path / "run"
    finish(start(write_recipe(tmp_path, text), dataset, run))
    assert losses(run) == pytest.approx(losses(alone), rel=TOLERANCE)


def test_a_loss_that_explodes_stops_the_run_and_keeps_the_batch(tmp_path, dataset):
    run = tmp_path / "run"
    text = RECIPE.replace("[run]", "[optimiser]\nlr = 1e30\n[run]")
    error = finish(start(write_recipe(tmp_path, text), dataset, run), 1)
    assert "is not a finite number" in error
    assert "Traceback" not in error
    record = json.loads((run / "failed-batch" / "rank-0.json").read_text())
    assert len(record["keys"]) == 4
    assert (run / "failed-batch" / "prompts-rank-0.jsonl").read_text().count("\n") == 4 * 2 * len(
        record["losses"]
    )


def test_another_recipe_or_an_unwanted_resume_is_refused(tmp_path, dataset, alone):
    changed = write_recipe(tmp_path, RECIPE.replace("seed = 7", "seed = 8"))
    assert "another train recipe" in finish(start(changed, dataset, alone), 1)
    same = write_recipe(tmp_path)
    assert "--resume auto" in finish(start(same, dataset, alone, "--resume", "never"), 1)
