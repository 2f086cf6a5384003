"""Runs that are killed, stopped, restarted and spread over processes, against one that is left alone."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from loop_kit import (
    BATCHES,
    RECIPE,
    checkpoints,
    finish,
    last_state,
    losses,
    losses_lines,
    start,
    told,
    torchrun,
    train_here,
    trainers,
    wait_for,
    weights,
    write_recipe,
)
from stream_kit import joined_keys, small_dataset, stream, taken

from medcurate.errors import ConfigError
from medcurate.train.launch import COMES_AGAIN, Hopeless
from medcurate.train.loop import holding
from medcurate.train.loop import run as running
from medcurate.train.loop.figures import Clock
from medcurate.train.prediction.loading import load_trained

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
    os.kill(trainers(process.pid)[-1], signal.SIGKILL)
    finish(process)
    assert last_state(run)["sample_digest"] == last_state(alone)["sample_digest"]
    assert losses(run) == pytest.approx(losses(alone), rel=TOLERANCE)


DIES = """
import os, signal
from medcurate.train.__main__ import main
from medcurate.train.loop.{module} import {owner}

real, calls = {owner}.{name}, 0

def dies(*to):
    global calls
    calls += 1
    if calls == 9 and os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*to)

{owner}.{name} = dies
main()
"""


@pytest.mark.parametrize(
    ("module", "owner", "name"), [("reducer", "GradientReducer", "_launch"), ("session", "Session", "summed")]
)
def test_a_process_that_is_killed_amid_the_others_work_is_named_and_nothing_traced(
    tmp_path, dataset, module, owner, name
):
    """In a backward pass, and while losses are summed."""
    script = tmp_path / "dies.py"
    script.write_text(DIES.format(module=module, owner=owner, name=name), encoding="utf-8")
    launcher = ("-m", "medcurate.train.launch", "--standalone", "--nproc-per-node=2", str(script))
    run = tmp_path / "run"
    process = start(write_recipe(tmp_path), dataset, run, "--workers", "0", launcher=launcher)
    error = finish(process, 128 + signal.SIGKILL)
    assert "error: process 1 was ended by SIGKILL" in error
    assert "The same command goes on from the last checkpoint" in error
    assert "Traceback" not in error


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


def test_accumulation_equals_the_large_batch(tmp_path, dataset, alone):
    text = RECIPE.replace("batch_images = 4", "batch_images = 4\nmicro_batch = 1")
    run = tmp_path / "run"
    train_here(write_recipe(tmp_path, text), dataset, run)
    assert losses(run) == pytest.approx(losses(alone), rel=TOLERANCE)


@pytest.mark.parametrize(
    ("table", "rule"),
    [
        ("[optimiser]\nlr = 1e30\n[run]", "is not a finite number"),
        ("[run]\nmicro_batch = 1\nstop_above = 0.01", "is above run.stop_above, 0.01"),
    ],
)
def test_a_loss_that_explodes_stops_the_run_and_keeps_the_batch(tmp_path, dataset, table, rule):
    run = tmp_path / "run"
    recipe = write_recipe(tmp_path, RECIPE.replace("[run]", table))
    error = finish(start(recipe, dataset, run), COMES_AGAIN)
    assert rule in error
    assert "Traceback" not in error
    record = json.loads((run / "failed-batch" / "rank-0.json").read_text())
    assert len(record["keys"]) == 4
    lines = (run / "failed-batch" / "prompts-rank-0.jsonl").read_text().splitlines()
    assert len(lines) == 4 * 2 * len(record["losses"])
    assert {json.loads(line)["key"] for line in lines} == set(record["keys"])


def test_patients_of_the_run_that_it_started_from_are_its_own_too(tmp_path, dataset, alone):
    text = RECIPE.replace("[data]", '[data]\nsplit = "val"').replace(f"batches = {BATCHES}", "batches = 1")
    first = checkpoints(alone)[-1] / "model.safetensors"
    run = tmp_path / "run"
    train_here(write_recipe(tmp_path, text), dataset, run, checkpoint=str(first))
    rows = pq.read_table(dataset / "manifest.parquet").to_pylist()
    seen = {row["group"] for row in rows if row["split"] in {"train", "val"}}
    assert set(json.loads((checkpoints(run)[-1] / "groups.json").read_text())) == seen
    assert load_trained(run).started_from == ""


def test_what_is_told_by_a_checkpoint_is_told_before_it(tmp_path, dataset):
    text = RECIPE.replace("log_every = 1", "log_every = 4")
    run = tmp_path / "run"
    train_here(write_recipe(tmp_path, text), dataset, run)
    assert [line["batches"] for line in losses_lines(run)] == [3, 4, 6, 8, 9, 10]


def test_only_what_lies_between_asking_and_having_is_waiting():
    times = iter([0.0, 1.0, 3.0, 10.0, 10.0])  # made, asked, had, figures (twice)
    clock = Clock(lambda: next(times))
    clock.asked()
    clock.waited()
    clock.worked(5)
    assert clock.figures() == {"images_per_s": 0.5, "data_wait_percent": 20.0}


@pytest.fixture
def damaged(tmp_path, dataset):
    """The dataset with two damaged samples, and their keys: of two processes the second has the first of them."""
    folder = tmp_path / "damaged"
    shutil.copytree(dataset, folder)
    order = joined_keys(taken(stream(dataset, tmp_path / "cache", seed=7, batch_images=4), BATCHES))
    keys = [order[10], order[20]]
    for row in pq.read_table(folder / "manifest.parquet").to_pylist():
        if row["key"] in keys:
            data = bytearray((folder / row["shard"]).read_bytes())
            data[row["offset"] + 600] = 255 - data[row["offset"] + 600]
            (folder / row["shard"]).write_bytes(data)
            keys = [key for key in keys if key != row["key"]]
    return folder, [order[10], order[20]]


def test_a_sample_that_one_process_cannot_read_ends_all_with_its_name(tmp_path, damaged):
    folder, keys = damaged
    recipe, run = write_recipe(tmp_path), tmp_path / "run"
    error = finish(start(recipe, folder, run, "--workers", "0", "--processes", "2"), COMES_AGAIN)
    assert error.count(f"sample {keys[0]}") == error.count("error: ") == 1
    assert "Traceback" not in error
    assert len(told(run, "trainable")) == 1


def test_skipped_samples_of_all_processes_are_counted(tmp_path, damaged):
    folder, keys = damaged
    recipe = write_recipe(tmp_path, RECIPE.replace("[data]", '[data]\non_bad_sample = "skip"'))
    run = tmp_path / "run"
    finish(start(recipe, folder, run, "--workers", "1", launcher=torchrun(2)))
    assert last_state(run)["skipped"] == len(keys)
    assert losses_lines(run)[-1]["skipped"] == len(keys)


LONG = RECIPE.replace(f"batches = {BATCHES}", "batches = 10000")
TWO = ("--workers", "0", "--processes", "2")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP])
def test_processes_of_the_verb_get_its_signals(tmp_path, dataset, number):
    run = tmp_path / "run"
    process = start(write_recipe(tmp_path, LONG), dataset, run, *TWO)
    wait_for(run, 4, process)
    process.send_signal(number)
    finish(process, 128 + number)
    assert last_state(run)["batches"] == losses_lines(run)[-1]["batches"]
    assert [line["batches"] for line in told(run, "stopped")] == [last_state(run)["batches"]]


def test_processes_that_had_to_be_killed_are_not_taken_for_stopped(tmp_path, dataset, monkeypatch):
    monkeypatch.setenv("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "1")
    run = tmp_path / "run"
    process = start(write_recipe(tmp_path, LONG), dataset, run, *TWO)
    wait_for(run, 4, process)
    os.kill(trainers(process.pid)[0], signal.SIGSTOP)
    process.send_signal(signal.SIGTERM)
    assert "without a checkpoint" in finish(process, 128 + signal.SIGKILL)
    assert not told(run, "stopped")


def test_a_run_under_nohup_outlives_its_terminal(tmp_path, dataset):
    recipe, run = write_recipe(tmp_path, LONG.replace("10000", "60")), tmp_path / "run"
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a child inherits it, as from nohup
    try:
        process = start(recipe, dataset, run, *TWO)
    finally:
        signal.signal(signal.SIGHUP, before)
    wait_for(run, 1, process)
    for one in (process.pid, *trainers(process.pid)):
        os.kill(one, signal.SIGHUP)
    finish(process)
    assert last_state(run)["batches"] == 60


@pytest.mark.parametrize("mistake", ["no dataset", "no number"])
def test_what_would_come_again_is_said_once_and_not_tried_again(tmp_path, dataset, mistake):
    text = RECIPE.replace("[run]", "[optimiser]\nlr = 1e30\n[run]") if mistake == "no number" else RECIPE
    data, run = dataset if mistake == "no number" else tmp_path / "nowhere", tmp_path / "run"
    options = ("--workers", "0", "--processes", "2", "--restarts", "3")
    error = finish(start(write_recipe(tmp_path, text), data, run, *options), COMES_AGAIN)
    assert error.count("error: ") == 1
    assert error.splitlines()[-1].startswith("error: ")  # where people look
    assert "Traceback" not in error
    if mistake == "no number":
        assert len(told(run, "trainable")) == 1
        assert (run / "failed-batch" / "rank-1.json").is_file()


def test_a_folder_that_cannot_be_written_ends_all_without_a_traceback(tmp_path, dataset):
    (tmp_path / "run").touch()
    options = ("--workers", "0", "--processes", "2", "--restarts", "3")
    error = finish(start(write_recipe(tmp_path), dataset, tmp_path / "run", *options), COMES_AGAIN)
    assert error.count("error: --out") == 1
    assert "Traceback" not in error


def test_an_unwanted_resume_is_refused(tmp_path, dataset, alone):
    process = start(write_recipe(tmp_path), dataset, alone, "--resume", "never")
    assert "--resume auto" in finish(process, COMES_AGAIN)


def test_two_runs_do_not_share_a_folder(tmp_path, dataset, monkeypatch):
    """Else the checkpoints of the first would come with the recipe of the second."""
    monkeypatch.setattr(holding, "GONE_S", 0.0)
    text = LONG.replace("checkpoint_every = 3", "checkpoint_every = 1000")
    run = tmp_path / "run"
    process = start(write_recipe(tmp_path, text), dataset, run, "--workers", "1")
    wait_for(run, 1, process)
    other = write_recipe(tmp_path, text.replace("[run]", "[optimiser]\nlr = 0.01\n[run]"))
    with pytest.raises(Hopeless, match=rf"{run} is in use by process {process.pid} .*another --out"):
        train_here(other, dataset, run)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert json.loads((run / "run.json").read_text())["recipe"]["optimiser"]["lr"] == 1e-4
    monkeypatch.undo()
    train_here(write_recipe(tmp_path, text.replace("10000", "1")), dataset, run)
    assert last_state(run)["batches"] == 1


def test_a_run_that_another_has_gone_on_with_meanwhile_is_not_done_twice(tmp_path, dataset, monkeypatch):
    recipe = write_recipe(tmp_path, RECIPE.replace(f"batches = {BATCHES}", "batches = 1"))
    run = tmp_path / "run"
    opened = running.opened_stream

    def after_another(*to):
        monkeypatch.setattr(running, "opened_stream", opened)
        train_here(recipe, dataset, run)
        return opened(*to)

    monkeypatch.setattr(running, "opened_stream", after_another)
    with pytest.raises(Hopeless, match="another process has trained there since"):
        train_here(recipe, dataset, run)
    assert len(told(run, "trainable")) == 1


def test_an_old_checkpoint_is_none_from_the_first_moment_of_its_removal(tmp_path, dataset, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)  # as if killed there each time
        train_here(write_recipe(tmp_path), dataset, tmp_path / "run")
    run = tmp_path / "run"
    assert [path.name for path in checkpoints(run)] == [f"step-{number:08d}" for number in (6, 9, 10)]
    train_here(write_recipe(tmp_path), dataset, run)
    assert sorted((run / "checkpoints").iterdir()) == checkpoints(run)


@pytest.mark.parametrize(
    ("keep", "what"), [(1, "the run begins again"), (2, "the run goes on from step-00000009")]
)
def test_a_damaged_checkpoint_says_what_comes_without_it(tmp_path, dataset, keep, what):
    recipe, run = write_recipe(tmp_path, RECIPE.replace("[run]", f"[run]\nkeep = {keep}")), tmp_path / "run"
    train_here(recipe, dataset, run)
    (checkpoints(run)[-1] / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(ConfigError, match=f"is damaged .* Remove its folder, and {what}"):
        train_here(recipe, dataset, run)


def test_a_checkpoint_without_what_the_run_began_with_is_said(tmp_path, dataset):
    recipe, run = write_recipe(tmp_path), tmp_path / "run"
    train_here(recipe, dataset, run)
    record = checkpoints(run)[-1] / "run.json"
    facts = json.loads(record.read_text(encoding="utf-8"))
    del facts["initial_weights"]
    record.write_text(json.dumps(facts), encoding="utf-8")
    with pytest.raises(ConfigError, match='has no "initial_weights": another version'):
        train_here(recipe, dataset, run)
