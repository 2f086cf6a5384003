"""A trained model from a checkpoint of this trainer, or from a file of SAM, SAM-Med2D or MedSAM."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from medcurate.errors import ConfigError
from medcurate.tables import check_model
from medcurate.train.config.load import load_recipe
from medcurate.train.config.model import ModelTable
from medcurate.train.config.recipe import TrainRecipe
from medcurate.train.loop import checkpoint
from medcurate.train.loop.checkpoint import GROUPS_FILE, RUN_FILE
from medcurate.train.loop.world import device_of
from medcurate.train.model.build import build_sam
from medcurate.train.model.checkpoint import load_checkpoint, read_state
from medcurate.train.model.sam import Sam

UNTRAINED = "untrained"
_SUFFIXES = (".pth", ".pt", ".safetensors")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A model in evaluation mode with what is known of it.

    ``groups``: patients that it was trained on, as the manifest's "group" names them; None: not known.
    ``started_from``: the checkpoint that its training started from, where its patients are not among them, or "".
    ``intensity``: the rules, by modality, of the dataset that it was trained on; empty where not known.
    """

    sam: Sam
    recipe: TrainRecipe
    name: str
    groups: frozenset[str] | None = None
    started_from: str = ""
    intensity: Mapping[str, Any] = field(default_factory=dict)


def load_trained(
    path: str | Path, *, recipe: str | TrainRecipe | None = None, device: str = "auto"
) -> Trained:
    """The model of ``path``.

    ``path``: a run's folder (its last checkpoint), a checkpoint's folder, or a .pth or .safetensors file in the layout
    of SAM, SAM-Med2D or MedSAM; "untrained": random weights. The latter two need ``recipe``, the train recipe that
    names the model, or the name or path of one; whether a file has adapters is seen from its names. ``device``: auto,
    cpu or cuda.
    Raises ConfigError.
    """
    if isinstance(recipe, str):
        recipe = load_recipe(recipe) if recipe else None
    if str(path) == UNTRAINED:
        return _untrained(_needed(recipe, UNTRAINED), device)
    place = checkpoint_at(path)
    if place.is_dir():
        return _of_run(place, recipe, device)
    return _of_file(place, _needed(recipe, str(place)), device)


def checkpoint_at(path: str | Path) -> Path:
    """The folder of one checkpoint, or the file, that ``path`` stands for now: of a run, that is its last checkpoint.

    Raises ConfigError where it can be none; a file is not looked at.
    """
    path = Path(path)
    if path.name == checkpoint.MODEL_FILE and (path.parent / checkpoint.STATE_FILE).is_file():
        path = path.parent
    if path.is_dir():
        return _checkpoint_folder(path)
    if path.suffix not in _SUFFIXES:
        raise ConfigError(
            f"{path}: no checkpoint here. Give a run's folder, one of its checkpoints, or a file that ends in "
            f"{', '.join(_SUFFIXES)}."
        )
    return path


def recorded_recipe(place: Path) -> TrainRecipe | None:
    """The recipe that a checkpoint's folder was trained by; None where that is not known, as of a file."""
    facts = _json(place, RUN_FILE) if place.is_dir() else None
    return check_model(facts["recipe"], TrainRecipe, str(place / RUN_FILE)) if facts else None


def _of_run(folder: Path, recipe: TrainRecipe | None, device: str) -> Trained:
    facts = _json(folder, RUN_FILE)
    chosen = recipe or recorded_recipe(folder)
    if chosen is None:
        raise ConfigError(
            f"{folder}: {RUN_FILE} is not with it; give --recipe with the recipe that trained it."
        )
    sam = build_sam(_only_used(chosen.model))
    load_checkpoint(sam, folder / checkpoint.MODEL_FILE)
    groups = _json(folder, GROUPS_FILE)
    return Trained(
        sam=_ready(sam, device),
        recipe=chosen,
        name=f"{folder.resolve().parent.parent.name}/{folder.name}",  # two runs may be of equal length
        groups=None if groups is None else frozenset(groups),
        started_from=(facts or {}).get("started_from", chosen.model.checkpoint),
        intensity=(facts or {}).get("intensity", {}),
    )


def _of_file(path: Path, recipe: TrainRecipe, device: str) -> Trained:
    state = read_state(path)
    update: dict[str, Any] = {}
    if recipe.model.adapter != "lora" or not any(".lora_" in name for name in state):
        update["adapter"] = "sam-med2d" if any(".Adapter." in name for name in state) else "none"
    model = _only_used(recipe.model.model_copy(update=update))
    sam = build_sam(model)
    load_checkpoint(sam, path, state=state)
    return Trained(sam=_ready(sam, device), recipe=recipe.model_copy(update={"model": model}), name=path.stem)


def _untrained(recipe: TrainRecipe, device: str) -> Trained:
    torch.manual_seed(recipe.run.seed)
    sam = build_sam(_only_used(recipe.model))
    return Trained(sam=_ready(sam, device), recipe=recipe, name=UNTRAINED, groups=frozenset())


def _checkpoint_folder(path: Path) -> Path:
    """``path`` itself, or the last checkpoint of the run at ``path``."""
    if (path / checkpoint.MODEL_FILE).is_file():
        return path
    found = sorted(path.glob(f"{checkpoint.FOLDER}/step-*/{checkpoint.MODEL_FILE}"))
    if not found:
        raise ConfigError(f"{path}: holds no checkpoint. Give a run's folder or one of its checkpoints.")
    return found[-1].parent


def _json(folder: Path, name: str) -> Any:
    """The record ``name`` of a checkpoint: in its folder, or in that of its run; None where it is in neither."""
    for place in (folder / name, folder.parent.parent / name):
        if place.is_file():
            try:
                return json.loads(place.read_bytes())
            except ValueError as error:
                raise ConfigError(f"{place}: not a record of a run ({error}); restore it.") from error
    return None


def _needed(recipe: TrainRecipe | None, path: str) -> TrainRecipe:
    if recipe is None:
        raise ConfigError(
            f"{path}: says nothing about its model; give --recipe with a train recipe whose [model] and [data] it "
            "fits, such as sam-med2d."
        )
    return recipe


def _only_used(model: ModelTable) -> ModelTable:
    """The table without what only training needs."""
    return model.model_copy(update={"trainable": ("mask-decoder",), "train_point_embeddings": True})


def _ready(sam: Sam, device: str) -> Sam:
    return sam.to(device_of(device)).eval()
