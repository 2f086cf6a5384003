"""Who makes what: global batches as slices of the order, a rank's rows of them, a worker's rows of those."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from medcurate.train.stream.state import StreamState


@dataclass(frozen=True, slots=True)
class Slice:
    """Global batch: positions [start, stop) of an epoch's order."""

    epoch: int
    start: int
    stop: int

    @property
    def samples(self) -> int:
        """Images of the batch, on all ranks together."""
        return self.stop - self.start


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """One rank among ``world``, and how its rows go to ``workers``.

    A rank has rows [rank * n // world, (rank + 1) * n // world) of a batch of n images. Where n does not
    divide by ``world``, or is less, the last row of some ranks is empty (``Batch.valid`` is false), so that
    all ranks do the same steps on the same shapes.
    """

    batch_images: int
    lanes: int
    rank: int = 0
    world: int = 1
    drop_last: bool = False

    def slices(self, state: StreamState, epoch_samples: int) -> Iterator[Slice]:
        """All global batches from ``state`` on, one epoch after another, without end.

        The last batch of an epoch has what is left, or is dropped (``drop_last``).
        """
        epoch, start = state.epoch, state.samples
        while True:
            while start < epoch_samples:
                stop = min(start + self.batch_images, epoch_samples)
                if stop - start == self.batch_images or not self.drop_last:
                    yield Slice(epoch, start, stop)
                start = stop
            epoch, start = epoch + 1, 0

    def after(self, batch: Slice, epoch_samples: int) -> tuple[int, int]:
        """(epoch, samples seen) once ``batch`` is done."""
        least = self.batch_images if self.drop_last else 1
        over = epoch_samples - batch.stop < least
        return (batch.epoch + 1, 0) if over else (batch.epoch, batch.stop)

    def rows(self, batch: Slice) -> range:
        """This rank's positions of ``batch``."""
        count = batch.samples
        first, end = (self.rank * count) // self.world, ((self.rank + 1) * count) // self.world
        return range(batch.start + first, batch.start + end)

    def height(self, batch: Slice) -> int:
        """Rows of this batch's tensors: the same on all ranks."""
        return -(-batch.samples // self.world)

    def worker_of(self, batch: Slice, row: int, workers: int) -> int:
        """Which worker makes ``row``: always the same one for a lane of the order, so that it reads in runs."""
        turns = max(self.lanes // self.batch_images, 1)
        turn = (batch.start // self.batch_images) % turns
        return (turn * self.height(batch) + row) % workers
