"""What is scored side by side: all of it found and checked before the first model is asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from medcurate.progress import emit
from medcurate.train.config.load import load_recipe
from medcurate.train.config.recipe import TrainRecipe
from medcurate.train.evaluation.columns import TRUTH
from medcurate.train.evaluation.leaks import find_leaks, leaked, refuse_leaks
from medcurate.train.evaluation.models import Model, find_model, free_name
from medcurate.train.evaluation.passing import FILLED_BOX
from medcurate.train.evaluation.types import Candidate, Options
from medcurate.train.prediction.loading import UNTRAINED, Trained, checkpoint_at, recorded_recipe


def find_candidates(
    options: Options, patients: pa.ChunkedArray, keep: bool
) -> tuple[list[Candidate], dict[str, Trained]]:
    """The checkpoint and what it is held against; and with ``keep`` their models by name, in main memory.

    ``patients``: of every mask. Raises ConfigError where one cannot be loaded, or was trained on a patient.
    """
    candidates: list[Candidate] = []
    kept: dict[str, Trained] = {}
    for place, recipe in list(_places(options)):
        taken = frozenset(one.name for one in candidates)
        candidate, trained = _candidate(place, recipe, taken, options, patients)
        candidates.append(candidate)
        if trained and keep:
            kept[candidate.name] = trained
    return candidates, kept


def _candidate(
    place: str, recipe: TrainRecipe | None, taken: frozenset[str], options: Options, patients: pa.ChunkedArray
) -> tuple[Candidate, Trained | None]:
    if place == FILLED_BOX:
        return Candidate(free_name(FILLED_BOX, taken), None, pa.nulls(len(patients), pa.bool_()), None), None
    given = Model(path=place, recipe=recipe, device=options.device)
    model, trained = find_model(given, taken | {TRUTH, FILLED_BOX})
    leaks = find_leaks(trained, patients)
    if not options.allow_leaks:
        refuse_leaks(trained, patients, leaks)
    emit("leaks", model=model.name, found=str(leaks))
    return Candidate(model.name, model, leaked(trained.groups, patients), leaks), trained


def _places(options: Options) -> Iterator[tuple[str, TrainRecipe | None]]:
    """Each one's place and recipe; None: its own."""
    first = _place(options.checkpoint)
    stated = load_recipe(options.recipe) if options.recipe else None
    yield first, stated
    for_others = load_recipe(options.against_recipe) if options.against_recipe else None
    of_first = stated or recorded_recipe(Path(first))
    for given in options.against:
        place = _place(given)
        yield place, recorded_recipe(Path(place)) or for_others or of_first


def _place(given: str) -> str:
    return given if given in {FILLED_BOX, UNTRAINED} else str(checkpoint_at(given))
