"""SAM-Med2D's training loop written the straightforward way: prompts of one mask at a time, on the CPU.

One batch is nine optimiser steps (arXiv 2308.16184): a box or a point with the adapters learning, then eight
corrections of the decoder on the detached embedding, two of them with no prompt but the mask.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import torch
from baseline_sam import PlainSam
from skimage.measure import label, regionprops
from torch.nn import functional

from medcurate.train.prompts.record import Turn
from medcurate.train.types import Prompts

ROUNDS, COUNTS = 8, (1, 3, 5, 9)


def losses(sam: PlainSam, images, masks, rng: random.Random, turns: list[Turn]) -> Iterator[torch.Tensor]:
    """One loss an optimiser step of ``images`` (B, 3, S, S) with ``masks`` (B, K, S, S); ``turns`` collects prompts."""
    count, side = masks.shape[1], masks.shape[-1]
    truth = masks.flatten(0, 1).float()
    features = sam.encode(images)
    features = torch.cat([one.repeat(count, 1, 1, 1) for one in features])
    turns.append(first_prompt(truth, rng))
    low_res, loss = answer(sam, features, turns[-1], None, truth)
    yield loss
    features = features.detach()
    mask_only = {rng.randrange(2, ROUNDS), ROUNDS}
    for number in range(1, ROUNDS + 1):
        turn = Turn(number, "mask", Prompts(), feedback=True)
        turns.append(turn if number in mask_only else corrections(number, low_res, truth, side, rng))
        low_res, loss = answer(sam, features, turns[-1], low_res.sigmoid(), truth)
        yield loss


def answer(sam: PlainSam, features, turn: Turn, fed_back, truth):
    """Low-resolution logits of the best predicted mask, detached, and the loss."""
    given = turn.prompts
    with torch.set_grad_enabled(not turn.feedback):
        sparse, dense = sam.prompt_encoder(
            len(truth), given.points, given.point_labels, given.boxes, fed_back
        )
    masks, iou = sam.mask_decoder(features, sam.prompt_encoder.positions(), sparse, dense)
    best = iou.max(dim=1).indices
    low_res = torch.stack([masks[i, index][None] for i, index in enumerate(best)])
    iou = torch.stack([iou[i, index] for i, index in enumerate(best)])
    logits = functional.interpolate(low_res, truth.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
    return low_res.detach(), batch_loss(logits, truth, iou)


def batch_loss(logits, truth, iou):
    """20 focal + Dice + squared error of the IoU, over the whole batch."""
    p = logits.sigmoid()
    right = p * truth + (1 - p) * (1 - truth)
    balance = 0.25 * truth + 0.75 * (1 - truth)
    entropy = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    focal = (balance * (1 - right) ** 2 * entropy).mean()
    both = (p * truth).sum()
    dice = 1 - (2 * both + 1) / (p.sum() + truth.sum() + 1)
    real = (both + 1e-7) / (p.sum() + truth.sum() - both + 1e-7)
    return 20 * focal + dice + (real - iou).square().mean()


def first_prompt(truth, rng: random.Random) -> Turn:
    """A box of the largest component, shifted, or one point; one mask after the other."""
    masks = truth.cpu().numpy()
    if rng.random() < 0.5:
        boxes = torch.tensor(np.stack([shifted_box(mask, rng) for mask in masks]), device=truth.device)
        return Turn(0, "box", Prompts(boxes=boxes))
    points = [pixels(mask, 1, rng) for mask in masks]
    points = torch.tensor(np.stack(points), dtype=torch.float32, device=truth.device)
    labels = torch.ones(points.shape[:2], dtype=torch.int64, device=truth.device)
    return Turn(0, "point", Prompts(points=points, point_labels=labels))


def shifted_box(mask: np.ndarray, rng: random.Random) -> np.ndarray:
    region = max(regionprops(label(mask)), key=lambda region: region.area)
    y0, x0, y1, x1 = region.bbox
    limit = min(5, min(x1 - x0, y1 - y0) // 2)
    dx, dy = rng.randint(-limit, limit), rng.randint(-limit, limit)
    return np.array([x0 + dx, y0 + dy, x1 + dx, y1 + dy], np.float32)


def corrections(number: int, low_res, truth, side: int, rng: random.Random) -> Turn:
    """Points where prediction and truth differ, one mask after the other."""
    predicted = functional.interpolate(low_res, (side, side), mode="bilinear", align_corners=False)[:, 0] > 0
    predicted, masks = predicted.cpu().numpy(), truth.cpu().numpy().astype(bool)
    count = rng.choice(COUNTS)
    points, labels = [], []
    for one, mask in zip(predicted, masks, strict=True):
        wrong = one != mask
        xy = pixels(wrong, count, rng)
        points.append(xy)
        labels.append(mask[xy[:, 1], xy[:, 0]].astype(np.int64) if wrong.any() else np.full(count, -1))
    prompts = Prompts(
        points=torch.tensor(np.stack(points), dtype=torch.float32, device=truth.device),
        point_labels=torch.tensor(np.stack(labels), device=truth.device),
    )
    return Turn(number, "correction", prompts, feedback=True)


def pixels(mask: np.ndarray, count: int, rng: random.Random) -> np.ndarray:
    """(count, 2) as (x, y); (0, 0) where there is none."""
    places = np.argwhere(mask)
    if not len(places):
        return np.zeros((count, 2), np.int64)
    return np.stack([places[rng.randrange(len(places))][::-1] for _ in range(count)])
