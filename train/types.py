"""The records that travel through training: what the stream yields, what a prompt is, what a step reports.

Axes: images (batch, channel, row, column), masks (batch, mask, row, column). Coordinates of prompts are (x, y) in
pixels of the model's square; whole numbers are indices of pixels, to whose centres the prompt encoder adds the half.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Frame:
    """How an image of ``height`` x ``width`` lies in the model's square of ``side`` pixels.

    It was scaled to ``scaled_height`` x ``scaled_width`` and stands at (``top``, ``left``); around it is padding.
    """

    height: int
    width: int
    side: int
    scaled_height: int
    scaled_width: int
    top: int = 0
    left: int = 0


@dataclass(slots=True, kw_only=True)
class Batch:
    """A rank's share of one global batch: B images with K masks each.

    ``images`` uint8 (B, 3, S, S) RGB; ``masks`` bool (B, K, S, S), never empty unless ``valid`` is false there;
    ``valid`` bool (B, K): false where an image has fewer than K masks and the recipe does not repeat them.
    ``annotations`` int64 (B, K): index of the mask in the sample's JSON. ``seeds`` int64 (B,): decides all that is
    drawn for the image in this epoch, whatever rank and worker draws it. ``number``: of the global batch in the epoch.
    ``keys``: sample keys; ``frames``: from original pixels to the model's. ``samples``: global number of samples of
    the batch on all ranks (losses are sums over all of them). ``seed``: of the global batch, equal on all ranks and
    another in every epoch: decides what is drawn once for a batch. ``embeddings`` float16 (B, C, S/16, S/16) where the
    recipe reads cached ones; then ``images`` is (B, 3, 0, 0).
    """

    images: torch.Tensor
    masks: torch.Tensor
    valid: torch.Tensor
    annotations: torch.Tensor
    seeds: torch.Tensor
    keys: tuple[str, ...]
    frames: tuple[Frame, ...]
    number: int
    samples: int
    seed: int
    embeddings: torch.Tensor | None = None


@dataclass(slots=True, kw_only=True)
class Prompts:
    """Prompts of N masks, as SAM's prompt encoder takes them; absent kinds are None.

    ``points`` float32 (N, P, 2) as (x, y); ``point_labels`` int64 (N, P): 1 inside, 0 outside, -1 no point.
    ``boxes`` float32 (N, 4) as (x0, y0, x1, y1). ``mask_logits`` float32 (N, 1, S/4, S/4).
    """

    points: torch.Tensor | None = None
    point_labels: torch.Tensor | None = None
    boxes: torch.Tensor | None = None
    mask_logits: torch.Tensor | None = None


@dataclass(slots=True, kw_only=True)
class StepLoss:
    """What one optimiser step of a batch minimises.

    ``loss``: scalar, this rank's summand of the global batch's loss. ``parts``: its detached terms by name.
    ``trains_encoder``: whether gradients reach the image encoder in this step.
    """

    loss: torch.Tensor
    parts: dict[str, torch.Tensor]
    trains_encoder: bool
