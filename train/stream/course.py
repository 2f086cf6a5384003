"""What every position of every epoch shows, without visiting the positions before it."""

from __future__ import annotations

import numpy as np

from medcurate.train.stream.index import Index
from medcurate.train.stream.mixing import mixed
from medcurate.train.stream.order import Int64s, Order
from medcurate.train.stream.weights import Even, Tempered

_SEEDS, _BATCHES = 5, 6  # what hashes are for


class Course:
    """The samples of ``index`` epoch by epoch. ``temper`` 1: every sample once an epoch."""

    def __init__(self, index: Index, *, temper: float, seed: int, lanes: int) -> None:
        self._seed, self._lanes = seed, lanes
        if temper == 1:
            self._shows: Even | Tempered = Even(index.shard, index.offset)
        else:
            self._shows = Tempered(index.shard, index.offset, index.stratum, temper=temper, seed=seed)
        self._orders: dict[int, Order] = {}

    def samples_at(self, epoch: int, positions: Int64s) -> tuple[Int64s, Int64s]:
        """(sample, how often it was shown before) at each of ``positions``."""
        order = self._order(epoch)
        entries = order.entries_at(positions)
        samples = order.samples_of(entries)
        return samples, self._shows.earlier(epoch, entries, samples)

    def seeds_at(self, epoch: int, positions: Int64s) -> Int64s:
        """int64 (N,), not negative: what all else that is drawn for an image comes from."""
        return (mixed(self._seed, _SEEDS, epoch, positions) >> np.uint64(1)).astype(np.int64)

    def batch_seed(self, epoch: int, start: int) -> int:
        """Of the global batch that starts at position ``start``: equal on all ranks, not negative."""
        return int(mixed(self._seed, _BATCHES, epoch, start)[0] >> np.uint64(1))

    def _order(self, epoch: int) -> Order:
        if epoch not in self._orders:
            self._orders = {old: order for old, order in self._orders.items() if old == epoch - 1}
            entries = self._shows.entries(epoch)
            self._orders[epoch] = Order(entries, seed=self._seed, epoch=epoch, lanes=self._lanes)
        return self._orders[epoch]
