"""One worker's part of every global batch: which samples, read ahead, decoded into its rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt

from medcurate.format.sample import SampleError
from medcurate.storage import Location
from medcurate.train.stream.course import Course
from medcurate.train.stream.decode import Draw, Opened, Row, Rules, open_sample, paint
from medcurate.train.stream.index import Index
from medcurate.train.stream.mirror import Mirror
from medcurate.train.stream.order import Int64s
from medcurate.train.stream.reading import BadSampleError, Reader, Wanted
from medcurate.train.stream.share import Share, Slice
from medcurate.train.stream.state import StreamState
from medcurate.train.types import Frame

FRAME_FIELDS = 7  # of ``Frame``, in its order
Result = TypeVar("Result")
_CHUNK_BATCHES = 256  # that are planned at once at most


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How a worker gets bytes.

    ``ahead_bytes``: of samples that are asked for together; twice this is in memory. ``threads``: that read
    ahead; 0: read when used. ``mirror``: folder of the local copy of remote shards, of ``mirror_bytes`` at most.
    """

    ahead_bytes: int
    threads: int = 0
    mirror: Path | None = None
    mirror_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """All that decides what a worker makes; can be pickled."""

    dataset: Location
    index: Index
    temper: float  # 1: every sample once an epoch
    rules: Rules
    share: Share
    state: StreamState
    on_bad_sample: Literal["stop", "skip"]
    reading: Reading


@dataclass(frozen=True, slots=True)
class BatchArrays:
    """A batch of B rows with K masks of S x S, to be filled; ``frames`` int32 (B, 7)."""

    images: npt.NDArray[np.uint8]
    masks: npt.NDArray[np.bool_]
    valid: npt.NDArray[np.bool_]
    annotations: npt.NDArray[np.int64]
    frames: npt.NDArray[np.int32]

    def row(self, number: int) -> Row:
        """Row ``number``, without its frame."""
        return Row(self.images[number], self.masks[number], self.valid[number], self.annotations[number])

    def leave_empty(self, number: int) -> None:
        """Mark a row as one without image."""
        side = self.masks.shape[-1]
        self.row(number).clear()
        self.frames[number] = (side, side, side, side, side, 0, 0)


@dataclass(slots=True)
class Made:
    """What happened while batches were made. ``lost_masks``: emptied by resizing; ``skipped``: keys."""

    lost_masks: int = 0
    skipped: list[str] = field(default_factory=list)
    read_bytes: int = 0
    needed_bytes: int = 0


@dataclass(frozen=True, slots=True)
class _Planned:
    """One worker's rows of one global batch, with what they show and the calls for their bytes."""

    rows: list[int]
    samples: Int64s
    earlier: Int64s
    seeds: Int64s
    wanted: list[Wanted] = field(default_factory=list)


class Maker:
    """Makes the rows of worker ``worker`` of ``workers``, batch after batch."""

    def __init__(self, task: Task, worker: int = 0, workers: int = 1) -> None:
        self._task, self._worker, self._workers = task, worker, workers
        self._course = Course(task.index, temper=task.temper, seed=task.state.seed, lanes=task.share.lanes)
        reading = task.reading
        mirror = Mirror(reading.mirror, reading.mirror_bytes) if reading.mirror else None
        self._reader = Reader(task.dataset, task.index, threads=reading.threads, mirror=mirror)
        self._queue = self._ahead()

    def fill(self, arrays: BatchArrays) -> Made:
        """Fill this worker's rows of the next global batch. Raises BadSampleError unless these are skipped."""
        planned, made = next(self._queue), Made()
        opened: list[tuple[int, Opened]] = []
        for place, row in enumerate(planned.rows):
            with self._skipping(planned, place, arrays, made):
                one = self._open(planned, place, arrays.row(row))
                arrays.frames[row] = _fields(one.frame)
                opened.append((place, one))
        try:
            made.lost_masks = paint([one for _, one in opened], self._task.rules)
        except SampleError:  # of which one, shows by painting each alone
            made.lost_masks = 0
            for place, one in opened:
                with self._skipping(planned, place, arrays, made):
                    made.lost_masks += self._blamed(planned, place, partial(paint, [one], self._task.rules))
        made.read_bytes, made.needed_bytes = self._reader.take_traffic()
        return made

    def close(self) -> None:
        """Stop reading ahead."""
        self._reader.close()

    @contextmanager
    def _skipping(self, planned: _Planned, place: int, arrays: BatchArrays, made: Made) -> Iterator[None]:
        """Leave a bad sample's row empty, if that is what is wanted of it."""
        try:
            yield
        except BadSampleError:
            if self._task.on_bad_sample == "stop":
                raise
            made.skipped.append(self._task.index.key(int(planned.samples[place])))
            arrays.leave_empty(planned.rows[place])

    def _open(self, planned: _Planned, place: int, row: Row) -> Opened:
        index, sample = self._task.index, int(planned.samples[place])
        seed, earlier = int(planned.seeds[place]), int(planned.earlier[place])
        draw = Draw(index.annotations(sample), int(index.digest[sample]), earlier, seed)
        blob = planned.wanted[place]()
        return self._blamed(planned, place, partial(open_sample, blob, draw, self._task.rules, row))

    def _blamed(self, planned: _Planned, place: int, work: Callable[[], Result]) -> Result:
        """The result of ``work``, whose failure is the sample's."""
        try:
            return work()
        except SampleError as error:
            index, sample = self._task.index, int(planned.samples[place])
            shard = self._task.dataset.member(index.shards[int(index.shard[sample])])
            raise BadSampleError(
                f"{shard}: sample {index.key(sample)}: {error}; build the dataset again."
            ) from error

    def _ahead(self) -> Iterator[_Planned]:
        """Every batch's rows; the next chunk is being read while one is used."""
        current: list[_Planned] = []
        for chunk in self._chunks():
            asked = iter(self._reader.ask(np.concatenate([one.samples for one in chunk])))
            for one in chunk:
                one.wanted.extend(next(asked) for _ in one.rows)
            yield from current
            current = chunk

    def _chunks(self) -> Iterator[list[_Planned]]:
        """Batches in turn, as many at a time as have ``ahead_bytes`` of samples."""
        chunk: list[_Planned] = []
        held = 0
        for batch in self._task.share.slices(self._task.state, len(self._task.index)):
            chunk.append(self._planned(batch))
            held += int(self._task.index.size[chunk[-1].samples].sum())
            if held >= self._task.reading.ahead_bytes or len(chunk) == _CHUNK_BATCHES:
                yield chunk
                chunk, held = [], 0

    def _planned(self, batch: Slice) -> _Planned:
        share, positions = self._task.share, self._task.share.rows(batch)
        mine = [
            row for row in range(len(positions)) if share.worker_of(batch, row, self._workers) == self._worker
        ]
        places = np.array([positions[row] for row in mine], np.int64)
        samples, earlier = self._course.samples_at(batch.epoch, places)
        return _Planned(mine, samples, earlier, self._course.seeds_at(batch.epoch, places))


def _fields(frame: Frame) -> tuple[int, ...]:
    scaled = (frame.scaled_height, frame.scaled_width)
    return (frame.height, frame.width, frame.side, *scaled, frame.top, frame.left)
