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
from medcurate.train.prediction.loading import UNTRAINED, checkpoint_at, recorded_recipe


def find_candidates(options: Options, patients: pa.ChunkedArray) -> list[Candidate]:
    """The checkpoint and what it is held against, each loaded once and let go. ``patients``: of every mask.

    Raises ConfigError where one cannot be loaded, or was trained on a patient.
    """
    candidates: list[Candidate] = []
    for place, recipe in list(_places(options)):
        taken = frozenset(one.name for one in candidates)
        candidates.append(_candidate(place, recipe, taken, options, patients))
    return candidates


def _candidate(
    place: str, recipe: TrainRecipe | None, taken: frozenset[str], options: Options, patients: pa.ChunkedArray
) -> Candidate:
    if place == FILLED_BOX:
        return Candidate(free_name(FILLED_BOX, taken), None, pa.nulls(len(patients), pa.bool_()), None)
    given = Model(path=place, recipe=recipe, device=options.device)
    model, trained = find_model(given, taken | {TRUTH, FILLED_BOX})
    leaks = find_leaks(trained, patients)
    if not options.allow_leaks:
        refuse_leaks(trained, patients, leaks)
    emit("leaks", model=model.name, found=str(leaks))
    return Candidate(model.name, model, leaked(trained.groups, patients), leaks)


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
