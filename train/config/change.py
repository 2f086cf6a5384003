"""What of a train recipe may change while a run goes on: whatever does not decide what is learnt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from medcurate.train.config.recipe import TrainRecipe

FREE = frozenset({
    "name",
    "title",
    "extends",
    "model.checkpoint",  # all weights are in the run's own checkpoint; the loop compares contents, not paths
    "model.frozen_random",  # says what is meant, and is asked for at the beginning only
    "data.on_bad_sample",
    "data.prefetch",
    "data.cache_bytes",
    "run.micro_batch",
    "run.compile",
    "run.stop_above",
    "run.checkpoint_every",
    "run.keep",
    "run.log_every",
})
"""Keys that decide nothing about the weights but by rounding."""
LENGTH = frozenset({"run.epochs", "run.batches"})
"""Free too, where the learning rate does not depend on the run's end."""


def binding_changes(before: TrainRecipe, now: TrainRecipe) -> dict[str, tuple[Any, Any]]:
    """Keys, such as "optimiser.lr", that differ and decide what is learnt: (before, now); None: not given."""
    free = FREE if "cosine" in {before.schedule.kind, now.schedule.kind} else FREE | LENGTH
    old, new = (dict(_leaves(recipe.model_dump(mode="json"))) for recipe in (before, now))
    keys = sorted((old.keys() | new.keys()) - free)
    return {key: (old.get(key), new.get(key)) for key in keys if old.get(key) != new.get(key)}


def _leaves(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
