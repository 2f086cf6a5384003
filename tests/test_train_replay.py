"""A batch whose loss cannot be used: stops the run, is recorded, and is gone through again."""

from __future__ import annotations

import json
import math
import shutil

import pytest
from loop_kit import RECIPE, finish, replay_here, start, torchrun, train_here, write_recipe
from safetensors.torch import save_file
from stream_kit import small_dataset

from medcurate.errors import ConfigError
from medcurate.train.config.load import load_recipe
from medcurate.train.loop.run import TrainingStopped
from medcurate.train.model.build import build_sam

NOT_A_NUMBER = RECIPE.replace("[run]", "[optimiser]\nlr = 1e30\n[run]")
# One step a batch, at a rate at which the loss leaves all bounds after a few of them.
EXPLODING = (
    RECIPE
    .replace("rounds = 2", "rounds = 0")
    .replace("checkpoint_every = 3", "checkpoint_every = 2\nstop_above = 100.0")
    .replace("[run]", "[optimiser]\nlr = 0.3\n[run]")
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return small_dataset(tmp_path_factory.mktemp("data") / "small")


def _stopped(text, folder, dataset):
    """The folder of a run that its loss stops."""
    with pytest.raises(TrainingStopped):
        train_here(write_recipe(folder, text), dataset, folder / "run")
    return folder / "run"


def test_replaying_shows_in_which_step_and_image_numbers_end(tmp_path, dataset):
    run = _stopped(NOT_A_NUMBER, tmp_path, dataset)
    first, second, third = replay_here(tmp_path / "tiny.toml", dataset, run)
    assert first.terms["loss"] == pytest.approx(first.recorded_loss, rel=1e-5)
    assert sum(first.image_losses) / 4 == pytest.approx(first.recorded_loss, rel=1e-5)
    assert len(set(first.image_losses)) == 4
    assert first.largest_weight > 1e20
    assert second.prompt == "correction"
    assert all(math.isnan(loss) for step in (second, third) for loss in step.image_losses)
    assert math.isnan(second.recorded_loss)


def test_replaying_makes_the_batches_since_the_checkpoint_again(tmp_path, dataset):
    run = _stopped(EXPLODING, tmp_path, dataset)
    record = json.loads((run / "failed-batch" / "rank-0.json").read_text(encoding="utf-8"))
    assert record["batches"] > 0
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    (step,) = replay_here(tmp_path / "tiny.toml", dataset, run)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
    assert step.terms["loss"] == pytest.approx(record["losses"][0], rel=1e-3)  # grows where weights explode
    assert step.terms["loss"] > 100
    shutil.copytree(run, tmp_path / "without", ignore=shutil.ignore_patterns("checkpoints"))
    (again,) = replay_here(tmp_path / "tiny.toml", dataset, tmp_path / "without")  # made from the beginning
    assert again.terms["loss"] == step.terms["loss"]


def test_one_process_replays_what_several_recorded(tmp_path, dataset):
    """Also where a process had rows without images: 5 images on 2 processes."""
    text = NOT_A_NUMBER.replace("batch_images = 4", "batch_images = 5\nmicro_batch = 1")
    recipe, run = write_recipe(tmp_path, text), tmp_path / "run"
    options = ("--workers", "0")
    error = finish(start(recipe, dataset, run, *options, launcher=torchrun(2)), 1)
    assert "the same command with --replay" in error
    process = start(recipe, dataset, run, *options, "--processes", "2", "--replay")
    told, error = process.communicate(timeout=240)
    assert process.returncode == 0, error
    lines = told.splitlines()
    assert [line.split(":")[0] for line in lines[::2]] == [
        "step 0, box",
        "step 1, correction",
        "step 2, mask",
    ]
    loss, recorded = (
        float(lines[0].split(mark)[1].split()[0].rstrip(";")) for mark in ("loss ", "recorded ")
    )
    assert loss == pytest.approx(recorded, rel=1e-5)
    assert lines[2].startswith("step 1, correction: loss nan (recorded nan;")
    assert lines[1].count("demo--case") == 5


def test_without_images_of_their_own_steps_are_replayed_whole(tmp_path, dataset):
    text = NOT_A_NUMBER.replace("[run]", "[loss]\npool = 'batch'\n[run]")
    run = _stopped(text, tmp_path, dataset)
    steps = replay_here(tmp_path / "tiny.toml", dataset, run)
    assert steps[0].terms["loss"] == pytest.approx(steps[0].recorded_loss, rel=1e-5)
    assert steps[0].image_losses == ()


def test_a_failure_replaces_the_record_of_the_one_before(tmp_path, dataset):
    run = _stopped(NOT_A_NUMBER, tmp_path, dataset)
    (run / "failed-batch" / "rank-7.json").write_text("of a larger run", encoding="utf-8")
    _stopped(NOT_A_NUMBER, tmp_path, dataset)
    assert sorted(path.name for path in (run / "failed-batch").iterdir()) == [
        "prompts-rank-0.jsonl",
        "rank-0.json",
    ]


def test_a_batch_that_the_run_passes_after_all_is_forgotten(tmp_path, dataset):
    """With a higher bound the same run goes on; what fails later is another batch."""
    run = _stopped(RECIPE.replace("[run]", "[run]\nstop_above = 0.01"), tmp_path, dataset)
    assert (run / "failed-batch").is_dir()
    train_here(write_recipe(tmp_path), dataset, run)
    assert not (run / "failed-batch").exists()


def test_what_cannot_be_replayed_is_said(tmp_path, dataset):
    recipe, run = write_recipe(tmp_path), tmp_path / "run"
    with pytest.raises(ConfigError, match="no failed batch here"):
        replay_here(recipe, dataset, run)
    _stopped(NOT_A_NUMBER, tmp_path, dataset)
    with pytest.raises(ConfigError, match="brings other samples than the failed batch had"):
        replay_here(tmp_path / "tiny.toml", small_dataset(tmp_path / "other", count=24), run)
    (run / "failed-batch" / "rank-0.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError, match="not the record of a failed batch"):
        replay_here(recipe, dataset, run)


def test_before_the_first_checkpoint_only_what_began_the_run_replays_it(tmp_path, dataset):
    run = _stopped(NOT_A_NUMBER, tmp_path, dataset)
    slower = write_recipe(tmp_path, NOT_A_NUMBER.replace("1e30", "1e29"))
    with pytest.raises(ConfigError, match=r"optimiser\.lr was 1e\+30, is 1e\+29"):
        replay_here(slower, dataset, run)
    recipe, weights = write_recipe(tmp_path, NOT_A_NUMBER), tmp_path / "origin.safetensors"
    state = build_sam(load_recipe(str(recipe)).model).state_dict()
    save_file({name: value.contiguous() for name, value in state.items()}, weights)
    with pytest.raises(ConfigError, match=r"began with random weights, and .* holds other weights"):
        replay_here(recipe, dataset, run, checkpoint=str(weights))
    with pytest.raises(TrainingStopped):
        train_here(recipe, dataset, run, checkpoint=str(weights))
    with pytest.raises(ConfigError, match=r"began with .*origin\.safetensors .* give them by --checkpoint"):
        replay_here(recipe, dataset, run)
    first, *_ = replay_here(recipe, dataset, run, checkpoint=str(weights))
    assert first.terms["loss"] == pytest.approx(first.recorded_loss, rel=1e-5)


def test_what_is_left_of_an_old_checkpoint_is_no_hindrance(tmp_path, dataset):
    run = _stopped(EXPLODING, tmp_path, dataset)
    (run / "checkpoints" / "step-00000000").mkdir()
    assert replay_here(tmp_path / "tiny.toml", dataset, run)
