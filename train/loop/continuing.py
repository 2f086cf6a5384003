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
    if changes := _changes(folder, facts, recipe):
        raise ConfigError(
            f"{folder}: was written by another train recipe: {changes}. Give back what was, or start a new run from "
            f"its weights: another --out, and --checkpoint {folder / MODEL_FILE}."
        )
    _require_same_weights(folder, _first_weights(folder, facts), recipe.model.checkpoint)


def require_same_beginning(run: Path, recipe: TrainRecipe) -> None:
    """Raise ConfigError where ``recipe`` would not begin as the run in ``run`` did, which has no checkpoint yet."""
    facts = read_run(run)
    if changes := _changes(run, facts, recipe):
        raise ConfigError(f"{run}: ran with another train recipe: {changes}. Give back what was.")
    began, named = _first_weights(run, facts), recipe.model.checkpoint
    if began and not named:
        raise ConfigError(
            f"{run}: this run began with {_told(began)}, and has no checkpoint: give them by --checkpoint."
        )
    if named and not _holds(named, began):
        raise ConfigError(f"{run}: this run began with {_told(began)}, and {named} holds other weights.")


def _changes(folder: Path, facts: Mapping[str, Any], recipe: TrainRecipe) -> str:
    """What ``recipe`` changes of what is learnt: keys, old and new values; empty: nothing. Raises ConfigError."""
    before = check_model(_fact(folder, facts, "recipe"), TrainRecipe, str(folder / RUN_FILE))
    changes = binding_changes(before, recipe)
    return "; ".join(f"{key} was {_text(old)}, is {_text(new)}" for key, (old, new) in changes.items())


def _first_weights(folder: Path, facts: Mapping[str, Any]) -> Mapping[str, str] | None:
    weights: Mapping[str, str] | None = _fact(folder, facts, "initial_weights")
    return weights


def _fact(folder: Path, facts: Mapping[str, Any], name: str) -> Any:
    if name in facts:
        return facts[name]
    raise ConfigError(
        f'{folder / RUN_FILE}: has no "{name}": another version of medcurate wrote it. Go on with that version, or '
        f"start a new run from the weights of its last checkpoint: another --out, and its {MODEL_FILE} as --checkpoint."
    )


def _told(began: Mapping[str, str] | None) -> str:
    return f"{began['path']} (SHA-256 {began['sha256'][:12]}…)" if began else "random weights"


def _require_same_weights(folder: Path, began: Mapping[str, str] | None, named: str) -> None:
    """``named`` need not be there: the checkpoint holds all weights. What must not be is that it names others."""
    if not named or (began and named == began["path"] and not Path(named).exists()):
        return
    if _holds(named, began):
        return
    raise ConfigError(
        f"{folder}: this run began with {_told(began)}, and {named} holds other weights. A run that goes on needs "
        "none: leave --checkpoint (or model.checkpoint) out, or start a new run with another --out."
    )


def _holds(named: str, began: Mapping[str, str] | None) -> bool:
    """Whether the file ``named`` has the weights that a run began with. Raises ConfigError where there is none."""
    if not Path(named).is_file():
        raise ConfigError(f"{named}: no such checkpoint")
    return began is not None and sha256_file(Path(named)) == began["sha256"]


def _text(value: Any) -> str:
    return "not given" if value is None else f'"{value}"' if isinstance(value, str) else str(value)
