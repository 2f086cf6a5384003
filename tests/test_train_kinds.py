"""Every kind of training that a recipe may ask for, really done: it learns, moves what it may, and can be exported."""

from __future__ import annotations

import shutil

import pytest
import torch
from loop_kit import BATCHES, RECIPE, losses, train_here, weights, write_recipe
from stream_kit import small_dataset

from medcurate.train.config.load import load_recipe
from medcurate.train.loop.session import Session
from medcurate.train.loop.world import World
from medcurate.train.model.build import GROUPS, build_sam
from medcurate.train.model.checkpoint import load_checkpoint, save_original
from medcurate.train.prediction.loading import load_trained

LEARNS = RECIPE.replace(f"batches = {BATCHES}", "batches = 40").replace(
    "[run]", "[optimiser]\nlr = 1e-3\n[run]"
)
BOXES = LEARNS.replace("[run]", "[prompts]\nfirst = { box = 1.0, point = 0.0 }\n[run]")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return small_dataset(tmp_path_factory.mktemp("data") / "small")


@pytest.fixture(scope="module")
def plain(tmp_path_factory, dataset):
    """The losses of a run with SAM-Med2D's adapters in float32, which opens with boxes."""
    folder = tmp_path_factory.mktemp("plain")
    train_here(write_recipe(folder, BOXES), dataset, folder / "run")
    return losses(folder / "run")


def _assert_learns(found: list[float]) -> None:
    assert sum(found[-5:]) < 0.9 * sum(found[:5]), found


def _assert_moved_what_it_may(recipe, run) -> set[str]:
    """Names of the parameters that moved: some of every declared part, and no other."""
    chosen = load_recipe(str(recipe))
    before = Session(chosen, World(0, 1, torch.device("cpu"))).sam.state_dict()
    after = weights(run)
    assert all(value.dtype == before[name].dtype for name, value in after.items())
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    parts = [{name for name in moved if GROUPS[part](name)} for part in chosen.model.trainable]
    assert all(parts)
    assert set().union(*parts) == moved
    return moved


def _assert_exported_alike(recipe, run, folder) -> None:
    """What other SAM tools read computes what the run's own checkpoint does."""
    trained = load_trained(run, device="cpu")
    save_original(trained.sam, folder / "sam.pth")
    model = load_recipe(str(recipe)).model
    kept = model.adapter if model.adapter == "sam-med2d" else "none"  # low-rank updates are merged
    other = build_sam(model.model_copy(update={"adapter": kept, "trainable": ("mask-decoder",)})).eval()
    assert not load_checkpoint(other, folder / "sam.pth").missing
    images = torch.arange(2 * 3 * 64 * 64).remainder(251).to(torch.uint8).view(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(other.encode(images), trained.sam.encode(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "change",
    [
        ('adapter = "sam-med2d"', 'adapter = "lora"'),
        ("box = 1.0, point = 0.0", "box = 0.0, point = 0.0, scribble = 1.0"),
        ('["adapters", "prompt-encoder", "mask-decoder"]', '["image-encoder", "mask-decoder"]'),
        ('method = "interactive"\nrounds = 2', 'method = "decoder-only"'),
    ],
    ids=["lora", "scribbles", "image encoder", "decoder only"],
)
def test_it_learns_and_moves_what_it_may(tmp_path, dataset, plain, change):
    text = BOXES.replace(*change)
    if "decoder-only" in text:
        text = text.replace('["adapters", "prompt-encoder", "mask-decoder"]', '["mask-decoder"]')
    recipe, run = write_recipe(tmp_path, text), tmp_path / "run"
    train_here(recipe, dataset, run)
    _assert_learns(losses(run))
    assert losses(run)[-1] != plain[-1]
    moved = _assert_moved_what_it_may(recipe, run)
    assert (any(".lora_a" in name for name in moved), any(".lora_b" in name for name in moved)) == (
        ('"lora"' in text,) * 2
    )
    _assert_exported_alike(recipe, run, tmp_path)


def test_bfloat16_learns_nearly_the_same_and_keeps_float32_weights(tmp_path, dataset, plain):
    recipe, run = (
        write_recipe(tmp_path, BOXES.replace("[run]", '[run]\nprecision = "bf16"')),
        tmp_path / "run",
    )
    train_here(recipe, dataset, run)
    _assert_learns(losses(run))
    assert losses(run) != plain
    assert losses(run)[:5] == pytest.approx(plain[:5], rel=0.02)
    _assert_moved_what_it_may(recipe, run)
    _assert_exported_alike(recipe, run, tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs g++, which is not here")
def test_a_compiled_model_learns_the_same(tmp_path, dataset):
    found = {}
    for compiled in ("false", "true"):
        text = BOXES.replace("rounds = 2", "rounds = 0").replace("[run]", f"[run]\ncompile = {compiled}")
        recipe, run = write_recipe(tmp_path, text), tmp_path / compiled
        train_here(recipe, dataset, run)
        found[compiled] = losses(run)
    assert found["true"][:10] == pytest.approx(found["false"][:10], rel=1e-3)
    assert found["true"] != found["false"]
    _assert_learns(found["true"])
    _assert_moved_what_it_may(recipe, run)
    _assert_exported_alike(recipe, run, tmp_path)
