"""Boxes from masks, all masks of a batch at once on their device."""

from __future__ import annotations

import torch
from torch.nn import functional

from medcurate.train.config.prompts import BoxRule, NoJitter, Outward, Shift
from medcurate.train.prompts.counters import What, below, bits
from medcurate.train.prompts.counting import columns_hit, row_counts


def draw_boxes(masks: torch.Tensor, rule: BoxRule, keys: torch.Tensor) -> torch.Tensor:
    """Boxes float32 (N, 4) as (x0, y0, x1, y1) of bool masks (N, S, S), moved as ``rule`` says.

    ``keys`` int64 (N,). Coordinates are indices of pixels; SAM's prompt encoder adds the half pixel to their centres.
    """
    boxes = bounding_boxes(largest_components(masks) if rule.of == "largest-component" else masks)
    moved = _jittered(boxes, rule, masks.shape[-1], keys)
    if rule.end == "after":
        moved[:, 2:] += 1
    if isinstance(rule.jitter, Outward):
        moved = moved.clamp(0, masks.shape[-1])
    return moved.float()


def bounding_boxes(masks: torch.Tensor) -> torch.Tensor:
    """int64 (N, 4): first column, first row, last column and last row of bool masks (N, H, W); 0 for empty ones."""
    sides = []
    rows = row_counts(masks) > 0
    for hit in (columns_hit(masks), rows):
        filled = hit.to(torch.uint8)
        first = filled.argmax(dim=1)  # argmax gives the first of equals
        last = filled.shape[1] - 1 - filled.flip(1).argmax(dim=1)
        sides.append((first, last * rows.any(dim=1)))
    (x0, x1), (y0, y1) = sides
    return torch.stack([x0, y0, x1, y1], dim=1)


def largest_components(masks: torch.Tensor) -> torch.Tensor:
    """bool (N, H, W) to its largest 8-connected component each; of equal ones the first in reading order.

    Labels spread by neighbourhoods and then by jumps to the label's own label, so that the rounds grow about with the
    logarithm of a component's length. Waits for the device once a round.
    """
    count, height, width = masks.shape
    nowhere = height * width
    places = torch.arange(nowhere, device=masks.device).expand(count, -1)
    labels = torch.where(masks.flatten(1), places, nowhere)
    while True:
        before = labels
        # float32 holds whole numbers up to 2**24 exactly: squares up to 4096 pixels wide.
        near = -functional.max_pool2d(-labels.view(masks.shape).float(), 3, stride=1, padding=1)
        labels = torch.where(masks, near.long(), nowhere).flatten(1)
        jump = functional.pad(labels, (0, 1), value=nowhere)
        labels = jump.gather(1, labels)
        if torch.equal(labels, before):
            break
    sizes = torch.zeros((count, nowhere + 1), dtype=torch.int64, device=masks.device)
    sizes.scatter_add_(1, labels, torch.ones_like(labels))
    largest = sizes[:, :nowhere].argmax(dim=1)
    return labels.view(masks.shape).eq(largest[:, None, None])


def _jittered(boxes: torch.Tensor, rule: BoxRule, side: int, keys: torch.Tensor) -> torch.Tensor:
    match rule.jitter:
        case NoJitter():
            return boxes
        case Shift() as shift:
            return boxes + _shifts(boxes, shift, keys)
        case Outward() as outward:
            return _moved_outward(boxes, outward, side, keys)


def _shifts(boxes: torch.Tensor, rule: Shift, keys: torch.Tensor) -> torch.Tensor:
    """int64 (N, 4): how far a box moves in x and in y, twice."""
    short = (boxes[:, 2:] - boxes[:, :2] + 1).amin(dim=1)
    # float64 is exact here, so that every device floors to the same number.
    limit = (short.double() * rule.share).floor().long().clamp(max=rule.pixels)[:, None]
    bound = 2 * limit + (0 if rule.half_open else 1)
    drawn = below(bits(keys, What.BOX, 0, 2), bound.clamp(min=1)) - limit
    return drawn.repeat(1, 2)


def _moved_outward(boxes: torch.Tensor, rule: Outward, side: int, keys: torch.Tensor) -> torch.Tensor:
    bound = rule.pixels + (0 if rule.half_open else 1)
    drawn = below(bits(keys, What.BOX, 0, 4), max(bound, 1))
    steps = drawn * side // rule.at if rule.at else drawn
    outward = torch.tensor([-1, -1, 1, 1], device=boxes.device)
    return boxes + steps * outward
