"""Everything that one process of a run holds: model, optimiser, reducer and where the run stands."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import xxhash
from torch import nn

from medcurate.train.config.recipe import TrainRecipe
from medcurate.train.loop import checkpoint
from medcurate.train.loop.accumulate import Piece, Terms, micro_batches, optimise
from medcurate.train.loop.checkpoint import RunState
from medcurate.train.loop.continuing import require_continuable
from medcurate.train.loop.optimiser import clip, lr_factor, make_optimiser, set_lr
from medcurate.train.loop.reducer import GradientReducer
from medcurate.train.loop.world import World, others_reached
from medcurate.train.model.build import Trainable, build_sam, require_weights, set_trainable
from medcurate.train.model.checkpoint import load_checkpoint
from medcurate.train.model.sam import Sam
from medcurate.train.steps.iterations import iterations
from medcurate.train.types import Batch


@dataclass(frozen=True, slots=True)
class Length:
    """Global batches of an epoch and of the whole run; ``batch_images`` in each, ``epoch_images`` in an epoch."""

    per_epoch: int
    total: int
    batch_images: int
    epoch_images: int

    def images(self, batches: int) -> int:
        """Images of the run's first ``batches``: the last one of an epoch may be smaller."""
        epochs, rest = divmod(batches, self.per_epoch)
        return epochs * min(self.epoch_images, self.per_epoch * self.batch_images) + rest * self.batch_images


class Session:
    """A run in memory. ``state`` is true after the last finished batch.

    ``found``: the checkpoint that it goes on from, which holds all weights; else those of the recipe are loaded. Raises
    ConfigError where they do not fit or are wanting, or the recipe does not go on with what the checkpoint has begun.
    """

    def __init__(self, recipe: TrainRecipe, world: World, found: Path | None = None) -> None:
        if found:
            require_continuable(found, recipe)
        else:
            require_weights(recipe.model)
        torch.manual_seed(recipe.run.seed)  # the same random weights on every rank
        self.recipe = recipe
        self.world = world
        self.sam = build_sam(recipe.model).to(world.device)
        self.loaded = ""
        if recipe.model.checkpoint and not found:
            heads = recipe.model.reinitialise_heads
            self.loaded = str(load_checkpoint(self.sam, recipe.model.checkpoint, reinitialise_heads=heads))
        self.sam.configure(precision=recipe.run.precision, compiled=recipe.run.compile)
        self.trainable: Trainable = set_trainable(
            self.sam, recipe.model.trainable, point_embeddings=recipe.model.train_point_embeddings
        )
        encoder, others = _learning(self.sam)
        self.parameters = [*encoder, *others]
        self.optimiser = make_optimiser(self.parameters, recipe.optimiser, world.device)
        self.reducer = GradientReducer(world, encoder, others)
        self.state = RunState(batches=0, steps=0, stream={}, sample_digest="", loss=0.0)
        if found:
            self.state = checkpoint.restore(found, self.sam, self.optimiser)

    def save(self, run: Path, facts: dict[str, Any]) -> Path:
        """Commit a checkpoint; call it on the leading rank only."""
        return checkpoint.save(
            run, self.state, self.sam, self.optimiser, keep=self.recipe.run.keep, facts=facts
        )

    def pieces(self, batch: Batch) -> list[Piece]:
        """This rank's ``batch`` as the recipe cuts it."""
        return micro_batches(batch, self.recipe.run.micro_batch)

    def play(self, pieces: Sequence[Piece], length: Length) -> Iterator[list[Terms]]:
        """All optimiser steps of a batch; yields the loss terms of each, this rank's summands, by piece."""
        optimiser = self.recipe.optimiser
        factor = lr_factor(
            self.recipe.schedule, self.state.batches, per_epoch=length.per_epoch, total=length.total
        )
        set_lr(self.optimiser, optimiser.lr * factor)
        running = [
            iterations(
                self.sam,
                piece.batch,
                self.recipe,
                total=self.summed,
                replayed=piece.replayed,
                witness=piece.turns.append,
            )
            for piece in pieces
        ]
        return optimise(
            running, self.reducer, self.optimiser, partial(clip, self.parameters, optimiser.clip_norm)
        )

    def advance(self, batch: Batch, stream: dict[str, Any], steps: int, *, skipped: int = 0) -> None:
        """Note that ``batch`` is done; ``stream`` is its state after it, ``skipped`` what this rank left out."""
        samples, left_out = self.world.total([_identity(batch), skipped])
        chain = hashlib.sha256(f"{self.state.sample_digest}{samples & (1 << 64) - 1:016x}".encode())
        self.state = replace(
            self.state,
            batches=self.state.batches + 1,
            steps=self.state.steps + steps,
            stream=stream,
            sample_digest=chain.hexdigest(),
            skipped=self.state.skipped + left_out,
        )

    def finite(self) -> bool:
        """Whether all weights that learn are finite numbers."""
        largest = nn.utils.get_total_norm([parameter.detach() for parameter in self.parameters], math.inf)
        return bool(largest.isfinite())

    def summed(self, sums: torch.Tensor) -> torch.Tensor:
        """``sums`` over all ranks, in place. Raises PeerLost."""
        if self.world.gradients is not None:
            with others_reached(self.world.size):
                dist.all_reduce(sums, group=self.world.gradients)
        return sums


def _identity(batch: Batch) -> int:
    """A number for which samples, with which masks and seeds, this rank's share holds; shares add up modulo 2**64."""
    total = 0
    for key, seed, masks in zip(
        batch.keys,
        batch.seeds.tolist(),
        batch.annotations.masked_fill(~batch.valid, -1).tolist(),
        strict=True,
    ):
        if not key:  # a row that only keeps ranks in step
            continue
        total += xxhash.xxh3_64_intdigest(f"{batch.number} {key} {seed} {masks}".encode())
    total &= (1 << 64) - 1
    return total - (1 << 64) if total >= 1 << 63 else total


def _learning(sam: Sam) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Parameters that learn: of the image encoder, and the others."""
    encoder: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in sam.named_parameters():
        if parameter.requires_grad:
            (encoder if name.startswith("image_encoder.") else others).append(parameter)
    return encoder, others
