"""Which byte ranges of shards to read for a set of samples: few, long, and almost nothing that is not needed."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

MAX_BYTES = 4 << 20
MAX_WASTE = 0.04  # of a range's wanted bytes may be read beside them, to save requests


@dataclass(slots=True)
class ByteRange:
    """Bytes [start, stop) of shard number ``shard``; ``members``: places of its samples in what was asked for."""

    shard: int
    start: int
    stop: int
    wanted: int
    members: list[int] = field(default_factory=list)


def plan(
    shards: npt.NDArray[np.int32], offsets: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64]
) -> list[ByteRange]:
    """Ranges that hold samples (their shards, offsets and sizes, in the order of need), first needed first.

    Neighbours are read together up to ``MAX_BYTES``, and across a gap where all gaps of a range stay within
    ``MAX_WASTE``. A sample that is asked for twice is read once.
    """
    found: list[ByteRange] = []
    storage = np.lexsort((offsets, shards))
    for place, shard, start, size in zip(
        storage.tolist(),
        shards[storage].tolist(),
        offsets[storage].tolist(),
        sizes[storage].tolist(),
        strict=True,
    ):
        if found and _fits(found[-1], shard, start, size):
            last = found[-1]
            last.wanted += max(start + size - max(start, last.stop), 0)
            last.stop = max(last.stop, start + size)
            last.members.append(place)
        else:
            found.append(ByteRange(shard, start, start + size, size, [place]))
    return sorted(found, key=lambda one: min(one.members))


def _fits(last: ByteRange, shard: int, start: int, size: int) -> bool:
    if last.shard != shard:
        return False
    if start + size <= last.stop:
        return True
    read, wanted = start + size - last.start, last.wanted + size
    return read <= MAX_BYTES and read <= wanted * (1 + MAX_WASTE)
