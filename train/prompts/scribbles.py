"""Scribbles: a curve inside the mask, as a person would draw it, given to SAM as points along it."""

from __future__ import annotations

import math

import torch

from medcurate.train.config.prompts import Scribble
from medcurate.train.prompts.boxes import bounding_boxes
from medcurate.train.prompts.counters import What, below, bits
from medcurate.train.prompts.points import Points, select

_DIRECTIONS = 32
_ONE = 1 << 12  # a pixel, in the whole numbers that positions are kept in: equal on every device
_TRIED = 8  # directions, from about straight on to about back
_LOOKED_AT = 4  # places of a stroke that must lie in the mask

_COMPASS = tuple(
    (round(math.cos(turn) * _ONE), round(math.sin(turn) * _ONE))
    for turn in (2 * math.pi * number / _DIRECTIONS for number in range(_DIRECTIONS))
)


def draw_scribbles(masks: torch.Tensor, rule: Scribble, keys: torch.Tensor) -> Points:
    """``rule.points`` points along a curve inside each bool mask (N, S, S); label 1, or -1 where the mask is empty.

    It starts at a random pixel and goes on in strokes of ``rule.step`` of the mask's long side, each turning as little
    as it can to stay inside; where no direction does, it stays where it is.
    """
    areas = masks.flatten(1).sum(dim=1)
    start, turns = below(bits(keys, What.SCRIBBLE, 0, 2), _bounds(areas)).unbind(dim=1)
    place = select(masks, start[:, None])[:, 0] * _ONE + _ONE // 2
    boxes = bounding_boxes(masks)
    extent = (boxes[:, 2:] - boxes[:, :2] + 1).amax(dim=1)
    stroke = (extent * round(rule.step * _ONE)).clamp(min=_ONE)
    places = [place]
    for number in range(1, rule.points):
        bends = below(bits(keys, What.SCRIBBLE, number, _TRIED), 3) - 1
        place, turns = _advanced(masks, place, turns, stroke, bends)
        places.append(place)
    points = (torch.stack(places, dim=1) // _ONE).float()
    labels = torch.ones(points.shape[:2], dtype=torch.int64, device=masks.device)
    return points, torch.where(areas[:, None] > 0, labels, -1)


def _bounds(areas: torch.Tensor) -> torch.Tensor:
    """int64 (N, 2): how many pixels there are to start at, and directions to start in."""
    return torch.stack([areas.clamp(min=1), torch.full_like(areas, _DIRECTIONS)], dim=1)


def _advanced(
    masks: torch.Tensor, place: torch.Tensor, turns: torch.Tensor, stroke: torch.Tensor, bends: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The end of the next stroke, int64 (N, 2), and its direction (N,), of the first way that stays in the mask."""
    # 0, -4, +4, -8, … thirty-seconds of a turn, each bent by up to one.
    fan = torch.tensor([(way + 1) // 2 * 4 * (-1) ** way for way in range(_TRIED)], device=masks.device)
    ways = (turns[:, None] + fan + bends) % _DIRECTIONS
    compass = torch.tensor(_COMPASS, device=masks.device)
    reach = compass[ways] * stroke[:, None, None] // _ONE
    parts = torch.arange(1, _LOOKED_AT + 1, device=masks.device)[:, None]
    looked = place[:, None, None] + reach[:, :, None] * parts // _LOOKED_AT
    inside = _inside(masks, looked // _ONE).all(dim=2)
    first = inside.long().argmax(dim=1, keepdim=True)
    free = inside.any(dim=1)
    chosen = reach.gather(1, first[..., None].expand(-1, -1, 2))[:, 0]
    ahead = ways.gather(1, first)[:, 0]
    return place + torch.where(free[:, None], chosen, 0), torch.where(free, ahead, turns)


def _inside(masks: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    """Whether ``pixels`` int64 (N, …, 2) as (x, y) lie in their mask."""
    height, width = masks.shape[1:]
    x, y = pixels.unbind(dim=-1)
    on = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    which = torch.arange(len(masks), device=masks.device).view(-1, *[1] * (x.dim() - 1))
    return masks[which, torch.where(on, y, 0), torch.where(on, x, 0)] & on
