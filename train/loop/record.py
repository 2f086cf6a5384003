"""What a run writes beside its checkpoints: what it is, and the batch that made it stop."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from itertools import cycle
from pathlib import Path
from typing import Any

import torch

from medcurate.commit import write_json
from medcurate.errors import ConfigError
from medcurate.train.config.recipe import TrainRecipe
from medcurate.train.loop.accumulate import micro_batches
from medcurate.train.loop.checkpoint import GROUPS_FILE, RUN_FILE
from medcurate.train.loop.origin import intensity_rules
from medcurate.train.loop.session import Session
from medcurate.train.prompts.record import Turn, to_records, write_records
from medcurate.train.stream.stream import Stream
from medcurate.train.types import Batch

FAILED_FOLDER = "failed-batch"


def write_run(out: Path, recipe: TrainRecipe, stream: Stream, data: str) -> None:
    """What this run is, for people and for the evaluation: the recipe, the dataset, the patients trained on.

    ``started_from``: the checkpoint that it began with, where nobody knows its patients. Raises ConfigError.
    """
    before = _patients_behind(recipe.model.checkpoint)
    facts: Mapping[str, Any] = {
        "recipe": recipe.model_dump(mode="json"),
        "started_from": recipe.model.checkpoint if before is None else "",
        "manifest_sha256": stream.state.manifest,
        "intensity": intensity_rules(data),
    }
    write_json(out / RUN_FILE, facts)
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


def write_failed(
    folder: Path, session: Session, batch: Batch, steps: list[dict[str, torch.Tensor]], turns: list[Turn]
) -> None:
    """This rank's share of a batch whose loss cannot be used: samples, seeds, losses, and the prompts given."""
    rank = session.world.rank
    losses = [float(terms["loss"]) for terms in steps]
    record = {
        "batch": batch.number,
        "state": session.state.stream,
        "keys": list(batch.keys),
        "annotations": batch.annotations.tolist(),
        "seeds": batch.seeds.tolist(),
        "losses": [loss if math.isfinite(loss) else str(loss) for loss in losses],
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / f"rank-{rank}.json", json.loads(json.dumps(record)))
    pieces = micro_batches(batch, session.recipe.run.micro_batch)
    records = [
        record
        for turn, piece in zip(
            turns, cycle(pieces), strict=False
        )  # each turn is given to one piece after the other
        for record in to_records(turn, piece.keys, piece.annotations)
    ]
    write_records(folder / f"prompts-rank-{rank}.jsonl", records)
