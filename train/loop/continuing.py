"""Whether a run may go on from a checkpoint, with the recipe and the first weights that are given now."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medcurate.commit import sha256_file
from medcurate.errors import ConfigError
from medcurate.tables import check_model
from medcurate.train.config.change import binding_changes
from medcurate.train.config.recipe import TrainRecipe
from medcurate.train.loop.checkpoint import MODEL_FILE, RUN_FILE, read_run


def weights_fact(path: str) -> dict[str, str] | None:
    """What ``run.json`` keeps of the file of the first weights: "path" and "sha256"; None: random ones."""
    return {"path": path, "sha256": sha256_file(Path(path))} if path else None


def require_continuable(folder: Path, recipe: TrainRecipe) -> None:
    """Raise ConfigError where ``recipe`` would not go on with what the checkpoint in ``folder`` has begun."""
    facts = read_run(folder)
    changes = binding_changes(check_model(facts["recipe"], TrainRecipe, str(folder / RUN_FILE)), recipe)
    if changes:
        told = "; ".join(f"{key} was {_text(old)}, is {_text(new)}" for key, (old, new) in changes.items())
        raise ConfigError(
            f"{folder}: was written by another train recipe: {told}. Give back what was, or start a new run from its "
            f"weights: another --out, and --checkpoint {folder / MODEL_FILE}."
        )
    _require_same_weights(folder, facts["initial_weights"], recipe.model.checkpoint)


def _require_same_weights(folder: Path, began: Mapping[str, str] | None, named: str) -> None:
    """``named`` need not be there: the checkpoint holds all weights. What must not be is that it names others."""
    if not named or (began and named == began["path"] and not Path(named).exists()):
        return
    if not Path(named).is_file():
        raise ConfigError(f"{named}: no such checkpoint")
    if began and sha256_file(Path(named)) == began["sha256"]:
        return
    first = f"{began['path']} (SHA-256 {began['sha256'][:12]}…)" if began else "random weights"
    raise ConfigError(
        f"{folder}: this run began with {first}, and {named} holds other weights. A run that goes on needs none: leave "
        "--checkpoint (or model.checkpoint) out, or start a new run with another --out."
    )


def _text(value: Any) -> str:
    return "not given" if value is None else f'"{value}"' if isinstance(value, str) else str(value)
