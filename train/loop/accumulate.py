"""One global batch on one rank: micro-batches that advance together, one optimiser step after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from medcurate.train.loop.reducer import GradientReducer
from medcurate.train.prompts.record import Turn
from medcurate.train.types import Batch, StepLoss

Terms = dict[str, torch.Tensor]
"""The loss of an optimiser step ("loss") and its terms by name: scalars, detached, summands of the global batch's."""


@dataclass(slots=True)
class Piece:
    """The part of a batch that a process takes at a time.

    ``replayed``: turns to give in place of drawn ones, from the first on. ``turns``: those that were given so far.
    """

    batch: Batch
    replayed: Sequence[Turn] = ()
    turns: list[Turn] = field(default_factory=list)


def micro_batches(batch: Batch, size: int) -> list[Piece]:
    """``batch`` cut into pieces of at most ``size`` images (0: one piece); no rank's batch is without rows."""
    count = len(batch.keys)
    step = size or count
    return [Piece(_part(batch, slice(start, start + step))) for start in range(0, count, step)]


def _part(batch: Batch, part: slice) -> Batch:
    return replace(
        batch,
        images=batch.images[part],
        masks=batch.masks[part],
        valid=batch.valid[part],
        annotations=batch.annotations[part],
        seeds=batch.seeds[part],
        keys=batch.keys[part],
        frames=batch.frames[part],
        embeddings=None if batch.embeddings is None else batch.embeddings[part],
    )


def optimise(
    running: Sequence[Iterator[StepLoss]],
    reducer: GradientReducer,
    optimiser: torch.optim.Optimizer,
    clip: Callable[[], None],
) -> Iterator[list[Terms]]:
    """Make all optimiser steps of a batch, whose pieces are ``running``; yields the terms of each step, by piece.

    All pieces make their n-th backward pass before the optimiser's n-th step, and only then go on: later steps of
    the interactive recipe see the updated weights, as they would with one large piece.
    """
    while True:
        terms: list[Terms] = []
        for number, iteration in enumerate(running):
            step = next(iteration, None)
            if step is None:
                return
            last = number == len(running) - 1
            if last:
                with reducer.reduced(with_encoder=step.trains_encoder):
                    step.loss.backward()  # type: ignore[no-untyped-call]
            else:
                step.loss.backward()  # type: ignore[no-untyped-call]
            terms.append({name: value.detach() for name, value in ({"loss": step.loss} | step.parts).items()})
        clip()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        yield terms


def summed(pieces: Iterable[Mapping[str, torch.Tensor]]) -> Terms:
    """Terms of the pieces of a step, added up."""
    total: Terms = {}
    for terms in pieces:
        for name, value in terms.items():
            total[name] = total[name] + value if name in total else value
    return total
