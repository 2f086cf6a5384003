"""One pass of a model over selected samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

from medcurate.train.evaluation.asked import BOX, Asked
from medcurate.train.evaluation.collected import Collected
from medcurate.train.evaluation.interaction import Asking, Name, Replay, ask, draw_keys
from medcurate.train.evaluation.samples import Scored
from medcurate.train.evaluation.scoring import (
    Bools,
    Spacing,
    filled_boxes,
    original_size,
    score,
    spacing_of,
    visible,
)
from medcurate.train.geometry import PADDING, frame_of, place_image, place_masks
from medcurate.train.prediction.loading import Trained
from medcurate.train.prompts.record import PromptRecord
from medcurate.train.types import Frame

FILLED_BOX = "filled-box"
_IMAGES_AT_ONCE = 8  # through the encoder of a GPU; a processor's one thread is no faster with more than one


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """``masks_at_once``: through the decoder. ``seed``: of points. ``tolerance_mm``: of surfaces."""

    asked: Asked
    masks_at_once: int
    seed: int
    tolerance_mm: float


class Spacings:
    """Spacing of the image of every row."""

    def __init__(self, facts: pa.Table) -> None:
        self._rows, self._columns = (facts[f"{name}_spacing_mm"].to_pylist() for name in ("row", "col"))

    def __getitem__(self, row: int) -> Spacing:
        return spacing_of(self._rows[row], self._columns[row])


def fill_boxes(samples: Iterable[Scored], facts: pa.Table, rules: Rules) -> Collected:
    """Scores of the filled box of every mask."""
    collected, spacings = Collected(FILLED_BOX, [BOX], len(facts)), Spacings(facts)
    for one in samples:
        boxes = filled_boxes(one.masks)
        collected.put_masks(BOX, boxes)
        for place, (truth, box) in enumerate(zip(one.masks, boxes, strict=True)):
            row = one.first_row + place
            collected.put(BOX, row, score(truth, box, spacings[row], rules.tolerance_mm), None)
    return collected


@torch.inference_mode()
def pass_over(
    trained: Trained,
    samples: Iterable[Scored],
    facts: pa.Table,
    rules: Rules,
    *,
    replay: Replay | None = None,
    witness: Callable[[list[PromptRecord]], None],
) -> Collected:
    """Ask ``trained`` for every mask of ``samples`` and score its answers at original size."""
    collected = Collected(trained.name, rules.asked.names, len(facts))
    spacings = Spacings(facts)
    for group in _groups(samples, rules.masks_at_once):
        batch = _Squared(trained, group)
        embeddings = batch.embeddings()
        for start in range(0, len(batch.names), rules.masks_at_once):
            part = slice(start, start + rules.masks_at_once)
            asking = batch.asking(embeddings, part, rules.seed)
            for answer in ask(trained, asking, rules.asked, replay=replay, witness=witness):
                for run in batch.runs(part):
                    here = slice(run.masks.start - start, run.masks.stop - start)
                    predicted = np.stack(list(original_size(answer.low_res[here], run.frame)))
                    collected.put_masks(answer.prompt, predicted)
                    iou = answer.iou[here].tolist()
                    _put(collected, answer.prompt, run, predicted, iou, spacings, rules.tolerance_mm)
    return collected


@dataclass(frozen=True, slots=True)
class _Run:
    """Masks of one image: ``masks`` of the batch, ``first_row`` of the selection."""

    sample: Scored
    frame: Frame
    masks: range
    first_row: int


def _put(
    collected: Collected,
    prompt: str,
    run: _Run,
    predicted: Bools,
    predicted_iou: list[float],
    spacings: Spacings,
    tolerance_mm: float,
) -> None:
    for place, (mask, iou) in enumerate(zip(predicted, predicted_iou, strict=True)):
        row = run.first_row + place
        truth = run.sample.masks[row - run.sample.first_row]
        collected.put(prompt, row, score(truth, mask, spacings[row], tolerance_mm), iou)


def _groups(samples: Iterable[Scored], masks_at_once: int) -> Iterator[list[Scored]]:
    """Neighbouring samples that together have about ``masks_at_once`` masks, at least one sample."""
    group: list[Scored] = []
    for one in samples:
        if group and sum(len(held.masks) for held in group) + len(one.masks) > masks_at_once:
            yield group
            group = []
        group.append(one)
    if group:
        yield group


class _Squared:
    """Samples in a model's square: B images and N masks, those of an image behind one another."""

    def __init__(self, trained: Trained, group: list[Scored]) -> None:
        self._trained, self._group = trained, group
        side, data = trained.sam.side, trained.recipe.data
        self._images = np.empty((len(group), 3, side, side), np.uint8)
        padding = PADDING[trained.recipe.model.channel_order]
        self.frames: list[Frame] = []
        squares = []
        for number, one in enumerate(group):
            frame = frame_of(one.image.shape[0], one.image.shape[1], side, data.fit)
            place_image(one.image, frame, data.interpolation, self._images[number], padding)
            squares.append(visible(one.masks, place_masks(one.masks, frame), frame))
            self.frames.append(frame)
        self._truth = torch.from_numpy(np.concatenate(squares)).to(self._device)
        counts = [len(one.masks) for one in group]
        self._starts = np.cumsum([0, *counts]).tolist()
        self._image_of = torch.arange(len(group)).repeat_interleave(torch.tensor(counts))
        self.names: list[Name] = [(one.key, at) for one in group for at in one.annotations]

    @property
    def _device(self) -> torch.device:
        return self._trained.sam.pixel_mean.device

    def embeddings(self) -> torch.Tensor:
        """float32 (B, C, S/16, S/16)."""
        images = torch.from_numpy(self._images).to(self._device)
        step = _IMAGES_AT_ONCE if images.is_cuda else 1
        return torch.cat([self._trained.sam.encode(part) for part in torch.split(images, step)])

    def asking(self, embeddings: torch.Tensor, part: slice, seed: int) -> Asking:
        """Masks ``part`` of the N, ready to be asked for."""
        names = self.names[part]
        return Asking(
            embeddings,
            self._image_of[part].to(self._device),
            self._truth[part],
            draw_keys(seed, names).to(self._device),
            names,
        )

    def runs(self, part: slice) -> Iterator[_Run]:
        """Masks ``part`` of the N, image by image."""
        for number, one in enumerate(self._group):
            start, stop = max(self._starts[number], part.start), min(self._starts[number + 1], part.stop)
            if start < stop:
                first_row = one.first_row + start - self._starts[number]
                yield _Run(one, self.frames[number], range(start, stop), first_row)
