"""Predictions at original size held against their truth: one row a mask and prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from medcurate.train.evaluation.metrics import ratios, surface_dice
from medcurate.train.geometry import restore_logits
from medcurate.train.types import Frame

Bools = npt.NDArray[np.bool_]
Spacing = tuple[float, float] | None

_PIXELS_AT_ONCE = 1 << 24  # of logits at original size


@dataclass(frozen=True, slots=True)
class Score:
    """Of one mask; ``nsd`` where the spacing is known, ``nsd_px`` elsewhere."""

    predicted_px: int
    dice: float
    iou: float
    nsd: float | None
    nsd_px: float | None


def original_size(low_res: torch.Tensor, frame: Frame) -> Iterator[Bools]:
    """Masks of one image from logits (n, 1, s, s): bool (H, W) each, a few in memory at a time."""
    pixels = max(frame.side**2, frame.height * frame.width)
    step = max(_PIXELS_AT_ONCE // pixels, 1)
    for start in range(0, len(low_res), step):
        yield from (restore_logits(low_res[start : start + step], frame)[:, 0] > 0).cpu().numpy()


def score(truth: Bools, predicted: Bools, spacing_mm: Spacing, tolerance_mm: float) -> Score:
    """Scores of bool (H, W) masks. Without ``spacing_mm`` the tolerance counts in pixels."""
    area = int(np.count_nonzero(predicted))
    both = int(np.count_nonzero(truth & predicted))
    dice, iou = ratios(both, int(np.count_nonzero(truth)) + area)
    surface = surface_dice(truth, predicted, spacing_mm or (1.0, 1.0), tolerance_mm)
    return Score(area, dice, iou, *((surface, None) if spacing_mm else (None, surface)))


def filled_boxes(truth: Bools) -> Bools:
    """Masks (n, H, W) to their filled bounding boxes: what a model must beat that is given the box."""
    rows, columns = (_spanned(np.asarray(truth.any(axis=axis))) for axis in (2, 1))
    return np.asarray(rows[:, :, None] & columns[:, None, :])


def _spanned(hit: Bools) -> Bools:
    """From the first to the last that is set of each row of (n, L)."""
    forward = np.maximum.accumulate(hit, axis=1)
    backward = np.maximum.accumulate(hit[:, ::-1], axis=1)[:, ::-1]
    return np.asarray(forward & backward)


def spacing_of(row_mm: float | None, col_mm: float | None) -> Spacing:
    """(row, column), or None where one is unknown."""
    return None if row_mm is None or col_mm is None else (row_mm, col_mm)


def visible(masks: Bools, squares: Bools, frame: Frame) -> Bools:
    """``squares``, the masks in the model's square, where a mask that scaling emptied has the pixel of its middle.

    So that every mask can be prompted for, and none is left out of a mean.
    """
    empty: Sequence[int] = np.flatnonzero(~squares.any(axis=(1, 2))).tolist()
    for number in empty:
        rows, columns = np.nonzero(masks[number])
        middle = len(rows) // 2
        row = frame.top + int((rows[middle] + 0.5) * frame.scaled_height / frame.height)
        column = frame.left + int((columns[middle] + 0.5) * frame.scaled_width / frame.width)
        squares[number, row, column] = True
    return squares
