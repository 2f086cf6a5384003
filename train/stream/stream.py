"""A rank's batches: what workers made, as tensors with all that belongs to them."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from medcurate.train.stream.course import Course
from medcurate.train.stream.making import BatchArrays, Made, Maker, Task
from medcurate.train.stream.pool import Layout, Pool, StartMethod
from medcurate.train.stream.share import Slice
from medcurate.train.stream.state import StreamState
from medcurate.train.types import Batch, Frame

_LOG = logging.getLogger(__name__)


@dataclass(slots=True)
class StreamCounts:
    """What a stream did so far, on this rank."""

    batches: int = 0
    images: int = 0  # skipped ones are not
    lost_masks: int = 0  # emptied by resizing
    skipped: int = 0  # bad samples
    read_bytes: int = 0
    needed_bytes: int = 0
    wait_seconds: float = 0.0  # the consumer's


class Embeddings(Protocol):
    """Where embeddings of images are kept, by the samples' keys."""

    def require(self, keys: pa.Array, sample_digests: pa.Array) -> None:
        """Raise ConfigError unless those of all samples are there."""

    def read(self, keys: Sequence[str]) -> torch.Tensor:
        """float16 (B, C, S/16, S/16), zeros for the key ""."""


class Stream:
    """Batches of one rank, epoch after epoch, without end. Made by ``open_stream``; close it after use."""

    def __init__(
        self,
        task: Task,
        *,
        workers: int,
        slots: int,
        start_method: StartMethod,
        embeddings: Embeddings | None = None,
    ) -> None:
        self._task, self._epoch_samples = task, len(task.index)
        self._slices = task.share.slices(task.state, self._epoch_samples)
        self._coming = next(self._slices)
        self._state = task.state
        self._course = Course(task.index, temper=task.temper, seed=task.state.seed, lanes=task.share.lanes)
        share, rules = task.share, task.rules
        rows = -(-share.batch_images // share.world)
        image_side = rules.side if rules.images else 0
        self._layout = Layout(rows, rules.masks_per_image, rules.side, image_side)
        self._maker = None if workers else Maker(task)
        self._pool = (
            Pool(task, self._layout, workers=workers, slots=slots, start_method=start_method)
            if workers
            else None
        )
        self._pinned = workers > 0 and torch.cuda.is_available()
        self._embeddings = embeddings
        self._reader = ThreadPoolExecutor(1, "embeddings") if embeddings else None
        self._embedded = self._ask(self._coming)
        self.counts = StreamCounts()

    @property
    def samples_per_epoch(self) -> int:
        """Images of an epoch, on all ranks together."""
        return self._epoch_samples

    @property
    def batches_per_epoch(self) -> int:
        """Global batches of a whole epoch."""
        whole, rest = divmod(self._epoch_samples, self._task.share.batch_images)
        return whole + (rest > 0 and not self._task.share.drop_last)

    @property
    def state(self) -> StreamState:
        """Where the batch that comes next begins: what a checkpoint keeps."""
        return self._state

    @property
    def groups(self) -> frozenset[str]:
        """The patients of all selected samples, as the manifest's "group" names them."""
        return self._task.index.patients()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        """This rank's share of the next global batch. Raises BadSampleError, StorageError, WorkerError."""
        started = time.perf_counter()
        batch, self._coming = self._coming, next(self._slices)
        arrays, made = self._make(batch)
        self._count(batch, made)
        ready = self._batch(batch, arrays)
        if self._embedded:
            ready.embeddings = self._embedded.result()
            self._embedded = self._ask(self._coming)
        if self._pool:
            self._pool.release()
        self._state = self._after(batch)
        self.counts.wait_seconds += time.perf_counter() - started
        return ready

    def close(self) -> None:
        """End workers and reading ahead."""
        if self._pool:
            self._pool.close()
        if self._maker:
            self._maker.close()
        if self._reader:
            self._reader.shutdown(wait=False, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _make(self, batch: Slice) -> tuple[BatchArrays, list[Made]]:
        if self._pool:
            arrays, made = self._pool.next()
        else:
            assert self._maker is not None
            arrays = self._layout.arrays(np.empty(self._layout.slot_bytes, np.uint8))
            made = [self._maker.fill(arrays)]
        for row in range(len(self._task.share.rows(batch)), self._task.share.height(batch)):
            arrays.leave_empty(row)
        return arrays, made

    def _batch(self, batch: Slice, arrays: BatchArrays) -> Batch:
        share, rows = self._task.share, self._task.share.height(batch)
        positions = np.asarray(share.rows(batch), np.int64)
        padding = rows - len(positions)
        seeds = np.concatenate([self._course.seeds_at(batch.epoch, positions), np.zeros(padding, np.int64)])
        return Batch(
            images=self._tensor(arrays.images[:rows]),
            masks=self._tensor(arrays.masks[:rows]),
            valid=self._tensor(arrays.valid[:rows]),
            annotations=self._tensor(arrays.annotations[:rows]),
            seeds=torch.from_numpy(seeds),
            keys=self._keys(batch),
            frames=tuple(Frame(*fields) for fields in arrays.frames[:rows].tolist()),
            number=batch.start // share.batch_images,
            samples=batch.samples,
            seed=self._course.batch_seed(batch.epoch, batch.start),
        )

    def _keys(self, batch: Slice) -> tuple[str, ...]:
        share, index = self._task.share, self._task.index
        samples, _ = self._course.samples_at(batch.epoch, np.asarray(share.rows(batch), np.int64))
        return (*map(index.key, samples.tolist()), *[""] * (share.height(batch) - len(samples)))

    def _ask(self, batch: Slice) -> Future[torch.Tensor] | None:
        """Start to read the embeddings of ``batch``, where the recipe wants them."""
        if not self._reader or not self._embeddings:
            return None
        read, keys = self._embeddings.read, self._keys(batch)
        return self._reader.submit(lambda: read(keys).pin_memory() if self._pinned else read(keys))

    def _tensor(self, array: npt.NDArray[Any]) -> torch.Tensor:
        """A tensor of its own; where there is a GPU, in pinned memory, so that its copy can overlap."""
        view = torch.from_numpy(array)
        if not self._pool:
            return view
        return torch.empty_like(view, pin_memory=self._pinned).copy_(view)

    def _after(self, batch: Slice) -> StreamState:
        epoch, samples = self._task.share.after(batch, self._epoch_samples)
        return replace(self._state, epoch=epoch, samples=samples)

    def _count(self, batch: Slice, made: list[Made]) -> None:
        counts = self.counts
        counts.batches += 1
        counts.images += len(self._task.share.rows(batch)) - sum(len(one.skipped) for one in made)
        for one in made:
            counts.lost_masks += one.lost_masks
            counts.skipped += len(one.skipped)
            counts.read_bytes += one.read_bytes
            counts.needed_bytes += one.needed_bytes
            for key in one.skipped:
                _LOG.warning("sample %s is damaged or cannot be read, and was skipped", key)
