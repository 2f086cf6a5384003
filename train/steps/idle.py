"""The steps of a rank that has no image of a batch: nothing to learn from, but the others wait for it."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from medcurate.train.config.objective import Interactive
from medcurate.train.config.recipe import TrainRecipe
from medcurate.train.losses import Total, mask_loss
from medcurate.train.model.sam import Sam
from medcurate.train.steps.player import learns
from medcurate.train.types import Batch, StepLoss


def idle(sam: Sam, batch: Batch, recipe: TrainRecipe, total: Total) -> Iterator[StepLoss]:
    """As many steps as the others make, each with a loss of 0 that has a gradient of nothing."""
    steps = recipe.steps
    first = isinstance(steps, Interactive) and learns(sam.image_encoder)
    truth = batch.masks.flatten(0, 1)
    nobody = torch.zeros(0, device=truth.device)
    for number in range(1 + (steps.rounds if isinstance(steps, Interactive) else 0)):
        logits = torch.zeros(0, 1, 1, 1, device=truth.device, requires_grad=True)
        loss, parts = mask_loss(logits, nobody, truth, nobody, recipe.loss, total)
        yield StepLoss(loss=loss, parts=parts, trains_encoder=first and number == 0)
