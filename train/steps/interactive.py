"""Simulated interaction: one step that trains everything, then steps of the decoder on the same embedding.

Source: SAM-Med2D (arXiv 2308.16184), train.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

import torch

from medcurate.train.config.objective import Interactive
from medcurate.train.losses import full_size
from medcurate.train.prompts.record import Turn
from medcurate.train.steps.drawing import mask_turn
from medcurate.train.steps.player import Player, fed_back, without_gradient
from medcurate.train.types import StepLoss


def interactive(player: Player, steps: Interactive) -> Iterator[StepLoss]:
    """1 + ``steps.rounds`` steps. A round sees the weights that the steps before it have left."""
    embeddings = player.embed()
    answer = player.turn(embeddings, player.drawer.first(), steps.multimask)
    yield answer.step
    embeddings = embeddings.detach()
    mask_only = player.drawer.mask_only(steps)
    for number in range(1, steps.rounds + 1):
        low_res = answer.low_res
        turn = mask_turn(number) if number in mask_only else _correction(player, number, low_res)
        still = nullcontext() if steps.prompt_encoder_rounds else without_gradient(player.sam.prompt_encoder)
        with still:
            answer = player.turn(embeddings, turn, steps.multimask, fed_back(low_res, steps))
        yield answer.step


def _correction(player: Player, number: int, low_res: torch.Tensor) -> Turn:
    predicted = full_size(low_res, player.drawer.truth.shape[-1]) > 0
    return player.drawer.correction(number, predicted)
