"""``iterations``: the optimiser steps of one batch, by the recipe's method."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from medcurate.train.config.objective import Interactive
from medcurate.train.config.recipe import TrainRecipe
from medcurate.train.losses import Total, alone
from medcurate.train.model.sam import Sam
from medcurate.train.prompts.record import Turn
from medcurate.train.steps.decoder_only import decoder_only
from medcurate.train.steps.interactive import interactive
from medcurate.train.steps.player import Player
from medcurate.train.types import Batch, StepLoss

Witness = Callable[[Turn], None]


def iterations(
    sam: Sam,
    batch: Batch,
    recipe: TrainRecipe,
    *,
    total: Total = alone,
    replayed: Sequence[Turn] = (),
    witness: Witness | None = None,
) -> Iterator[StepLoss]:
    """One ``StepLoss`` for each optimiser step of ``batch``, a rank's share or a piece of it.

    The caller makes the backward pass and the optimiser's step before it asks for the next. ``total`` sums over ranks;
    only ``loss.pool = "batch"`` needs it. ``replayed``: turns to give in place of drawn ones, from the first on.
    ``witness`` is told every turn before it is given.
    """
    player = Player(sam, batch, recipe, total, list(replayed), witness)
    steps = recipe.steps
    return interactive(player, steps) if isinstance(steps, Interactive) else decoder_only(player, steps)
