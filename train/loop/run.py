"""A training run: from a train recipe and a dataset to checkpoints, interrupted and continued at any batch."""

from __future__ import annotations

import math
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from medcurate.errors import ConfigError, MedcurateError
from medcurate.progress import Progress, progress
from medcurate.storage import locate, without_user
from medcurate.train.config.recipe import TrainRecipe, digest
from medcurate.train.launch import Hopeless
from medcurate.train.loop import checkpoint
from medcurate.train.loop.accumulate import Piece, Terms, summed
from medcurate.train.loop.failed import FAILED_FOLDER, forget_failed, write_failed
from medcurate.train.loop.figures import Figures
from medcurate.train.loop.holding import held
from medcurate.train.loop.logs import Logs
from medcurate.train.loop.record import write_run
from medcurate.train.loop.session import Session
from medcurate.train.loop.signals import StopRequest, noted_signals
from medcurate.train.loop.start import Options, found_by_all, length_of, moved, opened_stream
from medcurate.train.loop.world import joined, leave_cores
from medcurate.train.stream.reading import BadSampleError
from medcurate.train.stream.stream import Stream
from medcurate.train.types import Batch


class TrainingStopped(Hopeless):
    """The loss cannot be used, or the weights; says what was kept and how to continue."""


class DataDamaged(Hopeless):
    """A sample of a dataset on this machine's file systems is not what the manifest says."""

    said_by = "me"


class OthersStopped(MedcurateError):
    """Another process cannot read its data."""


class OthersHopeless(Hopeless):
    """Another process cannot read its data, and will not be able to."""

    said_by = "others"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a run ended. ``stopped_by``: the signal's number, 0 when all batches are done."""

    checkpoint: Path
    batches: int
    loss: float
    sample_digest: str
    stopped_by: int


def train(recipe: TrainRecipe, options: Options) -> Outcome:
    """Train in this process, one of those that torchrun started or the only one.

    Raises ConfigError, StorageError, OutputError, BadSampleError, TrainingStopped, DataDamaged, FolderInUse,
    OthersRefused, OthersStopped and OthersHopeless.
    """
    with joined(options.device) as world, noted_signals() as request:
        leave_cores(world.device, options.workers)
        found = found_by_all(options, world)
        session = Session(recipe, world, found)
        stream = opened_stream(session, options)
        with stream:
            world.require_same(
                f"{digest(recipe)} {stream.state}", f"recipe and dataset {without_user(options.data)}"
            )
            # After the stream's workers were forked, who would hold it too.
            with held(options.out, found, world):
                return _Run(session, stream, options, request, found).go()


