"""The turns of a batch's interaction, drawn as ``[prompts]`` and ``[steps]`` say."""

from __future__ import annotations

import torch

from medcurate.train.config.objective import Interactive
from medcurate.train.config.prompts import PromptTable
from medcurate.train.prompts.boxes import draw_boxes
from medcurate.train.prompts.counters import What, batch_key, below, bits, mask_keys
from medcurate.train.prompts.points import draw_corrections, draw_points
from medcurate.train.prompts.record import Kind, Turn
from medcurate.train.prompts.scribbles import draw_scribbles
from medcurate.train.types import Batch, Prompts


class Drawer:
    """Draws for all masks of ``batch``; which kind and how many, once for the batch, as all have to have one shape."""

    def __init__(self, batch: Batch, table: PromptTable) -> None:
        self._table = table
        self._batch_key = batch_key(batch.seed)
        self._keys = mask_keys(batch.seeds, batch.masks.shape[1])
        self.truth = batch.masks.flatten(0, 1)

    def first(self) -> Turn:
        """Turn 0: a box, a point or a scribble."""
        kind = self._first_kind()
        if kind == "box":
            return Turn(0, kind, Prompts(boxes=draw_boxes(self.truth, self._table.box, self._keys)))
        if kind == "point":
            points, labels = draw_points(self.truth, 1, self._keys)
        else:
            points, labels = draw_scribbles(self.truth, self._table.scribble, self._keys)
        return Turn(0, kind, Prompts(points=points, point_labels=labels))

    def correction(self, number: int, predicted: torch.Tensor) -> Turn:
        """Turn ``number``: points where bool ``predicted`` (N, S, S) is wrong, and the mask of the turn before."""
        choices = self._table.points
        count = choices[self._once(What.POINT_COUNT, number, len(choices))]
        points, labels = draw_corrections(predicted, self.truth, count, self._keys, number)
        return Turn(number, "correction", Prompts(points=points, point_labels=labels), feedback=True)

    def mask_only(self, steps: Interactive) -> frozenset[int]:
        """The turns whose only prompt is the mask of the turn before."""
        if steps.mask_only == "never" or not steps.rounds:
            return frozenset()
        inner = steps.rounds - 2  # neither the first round nor the last
        if steps.mask_only == "last" or inner < 1:
            return frozenset({steps.rounds})
        return frozenset({steps.rounds, 2 + self._once(What.MASK_ONLY, 0, inner)})

    def _first_kind(self) -> Kind:
        chances = self._table.first
        number = self._once(What.KIND, 0, 1 << 30) / (1 << 30)
        if number < chances.box:
            return "box"
        return "point" if number < chances.box + chances.point else "scribble"

    def _once(self, what: What, turn: int, bound: int) -> int:
        return int(below(bits(self._batch_key, what, turn, 1), bound))


def mask_turn(number: int) -> Turn:
    """A turn without new prompts."""
    return Turn(number, "mask", Prompts(), feedback=True)
