"""One global batch on one rank: micro-batches that advance together, one optimiser step after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch

from medcurate.train.loop.reducer import GradientReducer
from medcurate.train.types import Batch, StepLoss

Iterations = Callable[[Batch], Iterator[StepLoss]]


def micro_batches(batch: Batch, size: int) -> list[Batch]:
    """``batch`` cut into pieces of at most ``size`` images (0: one piece); an empty batch stays one piece."""
    count = len(batch.keys)
    step = size or max(count, 1)
    return [_piece(batch, slice(start, start + step)) for start in range(0, max(count, 1), step)]


def _piece(batch: Batch, part: slice) -> Batch:
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
    pieces: Sequence[Batch],
    iterations: Iterations,
    reducer: GradientReducer,
    optimiser: torch.optim.Optimizer,
    clip: Callable[[], None],
) -> Iterator[dict[str, torch.Tensor]]:
    """Make all optimiser steps of a batch; yields each step's detached loss terms, summed over the pieces.

    All pieces make their n-th backward pass before the optimiser's n-th step, and only then go on: later steps of
    the interactive recipe see the updated weights, as they would with one large piece.
    """
    running = [iterations(piece) for piece in pieces]
    while True:
        terms: dict[str, torch.Tensor] = {}
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
            _add(terms, step)
        clip()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        yield terms


def _add(terms: dict[str, torch.Tensor], step: StepLoss) -> None:
    for name, value in ({"loss": step.loss} | step.parts).items():
        value = value.detach()
        terms[name] = terms[name] + value if name in terms else value
