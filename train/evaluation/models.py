"""Models as all processes of an evaluation know them: found once, and the same wherever they are loaded again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
import xxhash

from medcurate.errors import ConfigError
from medcurate.train.config.recipe import TrainRecipe
from medcurate.train.loop.world import device_of
from medcurate.train.prediction.loading import Trained, load_trained


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model that was found. ``path``: a checkpoint's folder or a file, or "untrained"; never a run, which may grow.

    ``recipe``: None where the checkpoint says its own. ``name``: in tables. ``identity``: a hash of weights, recipe,
    name and kind of device.
    """

    path: str
    recipe: TrainRecipe | None
    device: str
    name: str = ""
    identity: str = ""


def find_model(model: Model, taken: frozenset[str]) -> tuple[Model, Trained]:
    """``model`` with a name that is not ``taken`` and its identity; and what was loaded, in main memory.

    Raises ConfigError.
    """
    trained = _loaded(model)
    trained = replace(trained, name=free_name(trained.name, taken))
    return replace(model, name=trained.name, identity=_identity(trained, model.device)), trained


def load_model(model: Model) -> Trained:
    """What was found as ``model``, in main memory. Raises ConfigError where another lies there by then."""
    trained = replace(_loaded(model), name=model.name)
    if _identity(trained, model.device) != model.identity:
        raise ConfigError(
            f"{model.path}: is another model than it was when the evaluation began. Keep a copy of the checkpoint, and "
            "run the same command on that."
        )
    return trained


def _loaded(model: Model) -> Trained:
    with _one_thread():
        return load_trained(model.path, recipe=model.recipe, device="cpu")


@contextmanager
def _one_thread() -> Iterator[None]:
    """Random and interpolated weights may be rounded otherwise by another number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def free_name(name: str, taken: frozenset[str]) -> str:
    """``name``, or the first of "name (2)", "name (3)", … that is not ``taken``."""
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name} ({number})"
    return free


def _identity(trained: Trained, device: str) -> str:
    weights = xxhash.xxh3_128()
    for name, value in sorted(trained.sam.state_dict().items()):
        weights.update(name.encode())
        weights.update(value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    recipe = trained.recipe.model_dump_json()
    facts = [weights.hexdigest(), recipe, trained.name, device_of(device).type]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()
