"""Points from masks and from errors, all masks of a batch at once on their device, each pixel equally likely."""

from __future__ import annotations

import torch

from medcurate.train.prompts.counters import What, below, bits
from medcurate.train.prompts.counting import row_counts

Points = tuple[torch.Tensor, torch.Tensor]
"""Coordinates float32 (N, P, 2) as (x, y), indices of pixels, and labels int64 (N, P)."""


def draw_points(masks: torch.Tensor, count: int, keys: torch.Tensor, turn: int = 0) -> Points:
    """``count`` pixels of each bool mask (N, S, S), drawn independently; label 1, or -1 where the mask is empty."""
    points, found = _uniform(masks, count, keys, turn)
    labels = torch.ones(points.shape[:2], dtype=torch.int64, device=masks.device)
    return points.float(), torch.where(found, labels, -1)


def draw_corrections(
    predicted: torch.Tensor, truth: torch.Tensor, count: int, keys: torch.Tensor, turn: int
) -> Points:
    """``count`` pixels of those where bool ``predicted`` and ``truth`` (N, S, S) differ, drawn independently.

    Labels: 1 where ``truth`` was missed, 0 where something else was marked, -1 where nothing differs.
    """
    points, found = _uniform(predicted ^ truth, count, keys, turn)
    rows = torch.arange(len(truth), device=truth.device)[:, None]
    labels = truth[rows, points[..., 1], points[..., 0]].long()
    return points.float(), torch.where(found, labels, -1)


def select(masks: torch.Tensor, ranks: torch.Tensor) -> torch.Tensor:
    """int64 (N, P, 2): the (x, y) of the pixel number ``ranks`` (N, P), from 0 in reading order, of bool (N, H, W).

    (0, 0) where a mask has no such pixel. Rows are counted first, so that only the row that is hit is looked into.
    """
    return _select(masks, row_counts(masks).cumsum(dim=1), ranks)


def _select(masks: torch.Tensor, until: torch.Tensor, ranks: torch.Tensor) -> torch.Tensor:
    """``select`` with the number of pixels up to and with each row, int64 (N, H)."""
    rows = torch.searchsorted(until, ranks.contiguous(), right=True)
    found = rows < masks.shape[1]
    rows = torch.where(found, rows, 0)
    before = torch.where(rows > 0, until.gather(1, (rows - 1).clamp(min=0)), 0)
    lines = masks[torch.arange(len(masks), device=masks.device)[:, None], rows].long().cumsum(dim=2)
    columns = torch.searchsorted(lines, (ranks - before)[..., None], right=True)[..., 0]
    return torch.stack([columns, rows], dim=2) * found[..., None]


def _uniform(
    masks: torch.Tensor, count: int, keys: torch.Tensor, turn: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """``count`` drawn pixels of each mask as int64 (N, count, 2), and whether there are any, bool (N, 1)."""
    until = row_counts(masks).cumsum(dim=1)
    areas = until[:, -1:]
    ranks = below(bits(keys, What.POINTS, turn, count), areas.clamp(min=1))
    return _select(masks, until, ranks), areas > 0
