"""How often samples are seen: each once an epoch, or by groups whose sizes are tempered.

With weights, an epoch still shows as many samples as were selected, and group g gets the share
n_g ** temper / sum(n ** temper) of them. A group is a circle on which its samples stand in a scattered order;
each epoch goes on where the last one stopped, T_g samples further. So a sample is seen floor(T_g / n_g) or
ceil(T_g / n_g) times an epoch, none is left out for longer than ceil(n_g / T_g) epochs, and which ones an
epoch shows is arithmetic.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from medcurate.train.stream.mixing import below, mixed
from medcurate.train.stream.order import Entries, Int64s, block_starts

_CIRCLES = 2  # what hashes are for


class Even:
    """Every sample once an epoch."""

    def __init__(self, shards: npt.NDArray[np.int32], offsets: Int64s) -> None:
        self._entries = Entries(len(shards), None, block_starts(shards, offsets))

    def entries(self, epoch: int) -> Entries:
        """What ``epoch`` shows: the same in all."""
        return self._entries

    def earlier(self, epoch: int, entries: Int64s, samples: Int64s) -> Int64s:
        """How often the samples at ``entries`` of ``epoch`` were shown before: once an epoch."""
        return np.full(len(entries), epoch, np.int64)


class Tempered:
    """Samples by weight of their group. Memory: about 24 bytes a sample while an epoch is laid out."""

    def __init__(
        self,
        shards: npt.NDArray[np.int32],
        offsets: Int64s,
        groups: npt.NDArray[np.int32],
        *,
        temper: float,
        seed: int,
    ) -> None:
        self._shards, self._offsets = shards, offsets
        self._sizes = np.bincount(groups)
        self._turns = _turns(self._sizes, temper)
        self._groups = groups
        self._places = _places(groups, self._sizes, seed)
        self._passes = (-1, np.zeros(1, np.int64))  # of the epoch that was asked for last

    def entries(self, epoch: int) -> Entries:
        """What ``epoch`` shows: every sample that it shows, then all that it shows twice, and so on.

        Copies are apart in the list, so that no two of them share a block.
        """
        copies = self._seen(epoch + 1) - self._seen(epoch)
        passes = [
            np.flatnonzero(copies > number).astype(np.int32) for number in range(int(copies.max(initial=0)))
        ]
        samples = np.concatenate(passes) if passes else np.zeros(0, np.int32)
        self._passes = epoch, np.cumsum([len(one) for one in passes])
        return Entries(len(samples), samples, block_starts(self._shards[samples], self._offsets[samples]))

    def earlier(self, epoch: int, entries: Int64s, samples: Int64s) -> Int64s:
        """How often the samples at ``entries`` of ``epoch`` were shown before them."""
        if self._passes[0] != epoch:
            self.entries(epoch)
        copy = np.searchsorted(self._passes[1], entries, side="right")
        return self._seen(epoch, samples) + copy

    def expected(self) -> npt.NDArray[np.float64]:
        """How often a sample is seen in an epoch, on average, by group."""
        return self._turns / self._sizes

    def _seen(self, epoch: int, samples: Int64s | slice = slice(None)) -> Int64s:
        """How often each sample was shown before ``epoch``: how often the circle passed its place."""
        group = self._groups[samples]
        rounds, rest = np.divmod(epoch * self._turns, np.maximum(self._sizes, 1))
        seen: Int64s = rounds[group] + (self._places[samples] < rest[group])
        return seen


def _turns(sizes: Int64s, temper: float) -> Int64s:
    """Samples an epoch by group; they add up to all samples, and each is within 1 of its share."""
    weights = [math.pow(size, temper) if size else 0.0 for size in sizes.tolist()]
    whole = math.fsum(weights)
    ends = [
        round(math.fsum(weights[: number + 1]) / whole * int(sizes.sum())) for number in range(len(weights))
    ]
    bounds = np.array([0, *ends], np.int64)
    turns: Int64s = bounds[1:] - bounds[:-1]
    return turns


def _places(groups: npt.NDArray[np.int32], sizes: Int64s, seed: int) -> npt.NDArray[np.int32]:
    """A place on its group's circle for each sample, each place once: r -> (a r + b) mod n, a prime to n."""
    by_group = np.argsort(groups.astype(np.uint16) if len(sizes) <= 1 << 16 else groups, kind="stable")
    rank = np.empty(len(groups), np.int64)
    firsts = np.cumsum(sizes) - sizes
    rank[by_group] = np.arange(len(groups)) - np.repeat(firsts, sizes)
    factors = np.array([_factor(size, seed, group) for group, size in enumerate(sizes.tolist())], np.int64)
    shifts = below(mixed(seed, _CIRCLES, np.arange(len(sizes)), 1), np.maximum(sizes, 1))
    places: npt.NDArray[np.int32] = ((rank * factors[groups] + shifts[groups]) % sizes[groups]).astype(
        np.int32
    )
    return places


def _factor(size: int, seed: int, group: int) -> int:
    """A number prime to ``size``, near a random one."""
    start = int(below(mixed(seed, _CIRCLES, group, 0), max(size, 1))[0])
    return next((start + more for more in range(size) if math.gcd(start + more, size) == 1), 1)
