"""The order of an epoch, as arithmetic: which sample stands at position p.

The samples that were selected stand in the order of their shards, cut into *blocks* of neighbours (at most
``BLOCK_BYTES`` of one shard). An epoch permutes the blocks by a keyed hash, lays them end to end and cuts
this line into ``lanes`` of equal length; position p is step p // lanes of lane p % lanes. So

- every sample of the epoch has exactly one position, found without visiting any other;
- a global batch of as many images as lanes takes one sample from each of as many blocks, and the same row of
  the next batch takes the neighbour in its shard: whoever reads a row reads its blocks from front to back,
  once, whatever the number of ranks and workers;
- nothing of the order depends on the batch size, the number of ranks or of workers.

An epoch costs one hash and sort of the blocks: 0.1 million of 2 MiB for 20 million masks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medcurate.train.stream.mixing import mixed

Int64s = npt.NDArray[np.int64]

BLOCK_BYTES = 2 << 20
MIN_LANES = 32
_BLOCKS = 1  # what hashes are for: keeps them apart from other uses of the seed


@dataclass(frozen=True, slots=True)
class Entries:
    """What an epoch shows: entry number to sample.

    ``samples`` None: each sample once, entry i is sample i; else int32 (N,), in runs of increasing samples.
    ``block_starts`` int64 (B,): first entry of each block, increasing, the first is 0.
    """

    count: int
    samples: npt.NDArray[np.int32] | None
    block_starts: Int64s


class Order:
    """The permutation of one epoch's entries.

    ``length``: number of positions. Memory: three int64 a block.
    """

    def __init__(self, entries: Entries, *, seed: int, epoch: int, lanes: int) -> None:
        self.length = entries.count
        self._samples = entries.samples
        self._lanes = lanes
        starts = entries.block_starts
        sizes = np.diff(starts, append=entries.count)
        permutation = np.argsort(mixed(seed, _BLOCKS, epoch, np.arange(len(starts))), kind="stable")
        self._ends = np.cumsum(sizes[permutation])
        # from a place on the line of permuted blocks to an entry, by block
        self._shifts = starts[permutation] - (self._ends - sizes[permutation])

    def entries_at(self, positions: Int64s) -> Int64s:
        """Entry numbers at ``positions``, int64 of any number, each in [0, length)."""
        if len(positions) and not 0 <= positions.min() <= positions.max() < self.length:
            raise IndexError(f"positions must be in [0, {self.length})")
        step, lane = np.divmod(positions, self._lanes)
        short, longer = divmod(self.length, self._lanes)
        places = lane * short + np.minimum(lane, longer) + step
        blocks = np.searchsorted(self._ends, places, side="right")
        entries: Int64s = places + self._shifts[blocks]
        return entries

    def samples_of(self, entries: Int64s) -> Int64s:
        """Sample numbers (rows of the index) of ``entries``."""
        return entries if self._samples is None else self._samples[entries].astype(np.int64)


def lanes_for(batch_images: int) -> int:
    """A multiple of the global batch of at least ``MIN_LANES``: every row of a batch then has its own lanes."""
    return batch_images * -(-MIN_LANES // batch_images)


def block_starts(shards: npt.NDArray[np.int32], offsets: Int64s) -> Int64s:
    """Where blocks begin among samples in storage order: at a new shard, and every ``BLOCK_BYTES`` of it.

    Where offsets fall (the next run of ``Entries.samples``), a block begins too.
    """
    if not len(shards):
        return np.zeros(0, np.int64)
    pieces = offsets // BLOCK_BYTES
    begins = np.flatnonzero(
        (shards[1:] != shards[:-1]) | (pieces[1:] != pieces[:-1]) | (offsets[1:] <= offsets[:-1])
    )
    return np.concatenate([[0], begins + 1])
