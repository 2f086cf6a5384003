"""One step of the mask decoder alone, from one prompt. Source: MedSAM (arXiv 2304.12306v1)."""

from __future__ import annotations

from collections.abc import Iterator

from medcurate.train.config.objective import DecoderOnly
from medcurate.train.steps.player import Player, without_gradient
from medcurate.train.types import StepLoss


def decoder_only(player: Player, steps: DecoderOnly) -> Iterator[StepLoss]:
    """One step. The image encoder runs without gradient, or not at all where the batch brings embeddings."""
    embeddings = player.embed().detach()
    with without_gradient(player.sam.prompt_encoder):
        answer = player.turn(embeddings, player.drawer.first(), steps.multimask)
    yield answer.step
