"""Prompts for masks as in SAM-Med2D's test: one box; or points, one by one, each where the mask so far is wrong.

Source: SAM-Med2D, test.py: points add up, and the low-resolution mask of the turn before is fed back. Of several masks
that the decoder offers, the one with the highest predicted IoU is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import xxhash

from medcurate.errors import ConfigError
from medcurate.train.config.prompts import NoJitter
from medcurate.train.evaluation.asked import BOX, Asked, points_name
from medcurate.train.losses import full_size
from medcurate.train.prediction.loading import Trained
from medcurate.train.prompts.boxes import draw_boxes
from medcurate.train.prompts.counters import fold
from medcurate.train.prompts.points import draw_corrections, draw_points
from medcurate.train.prompts.record import PromptRecord, Turn, to_records, to_turn
from medcurate.train.steps.player import chosen, fed_back
from medcurate.train.types import Prompts

Name = tuple[str, int]
"""Key of the sample and index of the annotation."""
Replay = Mapping[tuple[Name, str, int], PromptRecord]
"""Recorded prompts by mask, "box" or "points", and turn."""


@dataclass(frozen=True, slots=True)
class Asking:
    """N masks in the model's square and what they are of.

    ``truth`` bool (N, S, S), none empty; ``images`` int64 (N,): rows of ``embeddings``; ``keys`` int64 (N,): decide
    what is drawn for a mask, whatever it is batched with.
    """

    embeddings: torch.Tensor
    images: torch.Tensor
    truth: torch.Tensor
    keys: torch.Tensor
    names: Sequence[Name]


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to ``prompt``: logits (N, 1, S/4, S/4) and predicted IoU (N,)."""

    prompt: str
    low_res: torch.Tensor
    iou: torch.Tensor


def draw_keys(seed: int, names: Sequence[Name]) -> torch.Tensor:
    """int64 (N,): one key a mask, of its name and ``seed`` alone."""
    images = [xxhash.xxh3_64_intdigest(f"{seed} {key}".encode()) >> 1 for key, _ in names]
    return fold(torch.tensor(images, dtype=torch.int64), torch.tensor([at for _, at in names]))


def ask(
    trained: Trained,
    asking: Asking,
    asked: Asked,
    *,
    replay: Replay | None = None,
    witness: Callable[[list[PromptRecord]], None] = lambda records: None,
) -> Iterator[Answer]:
    """Give all prompts; one answer for each of ``asked.names``, in that order.

    ``replay``: give these prompts in place of drawn ones. ``witness`` is told what is given.
    Raises ConfigError where ``replay`` lacks a prompt.
    """
    session = _Session(trained, asking, replay, witness)
    if asked.box:
        yield Answer(BOX, *session.box())
    if asked.points:
        wanted = set(asked.points)
        for count, low_res, iou in session.points(max(wanted)):
            if count in wanted:
                yield Answer(points_name(count), low_res, iou)


def to_replay(records: Sequence[PromptRecord]) -> Replay:
    """Records as ``witness`` was told them, to be found by mask and turn."""
    return {((one.key, one.annotation), _session_of(one.kind), one.turn): one for one in records}


class _Session:
    def __init__(
        self,
        trained: Trained,
        asking: Asking,
        replay: Replay | None,
        witness: Callable[[list[PromptRecord]], None],
    ) -> None:
        self._trained, self._asking, self._replay, self._witness = trained, asking, replay, witness

    def box(self) -> tuple[torch.Tensor, torch.Tensor]:
        asking = self._asking
        rule = self._trained.recipe.prompts.box.model_copy(update={"jitter": NoJitter()})
        turn = Turn(0, "box", Prompts(boxes=draw_boxes(asking.truth, rule, asking.keys)))
        return self._turn(turn)

    def points(self, most: int) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
        """(number of points, logits, IoU) after every point."""
        asking = self._asking
        points, labels = draw_points(asking.truth, 1, asking.keys)
        turn = Turn(0, "point", Prompts(points=points, point_labels=labels))
        low_res, iou = self._turn(turn)
        yield 1, low_res, iou
        for number in range(1, most):
            wrong_at = full_size(low_res, asking.truth.shape[-1]) > 0
            more, kinds = draw_corrections(wrong_at, asking.truth, 1, asking.keys, number)
            points, labels = torch.cat([points, more], dim=1), torch.cat([labels, kinds], dim=1)
            turn = Turn(number, "correction", Prompts(points=points, point_labels=labels), feedback=True)
            low_res, iou = self._turn(turn, low_res)
            yield number + 1, low_res, iou

    def _turn(self, turn: Turn, before: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        if self._replay is not None:
            turn = self._replayed(turn, self._replay)
        self._tell(turn)
        steps, asking = self._trained.recipe.steps, self._asking
        mask = None if before is None else fed_back(before, steps)
        prompts = replace(turn.prompts, mask_logits=mask)
        answer = self._trained.sam.decode(asking.embeddings, asking.images, prompts, steps.multimask)
        low_res, iou = chosen(*answer)
        return low_res.float(), iou

    def _replayed(self, turn: Turn, replay: Replay) -> Turn:
        kind = _session_of(turn.kind)
        places = [(name, kind, turn.number) for name in self._asking.names]
        missing = [place for place in places if place not in replay]
        if missing:
            (key, annotation), _, number = missing[0]
            raise ConfigError(
                f"--replay: {len(missing)} prompts are not in the file, such as {kind} number {number} of mask "
                f"{annotation} of {key}. Replay it on the same dataset, split and --prompts that it was saved from."
            )
        return to_turn([replay[place] for place in places], self._asking.truth.device)

    def _tell(self, turn: Turn) -> None:
        names = self._asking.names
        annotations = torch.tensor([[annotation] for _, annotation in names])
        self._witness(to_records(turn, [key for key, _ in names], annotations))


def _session_of(kind: str) -> str:
    return "box" if kind == "box" else "points"
