"""What a run writes beside its checkpoints: what it is, and whose images it has seen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from medcurate.commit import write_json
from medcurate.errors import ConfigError
from medcurate.train.config.recipe import TrainRecipe
from medcurate.train.loop.checkpoint import GROUPS_FILE, RUN_FILE, read_run
from medcurate.train.loop.continuing import weights_fact
from medcurate.train.loop.origin import intensity_rules
from medcurate.train.stream.stream import Stream


def write_run(out: Path, recipe: TrainRecipe, stream: Stream, data: str, found: Path | None) -> None:
    """What this run is, for people and for the evaluation: the recipe, the dataset, the patients trained on.

    ``started_from``: the checkpoint that it began with, where nobody knows its patients; ``initial_weights``: its
    digest. All but the recipe is what it was in the checkpoint ``found``, which the run goes on from: what it began
    with may be gone by then. Raises ConfigError.
    """
    now = {"recipe": recipe.model_dump(mode="json")}
    if found:
        write_json(out / RUN_FILE, read_run(found) | now)
        write_json(out / GROUPS_FILE, json.loads((found / GROUPS_FILE).read_bytes()))
        return
    before = _patients_behind(recipe.model.checkpoint)
    facts: dict[str, Any] = {
        "initial_weights": weights_fact(recipe.model.checkpoint),
        "started_from": recipe.model.checkpoint if before is None else "",
        "manifest_sha256": stream.state.manifest,
        "intensity": intensity_rules(data),
    }
    write_json(out / RUN_FILE, facts | now)
    write_json(out / GROUPS_FILE, sorted(stream.groups | (before or frozenset())))


def _patients_behind(weights: str) -> frozenset[str] | None:
    """Patients that an earlier run's checkpoint, of which ``weights`` is the model, was trained on; None: not known."""
    record = Path(weights).parent / GROUPS_FILE
    if not weights or not record.is_file():
        return None
    try:
        return frozenset(json.loads(record.read_bytes()))
    except ValueError as error:
        raise ConfigError(f"{record}: not a record of a run ({error}); restore it.") from error
