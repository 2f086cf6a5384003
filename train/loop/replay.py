"""A batch that made a run stop, once more: from the checkpoint before it, in one process, image by image.

Nothing needs to have been kept of the weights at that moment: the order of samples and all prompts are arithmetic, so
the batches since the checkpoint can be made again. Nothing is written.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from medcurate.errors import ConfigError
from medcurate.progress import emit, progress
from medcurate.train.config.recipe import TrainRecipe
from medcurate.train.loop import checkpoint
from medcurate.train.loop.accumulate import Piece, Terms, micro_batches, summed
from medcurate.train.loop.continuing import require_same_beginning
from medcurate.train.loop.failed import FAILED_FOLDER, FailedBatch, read_failed
from medcurate.train.loop.session import Length, Session
from medcurate.train.loop.start import Options, length_of, moved, opened_stream
from medcurate.train.loop.world import joined, leave_cores
from medcurate.train.place import own_place
from medcurate.train.prompts.record import to_turn
from medcurate.train.stream.stream import Stream
from medcurate.train.types import Batch


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayedStep:
    """An optimiser step of a batch. ``prompt``: its kind. ``terms``: the loss and its terms, of the global batch.

    ``recorded_loss``: when the run stopped. ``image_losses``: the loss of each image alone, in the order of ``keys``;
    empty where the recipe takes one loss of all images together. ``largest_weight``: absolute value among the weights
    that learn, after the step.
    """

    number: int
    prompt: str
    terms: dict[str, float]
    recorded_loss: float
    keys: tuple[str, ...]
    image_losses: tuple[float, ...]
    largest_weight: float


def replay(recipe: TrainRecipe, options: Options) -> Iterator[ReplayedStep]:
    """The steps of the failed batch in ``options.out``. Raises ConfigError and StorageError."""
    if own_place().size > 1:
        raise ConfigError("--replay runs in one process; start it without torchrun.")
    failed = read_failed(options.out / FAILED_FOLDER)
    with joined(options.device) as world:
        leave_cores(world.device, options.workers)
        found = _before(options.out, failed.batches)
        if found is None:
            require_same_beginning(options.out, recipe)
        session = Session(_as_large(recipe, failed.world), world, found)
        with opened_stream(session, options) as stream:
            length = length_of(recipe, stream)
            _catch_up(session, stream, length, failed.batches)
            batch = moved(next(stream), world.device)
            _require_the_same(batch, failed, options.data)
            pieces = _replayed(batch, failed, 0 if recipe.loss.pool == "batch" else 1)
            for number, terms in enumerate(session.play(pieces, length)):
                yield _step(number, terms, pieces, failed, session)


def _as_large(recipe: TrainRecipe, world: int) -> TrainRecipe:
    """``recipe`` with pieces as large as one of ``world`` processes took them, so that they fit again."""
    if recipe.loss.pool == "batch":
        return recipe
    share = -(-recipe.run.batch_images // world)
    micro_batch = min(recipe.run.micro_batch or share, share)
    return recipe.model_copy(update={"run": recipe.run.model_copy(update={"micro_batch": micro_batch})})


def _before(out: Path, batches: int) -> Path | None:
    """The newest checkpoint that does not lie behind the failed batch; None: there is none, replay from the start."""
    found = [path for path in checkpoint.complete(out) if checkpoint.batches_of(path) <= batches]
    return found[-1] if found else None


def _catch_up(session: Session, stream: Stream, length: Length, batches: int) -> None:
    """Do again what came between the checkpoint and the failed batch."""
    emit("replaying", from_batch=session.state.batches, failed_batch=batches)
    left = batches - session.state.batches
    with progress("batches before it", left, "batches") as shown:
        for _ in range(left):
            batch = moved(next(stream), session.world.device)
            steps = list(session.play(session.pieces(batch), length))
            session.advance(batch, stream.state.to_dict(), len(steps))
            shown.advance()


def _require_the_same(batch: Batch, failed: FailedBatch, data: str) -> None:
    annotations = tuple(map(tuple, batch.annotations.tolist()))
    if (batch.keys, annotations, tuple(batch.seeds.tolist())) != (
        failed.keys,
        failed.annotations,
        failed.seeds,
    ):
        raise ConfigError(
            f"{data}: brings other samples than the failed batch had; give the dataset and recipe of the run."
        )


def _replayed(batch: Batch, failed: FailedBatch, size: int) -> list[Piece]:
    """``batch`` in pieces of ``size`` images, each with the turns that it was given."""
    pieces = micro_batches(batch, size)
    slots, start = batch.valid.shape[1], 0
    for piece in pieces:
        end = start + len(piece.batch.keys) * slots
        piece.replayed = [to_turn(records[start:end], batch.images.device) for records in failed.turns]
        start = end
    return pieces


def _step(
    number: int, terms: Sequence[Terms], pieces: Sequence[Piece], failed: FailedBatch, session: Session
) -> ReplayedStep:
    largest = torch.nn.utils.get_total_norm([p.detach() for p in session.parameters], math.inf)
    alone = len(pieces) == len(failed.keys)
    return ReplayedStep(
        number=number,
        prompt=pieces[0].turns[number].kind,
        terms={name: float(value) for name, value in summed(terms).items()},
        recorded_loss=failed.losses[number],
        keys=failed.keys,
        # A piece's loss is its summand of the mean over the batch's images.
        image_losses=tuple(float(one["loss"]) * len(pieces) for one in terms) if alone else (),
        largest_weight=float(largest),
    )
