"""Train recipes: packaged ones load, what is wrong is said in one sentence, ``extends`` and the published presets."""

from __future__ import annotations

import json
import re
import tomllib
from contextlib import nullcontext
from pathlib import Path

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from medcurate.errors import ConfigError
from medcurate.tables import check_model
from medcurate.train.config.data import DataTable, Weights
from medcurate.train.config.load import load_recipe, recipe_names, recipe_path
from medcurate.train.config.model import KINDS, Dims, ModelTable
from medcurate.train.config.objective import DecoderOnly, Interactive, LossTable
from medcurate.train.config.prompts import (
    BoxRule,
    FirstPrompt,
    NoJitter,
    Outward,
    PromptTable,
    Scribble,
    Shift,
)
from medcurate.train.config.recipe import TrainRecipe, digest
from medcurate.train.config.run import OptimiserTable, RunTable, ScheduleTable
from medcurate.train.model.build import require_weights

SMALL = """
name = "mine"
title = "Mine"
[model]
trainable = ["mask-decoder"]
[steps]
method = "interactive"
[run]
epochs = 1
"""

TINY = "width = 8, depth = 1, heads = 1, global_blocks = []"


def written(folder: Path, text: str, name: str = "mine") -> str:
    path = folder / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def problem(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        check_model(tomllib.loads(text), TrainRecipe, "here")
    return str(caught.value)


@pytest.mark.parametrize("name", recipe_names())
def test_packaged_recipes_load_by_name(name: str) -> None:
    assert load_recipe(name).name == name


def test_the_packaged_recipes_are_those_that_are_promised() -> None:
    assert {"sam-med2d", "sam-med2d-published", "medsam", "medsam-published", "quickstart"} <= {
        *recipe_names()
    }


def test_the_interactive_recipe_is_the_published_one_in_numbers() -> None:
    recipe = load_recipe("sam-med2d")
    assert recipe.model.numbers == KINDS["vit-b"]
    assert (recipe.model.adapter, recipe.model.image_side, recipe.data.masks_per_image) == (
        "sam-med2d",
        256,
        5,
    )
    assert recipe.steps.method == "interactive"
    assert (recipe.steps.rounds, recipe.prompts.points) == (8, (1, 3, 5, 9))
    loss = recipe.loss
    assert (loss.focal, loss.focal_alpha, loss.focal_gamma, loss.dice, loss.iou) == (20, 0.25, 2, 1, 1)
    assert (recipe.optimiser.name, recipe.optimiser.lr) == ("adam", 1e-4)


QUIRKS = {
    ("model", "channel_order"): "bgr",
    ("model", "train_point_embeddings"): False,
    ("model", "reinitialise_heads"): True,
    ("data", "masks"): "with-replacement",
    ("data", "interpolation"): "nearest",
    ("prompts", "box", "of"): "largest-component",
    ("prompts", "box", "jitter", "half_open"): True,
    ("steps", "feedback"): "probabilities",
    ("loss", "iou_of"): "probabilities",
    ("loss", "iou_moves_mask"): True,
    ("loss", "pool"): "batch",
    ("schedule", "kind"): "constant",
}


@pytest.mark.parametrize("key", QUIRKS, ids=".".join)
def test_each_quirk_is_an_option_that_only_the_published_preset_turns_on(key: tuple[str, ...]) -> None:
    def value(name: str) -> object:
        node: object = load_recipe(name)
        for part in key:
            node = getattr(node, part)
        return node

    assert value("sam-med2d-published") == QUIRKS[key]
    assert value("sam-med2d") != QUIRKS[key]


def test_the_published_preset_changes_nothing_but_quirks() -> None:
    ours, theirs = (load_recipe(name).model_dump() for name in ("sam-med2d", "sam-med2d-published"))
    for key in (
        *QUIRKS,
        ("data", "repeat_masks"),
        ("schedule", "epochs"),
        ("name",),
        ("title",),
        ("extends",),
    ):
        for recipe in (ours, theirs):
            node = recipe
            for part in key[:-1]:
                node = node[part]
            del node[key[-1]]
    assert ours == theirs


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("[run]", "[run]\nepoch = 3", 'here: run.epoch: unknown key (did you mean "epochs"?)'),
        (
            "[model]",
            f"[model]\ndims = {{ {TINY}, wide = 3 }}",
            'here: model.dims.wide: unknown key (did you mean "width"?); known: decoder_d',
        ),
        ('trainable = ["mask-decoder"]', "", "here: model.trainable: required key is missing"),
        (
            '"mask-decoder"',
            '"decoder"',
            'here: model.trainable[0]: "decoder" is not one of: adapters, prompt-',
        ),
        ('"mask-decoder"', '"adapters"', 'here: model: trainable names "adapters", and adapter is "none"'),
        (
            '"interactive"',
            '"decode"',
            'here: steps.method: "decode" is not a method; known: decoder-only, inter',
        ),
        ('method = "interactive"', "", "here: steps.method: required key is missing; known: decoder-only"),
        (
            '"interactive"',
            '"decoder-only"\nrounds = 3',
            "here: steps.rounds: unknown key; known: method, multi",
        ),
        (
            "[run]",
            "[run]\nbatches = 3",
            "here: run: exactly one of epochs and batches, the other 0; given: 1 and 3",
        ),
        (
            '["mask-decoder"]',
            '["adapters"]\nadapter = "lora"',
            'here: steps.rounds = 8 train nothing that model.trainable names: add "mask-decoder"',
        ),
        (
            '["mask-decoder"]',
            '["prompt-encoder"]',
            "here: steps.rounds = 8 train nothing that model.trainable names",
        ),
        ("[run]", "[data]\nembeddings = true\n[run]", "here: data.embeddings = true goes with steps.method"),
        (
            "[run]",
            '[loss]\npool = "batch"\n[run]\nmicro_batch = 2',
            'here: loss.pool = "batch" needs the batch',
        ),
        (
            "[run]",
            "[prompts.first]\nbox = 1\n[run]",
            "here: prompts.first: box + point + scribble must be 1, no",
        ),
        (
            "[model]",
            "[model]\nimage_side = 250",
            "here: model.image_side: must be a multiple of 16; given: 250",
        ),
        ("[run]", '[schedule]\nkind = "milestones"\n[run]', "here: schedule: epochs go with kind"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(old: str, new: str, expected: str) -> None:
    said = problem(SMALL.replace(old, new))
    assert said.startswith(expected)
    assert "\n" not in said


def test_decoder_only_trains_the_decoder_only() -> None:
    text = SMALL.replace("interactive", "decoder-only").replace(
        '"mask-decoder"', '"mask-decoder", "image-encoder"'
    )
    assert "goes with model.trainable" in problem(text)


def test_own_keys_win_over_extended_ones_table_by_table(tmp_path: Path) -> None:
    written(tmp_path, SMALL + 'seed = 5\n[prompts.box]\njitter = { rule = "outward", pixels = 7 }', "base")
    own = (
        'name = "mine"\ntitle = "Mine"\nextends = "base.toml"\n[run]\nseed = 6\n[prompts.box]\nend = "after"'
    )
    recipe = load_recipe(written(tmp_path, own))
    assert (recipe.run.seed, recipe.run.epochs) == (6, 1)
    assert (recipe.prompts.box.end, recipe.prompts.box.jitter.rule) == ("after", "outward")


def test_another_rule_takes_no_keys_of_the_rule_that_it_replaces(tmp_path: Path) -> None:
    written(tmp_path, SMALL + '[prompts.box]\njitter = { rule = "outward", pixels = 7, at = 256 }', "base")
    own = 'name = "mine"\ntitle = "Mine"\nextends = "base.toml"\n[prompts.box]\njitter = { rule = "shift" }'
    jitter = load_recipe(written(tmp_path, own)).prompts.box.jitter
    assert (jitter.rule, jitter.model_dump()["pixels"]) == ("shift", 5)


def test_a_packaged_recipe_can_be_extended_by_name(tmp_path: Path) -> None:
    own = 'name = "mine"\ntitle = "Mine"\nextends = "medsam"\n[data]\nembeddings = false'
    recipe = load_recipe(written(tmp_path, own))
    assert (recipe.data.embeddings, recipe.model.image_side) == (False, 1024)


def test_name_and_title_are_not_inherited(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="name: required key is missing"):
        load_recipe(written(tmp_path, 'extends = "medsam"'))


def test_recipes_that_extend_each_other_are_refused(tmp_path: Path) -> None:
    written(tmp_path, 'extends = "mine.toml"', "other")
    with pytest.raises(ConfigError, match="a recipe cannot extend itself"):
        load_recipe(written(tmp_path, 'extends = "other.toml"'))


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r'"sam-med2" is unknown \(did you mean "sam-med2d"\?\)'):
        recipe_path("sam-med2")


def test_the_digest_knows_what_a_recipe_says_and_not_how_it_is_written(tmp_path: Path) -> None:
    written(tmp_path, SMALL, "base")
    plain = load_recipe(written(tmp_path, SMALL))
    derived = load_recipe(written(tmp_path, 'name = "mine"\ntitle = "Mine"\nextends = "base.toml"'))
    assert digest(plain) == digest(derived)
    other = load_recipe(written(tmp_path, SMALL + "seed = 1"))
    assert digest(plain) != digest(other)


def test_every_kind_has_numbers_and_own_numbers_win() -> None:
    for kind, numbers in KINDS.items():
        assert check_model({"kind": kind, "trainable": ["mask-decoder"]}, ModelTable, "x").numbers == numbers
    own = KINDS["tiny"].model_copy(update={"depth": 6}).model_dump()
    table = check_model({"kind": "vit-b", "dims": own, "trainable": ["mask-decoder"]}, ModelTable, "x")
    assert table.numbers.depth == 6


@pytest.mark.parametrize("name", recipe_names())
def test_packaged_recipes_but_the_quickstart_ask_for_weights(name: str) -> None:
    table = load_recipe(name).model
    with (
        nullcontext() if name == "quickstart" else pytest.raises(ConfigError, match=r"leaves out .*image-enc")
    ):
        require_weights(table)
    for word in ({"checkpoint": "sam.pth"}, {"frozen_random": True}):
        require_weights(table.model_copy(update=word))


def test_drawing_with_replacement_must_say_that_masks_repeat() -> None:
    with pytest.raises(ConfigError, match="say repeat_masks = true"):
        check_model({"masks": "with-replacement"}, DataTable, "data")


def test_a_temper_that_weighs_nothing_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, SMALL + "[data]\nweights = { temper = 0.5 }")
    with pytest.raises(ConfigError) as caught:
        load_recipe(path)
    told = str(caught.value)
    assert told.startswith(f"{path}: data.weights: temper = 0.5 weighs groups")
    assert 'by = ["modality"]' in told
    assert check_model({"temper": 1.0}, Weights, "weights").by == ()
    assert check_model({"by": ["organ"], "temper": 0.5}, Weights, "weights").temper == 0.5