class _Run:
    """The loop over batches of one process."""

    def __init__(
        self, session: Session, stream: Stream, options: Options, request: StopRequest, found: Path | None
    ) -> None:
        self._session = session
        self._stream = stream
        self._out = options.out
        self._data = options.data
        self._tools = options.tools
        self._request = request
        self._found = found
        self._length = length_of(session.recipe, stream)
        self._figures = Figures()
        self._told_skipped = 0
        self._facts = {"world": session.world.size, "device": session.world.device.type}

    def go(self) -> Outcome:
        state, world = self._session.state, self._session.world
        if not world.leads:
            return self._loop(None, None)
        with Logs(self._out, self._tools, self._session.recipe.model_dump(mode="json")) as logs:
            self._begin(logs)
            images = self._length.images
            with progress(
                "training", images(self._length.total), "images", done=images(state.batches)
            ) as shown:
                outcome = self._loop(logs, shown)
            logs.event(
                "stopped" if outcome.stopped_by else "done", batches=outcome.batches, loss=outcome.loss
            )
            return outcome

    def _begin(self, logs: Logs) -> None:
        session = self._session
        write_run(self._out, session.recipe, self._stream, self._data, self._found)
        if self._found:
            logs.event("resumed", checkpoint=self._found.name, batches=session.state.batches)
        elif session.loaded:
            logs.event("loaded", weights=session.loaded)
        logs.event(
            "trainable",
            parameters=str(session.trainable),
            batches=self._length.total,
            processes=session.world.size,
        )

    def _loop(self, logs: Logs | None, shown: Progress | None) -> Outcome:
        folder = self._found
        for batch in self._batches():
            pieces = self._session.pieces(batch)
            steps = [summed(terms) for terms in self._session.play(pieces, self._length)]
            self._judge(batch, pieces, steps)
            self._session.advance(batch, self._stream.state.to_dict(), len(steps), skipped=self._skipped())
            self._figures.add(steps, batch.samples)
            if shown:
                shown.advance(batch.samples)
            stop = self._stop()
            save = self._checkpoint_due() or stop
            if self._due(self._session.recipe.run.log_every) or save:
                # Before a checkpoint too: what was not told by then, nobody would tell after it.
                self._tell(logs, shown)
            if save:
                folder = self._save()
            if stop:
                break
        state = self._session.state
        assert folder is not None
        return Outcome(
            checkpoint=folder,
            batches=state.batches,
            loss=state.loss,
            sample_digest=state.sample_digest,
            stopped_by=self._request.number if state.batches < self._length.total else 0,
        )

    def _batches(self) -> Iterator[Batch]:
        """The run's remaining batches, on the device; the time until each comes counts as waiting."""
        batches = iter(self._stream)
        while self._session.state.batches < self._length.total:
            self._figures.clock.asked()
            batch = self._next(batches)
            self._figures.clock.waited()
            yield moved(batch, self._session.world.device)

    def _next(self, batches: Iterator[Batch]) -> Batch:
        """This rank's next batch, once all ranks have theirs: nobody waits for one that cannot go on."""
        world = self._session.world
        try:
            batch = next(batches)
        except MedcurateError as error:
            damaged = isinstance(error, BadSampleError) and locate(self._data).is_local
            world.total([1, damaged or isinstance(error, ConfigError)])
            if damaged:
                raise DataDamaged(str(error)) from error
            raise
        failed, lasting = world.total([0, 0])
        if failed:
            raise (OthersHopeless if lasting else OthersStopped)(
                f"{failed} of {world.size} processes cannot read their data; they say why. The last checkpoint is in "
                f"{self._out / checkpoint.FOLDER}; the same command goes on from it once that is mended."
            )
        return batch

    def _skipped(self) -> int:
        """Bad samples that this rank has left out since the last call."""
        before, self._told_skipped = self._told_skipped, self._stream.counts.skipped
        return self._told_skipped - before

    def _judge(self, batch: Batch, pieces: list[Piece], steps: list[Terms]) -> None:
        """Stop all ranks where the global loss of a step is not finite or too large, before a checkpoint has it."""
        limit = self._session.recipe.run.stop_above
        losses = self._session.summed(torch.stack([terms["loss"] for terms in steps]))
        worst = float(losses.max())  # NaN if any is
        if math.isfinite(worst) and (not limit or worst <= limit):
            return
        folder, world = self._out / FAILED_FOLDER, self._session.world
        if world.leads:
            shutil.rmtree(folder, ignore_errors=True)  # of an earlier failure, perhaps of more ranks
        world.barrier()
        write_failed(folder, self._session, batch, pieces, steps)
        world.barrier()
        rule = f"above run.stop_above, {limit:g}" if math.isfinite(worst) else "not a finite number"
        raise TrainingStopped(
            f"the loss of global batch {self._session.state.batches}, {worst:g}, is {rule}. What was shown and the "
            f"prompts are in {folder}; the same command with --replay goes through it again and says which step and "
            f"image it was. {self._remedy()}"
        )

    def _remedy(self) -> str:
        folder = self._out / checkpoint.FOLDER
        what = "A lower optimiser.lr, optimiser.clip_norm or precision fp32 may help"
        if not checkpoint.complete(self._out):
            return f"{what}: change the recipe and start again; there is no checkpoint yet."
        return (
            f"The last good checkpoint is in {folder}. {what}: start a new run (--out) with that checkpoint's "
            f"{checkpoint.MODEL_FILE} as --checkpoint."
        )

    def _stop(self) -> bool:
        (asked,) = self._session.world.total([self._request.number])
        if asked and not self._request.number:
            self._request.number = signal.SIGTERM
        return bool(asked) or self._session.state.batches == self._length.total

    def _due(self, every: int) -> bool:
        return bool(every) and self._session.state.batches % every == 0

    def _checkpoint_due(self) -> bool:
        return self._due(self._session.recipe.run.checkpoint_every or self._length.per_epoch)

    def _tell(self, logs: Logs | None, shown: Progress | None) -> None:
        """Take the figures of the batches since the last call, on all ranks together; the leader tells them."""
        session = self._session
        means = self._figures.means(session)
        session.state = replace(session.state, loss=means["loss"])
        if logs and shown:
            self._figures.tell(logs, shown, session, means)

    def _save(self) -> Path:
        if not self._session.finite():  # equal on all ranks
            raise TrainingStopped(
                f"global batch {self._session.state.batches - 1} left weights that are not finite numbers; they were "
                f"not saved. {self._remedy()}"
            )
        if self._session.world.leads:
            self._session.save(self._out, self._facts)
            forget_failed(self._out / FAILED_FOLDER, self._session.state.batches)
        self._session.world.barrier()
        return checkpoint.folder_of(self._out, self._session.state.batches)
