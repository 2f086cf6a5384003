"""The packaged recipes: what they are of, what they promise, and the document that lists the sources."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from layouts.document import PATH, document
from typer.testing import CliRunner

from medcurate.cli.main import app
from medcurate.config.recipe import Clip, Percentiles
from medcurate.config.source import Source
from medcurate.download.instructions import automatic
from medcurate.forecast.against import compare
from medcurate.library import (
    lineage,
    load_recipe,
    load_source,
    recipe_names,
    recipe_path,
    resolve,
    source_ids,
)

ROOT = Path(__file__).parents[1]
SMALL = {
    "msd-spleen": "ct",
    "msd-heart": "mr",
    "bus-bra": "ultrasound",
    "kvasir-seg": "endoscopy",
    "isic-2016": "dermoscopy",
    "fundus-avseg": "fundus",
    "montgomery-cxr": "xray",
    "tnbc-nuclei": "histopathology",
}
SMALL_BYTES = 2 * 10**9


def open_to_all(source: Source) -> bool:
    """Whether ``medcurate download`` fetches all of it, without an account and without a person."""
    declared = bool(source.files or source.folders)
    return source.access == "open" and declared and all(automatic(f.origin) for f in source.files)


def comments(recipe: str) -> str:
    lines = recipe_path(recipe).read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines if line.startswith("#"))


# --- what the two works were made of ---------------------------------------------------------------


def test_sa_med2d_has_every_open_source_of_the_release_and_names_the_others():
    recipe = load_recipe("sa-med2d")
    release = {name for name in source_ids() if load_source(name).sa_med2d}
    fetched = {name for name in release if open_to_all(load_source(name))}
    assert set(recipe.sources) == fetched - {"kits23"}  # a test set of miccai2023; kits19 stands for it
    for name in release - set(recipe.sources):
        assert re.search(rf"\b{re.escape(name)}\b", comments("sa-med2d")), name


def test_everything_of_medsam_is_open_or_named():
    for name in load_recipe("medsam").sources:
        assert open_to_all(load_source(name)), name
    named = re.findall(r"^#   ([a-z0-9-]+)  ", comments("medsam"), re.M)
    assert len(named) >= 13
    assert not any(open_to_all(load_source(name)) for name in named)


@pytest.mark.parametrize("name", ["sa-med2d", "miccai2023"])
def test_the_rules_of_sa_med2d(name):
    recipe = load_recipe(name)
    assert recipe.slices.axes == ("x", "y", "z")
    assert recipe.slices.min_aspect == 0.5
    assert recipe.masks.components == "2d"
    assert (recipe.masks.min_area.pixels, recipe.masks.min_area.at) == (100, 256)
    assert not recipe.split.official


def test_the_rules_of_medsam():
    recipe = load_recipe("medsam")
    assert recipe.slices.axes == ("out-of-plane",)
    assert recipe.intensity["ct"] == Clip(rule="clip", low=-500, high=1000)
    assert recipe.intensity["mr"] == Percentiles(rule="percentiles", low=0.95, high=99.5, voxels="all")
    assert (recipe.masks.min_area.pixels, recipe.masks.min_area.at) == (100, 256)
    assert (recipe.split.train, recipe.split.test) == (0.8, 0.2)


# --- the test sets ---------------------------------------------------------------------------------


def test_miccai2023_is_all_test_and_trains_nobody():
    recipe = load_recipe("miccai2023")
    assert (recipe.split.train, recipe.split.val, recipe.split.test) == (0.0, 0.0, 1.0)
    assert not set(recipe.sources) & {*load_recipe("sa-med2d").sources, *load_recipe("medsam").sources}


def test_what_the_test_sets_share_with_the_training_sets_is_known():
    mine, theirs = (
        [load_source(name) for name in load_recipe(r).sources] for r in ("miccai2023", "sa-med2d")
    )
    found = compare(lineage(), mine, "sa-med2d", theirs)
    pairs = {(a, b) for overlap in found.overlaps for a in overlap.sources for b in overlap.sources}
    assert {("kits23", "kits19"), ("flare23", "flare22"), ("seg-a-2023", "kits19")} <= pairs
    assert ("crossmoda-2023", "crossmoda-2022") in pairs
    assert not any("lnq2023" in overlap.sources for overlap in found.overlaps)
    assert all("against sa-med2d: " in line for line in found.lines())


def test_a_source_of_both_recipes_is_named_once_and_joins_nothing():
    kits19, kits23, acdc, busi = (load_source(name) for name in ("kits19", "kits23", "acdc", "busi"))
    found = compare(lineage(), [kits19, acdc], "other", [kits19, kits23])
    assert (found.in_both, found.overlaps) == (("kits19",), ())
    assert list(found.lines()) == ["against other: kits19 is a source of both"]
    nothing = compare(lineage(), [acdc], "other", [busi])
    assert "no rule" in next(nothing.lines())


def test_plan_tells_what_two_recipes_share(tmp_path):
    """On a machine with too small a disk the plan is printed, and then refused."""
    words = ["plan", "--recipe", "miccai2023", "--data", str(tmp_path), "--out", str(tmp_path / "out")]
    told = " ".join(CliRunner().invoke(app, [*words, "--against", "sa-med2d"]).output.split())
    assert "against sa-med2d: kits23 contains kits19 (patients are joined by their ids; kits23 wins)" in told
    shown = json.loads(CliRunner().invoke(app, [*words, "--against", "medsam", "--json"]).stdout)
    assert shown["against"]["recipe"] == "medsam"
    assert ["kits23", "kits19"] in [overlap["sources"] for overlap in shown["against"]["overlaps"]]
    assert json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)["against"] is None


# --- for a laptop ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "modality"), SMALL.items())
def test_a_small_recipe_is_one_open_set_of_its_modality(name, modality):
    (source,) = resolve(name).sources
    assert source.modality == modality
    assert open_to_all(source)
    assert sum(file.size_bytes or 0 for file in source.files) < SMALL_BYTES


# --- documents -------------------------------------------------------------------------------------


def test_the_recipe_document_lists_every_recipe_with_the_number_of_its_sources():
    text = (ROOT / "docs" / "recipe.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| `([a-z0-9-]+)` \| (\d+) \|", text, re.M))
    assert listed == {name: str(len(load_recipe(name).sources)) for name in recipe_names()}


def test_the_source_document_is_what_the_sources_say():
    assert PATH.read_text(encoding="utf-8") == document(), "run: python tests/layouts/document.py"