@pytest.mark.parametrize(
    ("given", "kind"), [({"floor": 0.1}, "cosine"), ({"kind": "cosine", "gamma": 0.9}, "milestones")]
)
def test_what_another_schedule_would_use_is_refused(given: dict[str, object], kind: str) -> None:
    """``floor`` alone would leave the learning rate as it is."""
    with pytest.raises(ConfigError, match=f'has no effect .* say kind = "{kind}"'):
        check_model(given, ScheduleTable, "schedule")
    assert check_model({"kind": "cosine", "floor": 0.1}, ScheduleTable, "schedule").floor == 0.1


# --- docs/train.md ---------------------------------------------------------------------------------

DOCUMENT = (Path(__file__).parents[1] / "docs" / "train.md").read_text(encoding="utf-8")
REFERENCE: dict[str, type[BaseModel]] = {
    "The recipe's top level": TrainRecipe,
    "`[model]`": ModelTable,
    "`dims`": Dims,
    "`[data]`": DataTable,
    "`weights`": Weights,
    "`[prompts]`": PromptTable,
    "`first`": FirstPrompt,
    "`box`": BoxRule,
    "`shift`": Shift,
    "`outward`": Outward,
    "`scribble`": Scribble,
    "`interactive`": Interactive,
    "`decoder-only`": DecoderOnly,
    "`[loss]`": LossTable,
    "`[optimiser]`": OptimiserTable,
    "`[schedule]`": ScheduleTable,
    "`[run]`": RunTable,
}


