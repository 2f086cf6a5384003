"""Nodes that are lost and that come, by torchrun's own elastic agents, against a run that is left alone."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest
from loop_kit import (
    BATCHES,
    RECIPE,
    agent,
    finish,
    free_port,
    last_state,
    losses,
    start,
    told,
    train_here,
    trainers,
    wait_for,
    write_recipe,
)
from stream_kit import small_dataset

TOLERANCE = 2e-4  # relative, of a loss: sums over ranks are taken in another order
MANY = 40  # enough that nobody who watches the log misses the middle of the run
LONG = RECIPE.replace(f"batches = {BATCHES}", f"batches = {MANY}")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return small_dataset(tmp_path_factory.mktemp("data") / "small")


@pytest.fixture(scope="module")
def alone(tmp_path_factory, dataset):
    """The run that nothing disturbs."""
    folder = tmp_path_factory.mktemp("alone")
    train_here(write_recipe(folder, LONG), dataset, folder / "run")
    return folder / "run"


@pytest.fixture
def started():
    """Processes to end with the test, with all that they have started."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        if process.poll() is None:
            _lose(process)


def _lose(node: subprocess.Popen[str]) -> None:
    """Kill a node's agent and its training processes at once, as a power cut does."""
    for process in [node.pid, *trainers(node.pid)]:
        os.kill(process, signal.SIGKILL)
    node.communicate()


def _assert_same(run, alone):
    assert last_state(run)["sample_digest"] == last_state(alone)["sample_digest"]
    assert losses(run) == pytest.approx(losses(alone), rel=TOLERANCE)


def test_a_run_goes_on_with_the_nodes_that_are_left(tmp_path, dataset, alone, started):
    recipe, run, port = write_recipe(tmp_path, LONG), tmp_path / "run", free_port()
    for host in (True, False):
        launcher = agent(port, nodes="1:2", host=host)
        started.append(start(recipe, dataset, run, "--workers", "0", launcher=launcher))
    wait_for(run, 4, started[0])
    _lose(started[1])
    finish(started[0])
    assert [line["processes"] for line in told(run, "trainable")] == [2, 1]
    assert 3 <= told(run, "resumed")[0]["batches"] < MANY
    _assert_same(run, alone)


def test_a_killed_process_is_replaced_on_its_node_and_the_others_wait_for_it(
    tmp_path, dataset, alone, started
):
    recipe, run, port = write_recipe(tmp_path, LONG), tmp_path / "run", free_port()
    for host in (True, False):
        launcher = agent(port, nodes="2", host=host)
        started.append(start(recipe, dataset, run, "--workers", "0", launcher=launcher))
    wait_for(run, 4, started[0])
    os.kill(trainers(started[1].pid)[0], signal.SIGKILL)
    for node in started:
        finish(node)
    assert [line["processes"] for line in told(run, "trainable")] == [2, 2]
    _assert_same(run, alone)


@pytest.mark.slow
def test_a_node_may_come_and_go(tmp_path, dataset, started, monkeypatch):
    # torch 2.13: an agent that stays does not tell one that comes later where their common store is.
    monkeypatch.setenv("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    text = RECIPE.replace(f"batches = {BATCHES}", "batches = 400").replace("every = 3", "every = 20")
    recipe, run, port = write_recipe(tmp_path, text), tmp_path / "run", free_port()
    train_here(recipe, dataset, tmp_path / "alone")
    started.append(
        start(recipe, dataset, run, "--workers", "0", launcher=agent(port, nodes="1:2", host=True))
    )
    wait_for(run, 3, started[0])
    started.append(
        start(recipe, dataset, run, "--workers", "0", launcher=agent(port, nodes="1:2", host=False))
    )
    limit = time.monotonic() + 120
    while [line["processes"] for line in told(run, "trainable")] != [1, 2]:
        assert started[0].poll() is None, "the run ended before the second node had come"
        assert time.monotonic() < limit, "the second node has not come"
        time.sleep(0.02)
    wait_for(run, told(run, "resumed")[-1]["batches"] + 4, started[0])
    _lose(started[1])
    finish(started[0])
    assert [line["processes"] for line in told(run, "trainable")] == [1, 2, 1]
    _assert_same(run, tmp_path / "alone")
