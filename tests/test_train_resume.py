"""What may change, and what may be gone, when a run goes on; and what is refused."""

from __future__ import annotations

import json
import math
import os
import resource
import shutil

import pytest
import torch
from loop_kit import BATCHES, RECIPE, checkpoints, last_state, losses, train_here, weights, write_recipe
from safetensors.torch import load_file
from stream_kit import small_dataset

from medcurate.errors import ConfigError, OutputError
from medcurate.train.config.load import load_recipe
from medcurate.train.loop import checkpoint
from medcurate.train.loop.session import Session
from medcurate.train.loop.world import World
from medcurate.train.model.build import build_sam
from medcurate.train.model.checkpoint import save_original

HALF = RECIPE.replace(f"batches = {BATCHES}", f"batches = {BATCHES // 2}")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return small_dataset(tmp_path_factory.mktemp("data") / "small")


@pytest.fixture(scope="module")
def origin(tmp_path_factory, dataset):
    """A SAM without adapters, as others publish theirs, beside the patients that an earlier run had seen."""
    folder = tmp_path_factory.mktemp("origin")
    torch.manual_seed(3)
    model = load_recipe(str(write_recipe(folder))).model
    plain = model.model_copy(update={"adapter": "none", "trainable": ("mask-decoder",)})
    save_original(build_sam(plain), folder / "sam.pth")
    (folder / "groups.json").write_text('["patient of the earlier run"]', encoding="utf-8")
    return folder / "sam.pth"


@pytest.fixture(scope="module")
def whole(tmp_path_factory, dataset, origin):
    """The run from ``origin`` that nothing disturbs, by somebody whose files are for nobody else."""
    folder = tmp_path_factory.mktemp("whole")
    usual = os.umask(0o077)
    try:
        train_here(write_recipe(folder), dataset, folder / "run", checkpoint=str(origin))
    finally:
        os.umask(usual)
    return folder / "run"


@pytest.fixture
def half(tmp_path, dataset, origin):
    """The first half of that run, from a copy of ``origin`` that may go."""
    shutil.copytree(origin.parent, tmp_path / "origin")
    train_here(write_recipe(tmp_path, HALF), dataset, tmp_path / "run", checkpoint=_named(tmp_path))
    return tmp_path / "run"


def _named(folder):
    return str(folder / "origin" / "sam.pth")


def _assert_same(run, whole):
    """Losses, weights and the optimiser's moments, to the bit."""
    assert losses(run) == losses(whole)
    for name in ("model.safetensors", "optimiser.safetensors"):
        mine, theirs = (load_file(checkpoints(folder)[-1] / name) for folder in (run, whole))
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[key], theirs[key]) for key in theirs)


@pytest.mark.parametrize("named", [True, False], ids=["still named", "not named"])
def test_a_run_goes_on_without_the_weights_that_it_began_with(tmp_path, dataset, half, whole, named):
    shutil.rmtree(tmp_path / "origin")
    train_here(write_recipe(tmp_path), dataset, half, checkpoint=_named(tmp_path) if named else "")
    _assert_same(half, whole)
    kept = json.loads((checkpoints(half)[-1] / "groups.json").read_text(encoding="utf-8"))
    assert "patient of the earlier run" in kept
    facts = json.loads((checkpoints(half)[-1] / "run.json").read_text(encoding="utf-8"))
    assert facts["recipe"]["run"]["batches"] == BATCHES
    assert facts["initial_weights"]["path"] == _named(tmp_path)


def test_the_same_weights_may_have_moved_and_others_are_refused(tmp_path, dataset, half, whole, origin):
    other = checkpoints(whole)[-1] / "model.safetensors"
    recipe = write_recipe(tmp_path)
    with pytest.raises(ConfigError, match=r"began with .*sam\.pth.* holds other weights"):
        train_here(recipe, dataset, half, checkpoint=str(other))
    with pytest.raises(ConfigError, match="no such checkpoint"):
        train_here(recipe, dataset, half, checkpoint="elsewhere.pth")
    train_here(recipe, dataset, half, checkpoint=str(origin))
    _assert_same(half, whole)


def test_a_copied_checkpoint_goes_on_in_a_new_place(tmp_path, dataset, half, whole):
    """The last checkpoint's folder and the dataset, wherever they are, are all that is needed."""
    last = checkpoints(half)[-1]
    shutil.copytree(last, tmp_path / "moved" / "checkpoints" / last.name)
    train_here(write_recipe(tmp_path), shutil.copytree(dataset, tmp_path / "data"), tmp_path / "moved")
    assert last_state(tmp_path / "moved")["sample_digest"] == last_state(whole)["sample_digest"]
    assert (tmp_path / "moved" / "groups.json").read_bytes() == (whole / "groups.json").read_bytes()


