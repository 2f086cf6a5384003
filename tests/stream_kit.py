"""What the tests of the stream share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from kit import pieces, write_dataset

from medcurate.train.config.data import DataTable
from medcurate.train.stream.open import open_stream
from medcurate.train.stream.stream import Stream
from medcurate.train.types import Batch

SIDE, BATCH, SEED = 32, 6, 5


def small_dataset(folder: Path, count: int = 120, size: int = 48) -> Path:
    """Half of ``count`` samples are for training: 60 on 8 shards."""
    return write_dataset(folder, pieces(count, size=size), per_shard=8)


def stream(dataset: str | Path, cache: Path, data: DataTable | None = None, **options) -> Stream:
    defaults = {"side": SIDE, "seed": SEED, "batch_images": BATCH, "cache": cache}
    return open_stream(dataset, data or DataTable(masks_per_image=2), **(defaults | options))


def taken(source: Stream, count: int) -> list[Batch]:
    with source:
        return [next(source) for _ in range(count)]


def joined_keys(batches: list[Batch]) -> list[str]:
    """Keys in their order, without those of empty rows."""
    return [key for batch in batches for key in batch.keys if key]


def content(batch: Batch) -> tuple:
    """All of a batch that can be compared, without its empty rows."""
    rows = [row for row, key in enumerate(batch.keys) if key]
    tensors = (batch.images, batch.masks, batch.valid, batch.annotations, batch.seeds)
    return (
        batch.number,
        batch.samples,
        batch.seed,
        tuple(batch.keys[row] for row in rows),
        tuple(batch.frames[row] for row in rows),
        tuple(tensor[rows].numpy().tobytes() for tensor in tensors),
    )


def global_content(ranks: list[Batch]) -> tuple:
    """``content`` of the global batch that ranks hold in parts."""
    parts = [content(batch) for batch in ranks]
    assert len({part[:3] for part in parts}) == 1
    assert len({tuple(batch.images.shape) for batch in ranks}) == 1, "ranks do not do the same steps"
    lists = [sum((part[place] for part in parts), ()) for place in (3, 4)]
    tensors = tuple(b"".join(part[5][place] for part in parts) for place in range(5))
    return (*parts[0][:3], *lists, tensors)


def grey(image: np.ndarray) -> np.ndarray:
    """(H, W) to (3, H, W)."""
    return np.repeat(image[None], 3, axis=0)
