"""What both methods do in a turn: give prompts to the decoder, choose a mask, take its loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from medcurate.train.config.objective import Steps
from medcurate.train.config.recipe import TrainRecipe
from medcurate.train.losses import Total, image_weights, mask_loss
from medcurate.train.model.sam import Sam
from medcurate.train.prompts.record import Turn
from medcurate.train.steps.drawing import Drawer
from medcurate.train.types import Batch, Prompts, StepLoss


@dataclass(slots=True)
class Answer:
    """What the model said in a turn: its step's loss, and low-resolution logits (N, 1, S/4, S/4), detached."""

    step: StepLoss
    low_res: torch.Tensor


class Player:
    """One batch, its model and its recipe; ``turn`` plays one turn."""

    def __init__(
        self,
        sam: Sam,
        batch: Batch,
        recipe: TrainRecipe,
        total: Total,
        replayed: list[Turn],
        witness: Callable[[Turn], None] | None,
    ) -> None:
        self.sam = sam
        self.drawer = Drawer(batch, recipe.prompts)
        self._batch = batch
        self._recipe = recipe
        self._total = total
        self._replayed = replayed
        self._witness = witness
        self._weights = image_weights(batch.valid, batch.samples)
        count, slots = batch.valid.shape
        self._images = torch.arange(count, device=batch.valid.device).repeat_interleave(slots)

    def embed(self) -> torch.Tensor:
        """Embeddings of the images, from the cache where the batch brings them; with gradients where parts learn."""
        if self._batch.embeddings is not None:
            return self._batch.embeddings.float()
        with torch.set_grad_enabled(learns(self.sam.image_encoder)):
            return self.sam.encode(self._batch.images)

    def turn(
        self, embeddings: torch.Tensor, turn: Turn, multimask: bool, mask_logits: torch.Tensor | None = None
    ) -> Answer:
        """Give ``turn`` (or the replayed one of its number) and the mask that it feeds back."""
        if turn.number < len(self._replayed):
            turn = self._replayed[turn.number]
        if self._witness:
            self._witness(turn)
        given = turn.prompts
        prompts = Prompts(
            points=given.points,
            point_labels=given.point_labels,
            boxes=given.boxes,
            mask_logits=mask_logits if turn.feedback else None,
        )
        logits, iou = chosen(*self.sam.decode(embeddings, self._images, prompts, multimask))
        loss, parts = mask_loss(logits, iou, self.drawer.truth, self._weights, self._recipe.loss, self._total)
        step = StepLoss(loss=loss, parts=parts, trains_encoder=embeddings.requires_grad)
        return Answer(step, logits.detach().float())


def chosen(low_res: torch.Tensor, iou: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of M masks (N, M, h, w) with predicted IoU (N, M) the best predicted one: (N, 1, h, w) and (N,)."""
    best = iou.argmax(dim=1)
    rows = torch.arange(len(iou), device=iou.device)
    return low_res[rows, best][:, None], iou[rows, best]


def fed_back(low_res: torch.Tensor, steps: Steps) -> torch.Tensor:
    """Low-resolution logits of an answer as ``steps`` has them given to the model in the next turn."""
    return low_res.sigmoid() if steps.feedback == "probabilities" else low_res


def learns(module: nn.Module) -> bool:
    """Whether any parameter of ``module`` learns."""
    return any(parameter.requires_grad for parameter in module.parameters())


@contextmanager
def without_gradient(module: nn.Module) -> Iterator[None]:
    """Graphs that are built in the body have no gradient for the parameters of ``module``."""
    paused = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in paused:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in paused:
            parameter.requires_grad_(True)