def section(heading: str) -> str:
    (text,) = re.findall(rf"^##+ {re.escape(heading)}\n(.*?)(?=^##|\Z)", DOCUMENT, re.M | re.S)
    return text


@pytest.mark.parametrize("heading", REFERENCE)
def test_the_reference_lists_every_key_with_its_default(heading: str) -> None:
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \| [^|]+ \|$", section(heading), re.M)
    assert len(rows) == len(dict(rows))
    assert dict(rows) == {name: default(info) for name, info in REFERENCE[heading].model_fields.items()}


def default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    if info.default is None:
        return "none"
    return "its defaults" if isinstance(info.default, BaseModel) else f"`{json.dumps(info.default)}`"


def test_the_reference_leaves_no_table_out() -> None:
    used = set(re.findall(r"#/\$defs/(\w+)", json.dumps(TrainRecipe.model_json_schema())))
    assert used - {model.__name__ for model in REFERENCE.values()} == {NoJitter.__name__}


def test_the_example_of_the_reference_fits(tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", section("The train recipe"), re.S)
    recipe = load_recipe(written(tmp_path, example))
    assert recipe.prompts.first.scribble == 0.2
    assert recipe.model.adapter == "sam-med2d"


def test_the_document_tells_every_quirk_with_both_values() -> None:
    told = section("Habits of the published code")
    rows = re.findall(r"^\| [^|]+ \| `([\w.]+)` \| `([^`]+)` \| `([^`]+)` \|$", told, re.M)
    for key, published, here in rows:
        name = "medsam" if key == "loss.cross_entropy" else "sam-med2d"
        for recipe, value in ((f"{name}-published", published), (name, here)):
            node: object = load_recipe(recipe)
            for part in key.split("."):
                node = getattr(node, part)
            assert json.dumps(node) == value, f"{recipe}: {key}"
    assert {tuple(key.split(".")) for key, _, _ in rows} == set(QUIRKS) | {("loss", "cross_entropy")}


def test_medsams_first_version_is_the_published_one_in_numbers() -> None:
    recipe = load_recipe("medsam")
    jitter = recipe.prompts.box.jitter.model_dump()
    assert (jitter["rule"], jitter["pixels"], jitter["at"]) == ("outward", 20, 256)
    assert (recipe.loss.dice, recipe.loss.cross_entropy, recipe.loss.focal, recipe.loss.iou) == (1, 1, 0, 0)
    assert (recipe.loss.dice_squared, recipe.loss.dice_smooth, recipe.loss.at) == (True, 1e-5, "logits")
    assert (recipe.optimiser.lr, recipe.model.trainable) == (1e-5, ("mask-decoder",))
    theirs = load_recipe("medsam-published")
    assert (theirs.loss.cross_entropy, theirs.prompts.box.jitter.model_dump()["half_open"]) == (0, True)