def test_a_part_that_never_learns_needs_weights_or_a_word_when_a_run_begins(tmp_path, dataset, half, whole):
    silent = write_recipe(tmp_path, RECIPE.replace("frozen_random = true\n", ""))
    with pytest.raises(ConfigError, match=r"leaves out image-encoder, which would keep random.*--checkpoint"):
        train_here(silent, dataset, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    train_here(silent, dataset, half)
    _assert_same(half, whole)


def test_what_does_not_decide_the_weights_may_change(tmp_path, dataset, half, whole):
    text = RECIPE.replace("checkpoint_every = 3", "checkpoint_every = 4\nkeep = 1\nstop_above = 99.0")
    text = text.replace("log_every = 1", "log_every = 2").replace('"Seconds"', '"Otherwise"')
    text = text.replace("[data]", '[data]\nprefetch = 2\non_bad_sample = "skip"\ncache_bytes = 1000')
    train_here(write_recipe(tmp_path, text), dataset, half)
    mine, theirs = weights(half), weights(whole)
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    assert [path.name for path in checkpoints(half)] == [f"step-{BATCHES:08d}"]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("seed = 7", "seed = 8", "run.seed was 7, is 8"),
        ("batch_images = 4", "batch_images = 8", "run.batch_images was 4, is 8"),
        ("rounds = 2", "rounds = 3", "steps.rounds was 2, is 3"),
        ("[run]", "[optimiser]\nlr = 0.5\n[run]", "optimiser.lr was 0.0001, is 0.5"),
        ("[data]", "[data]\nsplit = 'val'", 'data.split was "train", is "val"'),
        (
            "[run]",
            "[prompts.box.jitter]\nrule = 'shift'\n[run]",
            "prompts.box.jitter.pixels was not given, is 5",
        ),
    ],
    ids=lambda text: "" if " was " in text else text,
)
def test_what_decides_the_weights_may_not_change(tmp_path, dataset, half, old, new, told):
    before = last_state(half)
    with pytest.raises(ConfigError, match="another train recipe") as caught:
        train_here(write_recipe(tmp_path, RECIPE.replace(old, new)), dataset, half)
    assert told in str(caught.value)
    assert f"--checkpoint {checkpoints(half)[-1] / 'model.safetensors'}" in str(caught.value)
    assert last_state(half) == before


def test_a_run_may_become_longer_unless_its_learning_rate_knows_its_end(tmp_path, dataset):
    run, cosine = tmp_path / "run", '[schedule]\nkind = "cosine"\n[run]'
    train_here(write_recipe(tmp_path, HALF.replace("[run]", cosine)), dataset, run)
    with pytest.raises(ConfigError, match=f"run.batches was {BATCHES // 2}, is {BATCHES}"):
        train_here(write_recipe(tmp_path, RECIPE.replace("[run]", cosine)), dataset, run)


@pytest.mark.parametrize("optimiser", ["adam", "adamw"])
def test_the_optimiser_goes_on_with_its_moments(tmp_path, dataset, optimiser):
    table = f'[optimiser]\nname = "{optimiser}"\nlr = 1e-2\nweight_decay = 0.1\nclip_norm = 1.0\n[run]'
    train_here(write_recipe(tmp_path, RECIPE.replace("[run]", table)), dataset, tmp_path / "whole")
    for text in (HALF, RECIPE):
        train_here(write_recipe(tmp_path, text.replace("[run]", table)), dataset, tmp_path / "run")
    _assert_same(tmp_path / "run", tmp_path / "whole")


def test_products_in_bfloat16_go_on_with_the_same_bits(tmp_path, dataset):
    """Masks are fed back and points drawn from errors, all of which a rounding that differs would change."""
    for name, texts in (("whole", (RECIPE,)), ("run", (HALF, RECIPE))):
        for text in texts:
            short = text.replace("[run]", '[run]\nprecision = "bf16"')
            train_here(write_recipe(tmp_path, short), dataset, tmp_path / name)
    _assert_same(tmp_path / "run", tmp_path / "whole")


def test_a_damaged_checkpoint_is_named(tmp_path, dataset, half):
    (checkpoints(half)[-1] / "model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(
        ConfigError, match=r"step-00000005/model.safetensors: is damaged .* goes on from step-00000003"
    ):
        train_here(write_recipe(tmp_path), dataset, half)
    shutil.rmtree(checkpoints(half)[-1])
    train_here(write_recipe(tmp_path), dataset, half)
    assert last_state(half)["batches"] == BATCHES


def test_a_full_disk_is_said_and_the_run_goes_on_from_the_checkpoint_before(tmp_path, dataset, half, whole):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 19, limits[1]))  # the model's file is larger
    try:
        with pytest.raises(OutputError, match=r"cannot write .*step-00000006: File too large"):
            train_here(write_recipe(tmp_path), dataset, half)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted((half / "checkpoints").iterdir()) == checkpoints(half)
    assert last_state(half)["batches"] == BATCHES // 2
    train_here(write_recipe(tmp_path), dataset, half)
    _assert_same(half, whole)


def test_everybody_may_read_what_a_run_leaves(whole):
    modes = {path.name: path.stat().st_mode & 0o777 for path in checkpoints(whole)[-1].iterdir()}
    assert set(modes.values()) == {0o644}, modes


@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")),
    ],
)
def test_torch_s_generators_go_on_where_they_were(tmp_path, device):
    session = Session(load_recipe(str(write_recipe(tmp_path))), World(0, 1, torch.device(device)))
    torch.rand(3, device=device)
    folder = checkpoint.save(tmp_path, session.state, session.sam, session.optimiser, keep=1, facts={})
    expected = torch.rand(5), torch.rand(5, device=device)
    torch.manual_seed(0)
    checkpoint.restore(folder, session.sam, session.optimiser)
    assert torch.equal(torch.rand(5), expected[0])
    assert torch.equal(torch.rand(5, device=device), expected[1])


def test_weights_that_are_no_numbers_are_never_saved(tmp_path):
    session = Session(load_recipe(str(write_recipe(tmp_path))), World(0, 1, torch.device("cpu")))
    assert session.finite()
    with torch.no_grad():
        session.parameters[-1].flatten()[0] = math.inf
    assert not session.finite()
