"""How programs of the trainer begin: Ctrl-C while they load, and an environment that a launcher has left."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from interrupt_kit import interrupted_at
from loop_kit import finish, start, write_recipe
from stream_kit import small_dataset

from medcurate.errors import ConfigError
from medcurate.interrupt import INTERRUPTED, TOLD
from medcurate.train.launch import COMES_AGAIN
from medcurate.train.place import Place, own_place, require_meeting_point

WHILE_LOADING = (
    interrupted_at("torch")
    + """
import runpy
runpy.run_module(sys.argv.pop(1), run_name="__main__")
"""
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return small_dataset(tmp_path_factory.mktemp("data") / "small")


@pytest.mark.parametrize("module", ["medcurate.train", "medcurate.train.embed", "medcurate.train.launch"])
def test_ctrl_c_while_torch_is_loaded_is_one_line(module) -> None:
    command = [sys.executable, "-c", WHILE_LOADING, module, "quickstart", "--data", "nowhere"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (INTERRUPTED, "", f"{TOLD}\n")


WITHOUT_TORCH = """
import runpy
import sys
sys.modules["torch"] = None
runpy.run_module(sys.argv.pop(1), run_name="__main__")
"""


@pytest.mark.parametrize("module", ["medcurate.train", "medcurate.train.embed"])
def test_a_package_that_is_wanting_is_named_with_how_to_install_it(module) -> None:
    command = [sys.executable, "-c", WITHOUT_TORCH, module, "quickstart", "--data", "nowhere"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode in {1, COMES_AGAIN}
    assert re.fullmatch(
        r'error: \w+ needs the package "torch": pip install "medcurate\[train\]"\n', done.stderr
    )


@pytest.fixture
def environment(monkeypatch):
    """Sets what a launcher would have, and nothing else of it."""
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    return lambda **given: [monkeypatch.setenv(name, value) for name, value in given.items()]


def test_a_place_is_what_a_launcher_says(environment) -> None:
    assert own_place() == Place()
    environment(WORLD_SIZE="4", RANK="3")
    assert own_place() == Place(rank=3, size=4)
    environment(LOCAL_RANK="1")
    assert own_place() == Place(rank=3, size=4, local_rank=1)


@pytest.mark.parametrize(
    "given",
    [
        {"RANK": "3"},
        {"LOCAL_RANK": "1"},
        {"WORLD_SIZE": "4"},
        {"WORLD_SIZE": "4", "RANK": "4"},
        {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "1"},
        {"WORLD_SIZE": "two", "RANK": "0"},
    ],
)
def test_half_of_what_a_launcher_says_is_refused(environment, given) -> None:
    """``RANK=3`` alone would have embedding leave out three shards as those of others."""
    environment(**given)
    with pytest.raises(ConfigError, match=f"unset {' '.join(given)}; else start the processes by torchrun"):
        own_place()


def test_processes_that_cannot_meet_do_not_wait_for_each_other(environment) -> None:
    environment(WORLD_SIZE="2", RANK="0", MASTER_ADDR="127.0.0.1")
    with pytest.raises(ConfigError, match="no MASTER_PORT: where do the 2 processes meet"):
        require_meeting_point()


def test_a_world_size_that_was_left_over_does_not_take_the_place_of_processes(
    tmp_path, dataset, environment
) -> None:
    environment(WORLD_SIZE="1", RANK="0")
    error = finish(start(write_recipe(tmp_path), dataset, tmp_path / "run", "--processes", "2"), COMES_AGAIN)
    assert "--processes 2" in error
    assert "unset WORLD_SIZE" in error
    assert not (tmp_path / "run").exists()
