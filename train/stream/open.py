"""``open_stream``: a dataset as batches, in the same order for any number of ranks and workers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import pyarrow as pa

from medcurate.errors import ConfigError
from medcurate.places import cache_folder
from medcurate.storage import Location, locate
from medcurate.train.config.data import DataTable
from medcurate.train.geometry import PADDING, Colour
from medcurate.train.stream.decode import Rules
from medcurate.train.stream.index import Index
from medcurate.train.stream.making import Reading, Task
from medcurate.train.stream.mirror import Mirror
from medcurate.train.stream.order import lanes_for
from medcurate.train.stream.pool import StartMethod
from medcurate.train.stream.select import open_index
from medcurate.train.stream.share import Share
from medcurate.train.stream.state import StreamState
from medcurate.train.stream.stream import Embeddings, Stream

LOCAL_AHEAD_BYTES = 4 << 20  # a worker
REMOTE_AHEAD_BYTES = 32 << 20  # a rank
_REMOTE_THREADS = 8  # a rank, at least 2 a worker


def open_stream(  # noqa: PLR0913  # what the recipe, the launcher and the checkpoint say
    dataset: str | Path,
    data: DataTable,
    *,
    side: int,
    seed: int,
    batch_images: int,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    start: StreamState | None = None,
    cache: Path | None = None,
    start_method: StartMethod = "fork",
    channel_order: Literal["rgb", "bgr"] = "rgb",
    embeddings: Embeddings | None = None,
) -> Stream:
    """Batches of ``dataset`` (folder or URL) as ``data`` says, for rank ``rank`` of ``world``.

    ``side``: of the model's square, pixels. ``batch_images``: images of a global batch, on all ranks.
    ``workers``: processes of this rank; 0 makes batches in this one. ``start``: a state to go on from, by any
    ``world``, ``workers`` and ``batch_images``; its seed counts, and it must be of the same selection.
    ``channel_order``: the model's, which decides what stands around images that do not fill the square.
    ``cache``: folder of indexes and of the local copy of remote shards (default: the user's cache folder).
    ``embeddings``: where ``data.embeddings`` says so, what batches bring in place of images.
    Raises ConfigError (no dataset, nothing selected, another dataset than the state's), StorageError.
    """
    where, folder = locate(dataset), cache or cache_folder() / "train"
    index = open_index(
        where, split=data.split, where=data.where, by=data.weights.by, cache=folder / "indexes"
    )
    if embeddings:
        embeddings.require(index.keys, pa.array(index.digest))
    state = _state_of(index, data, seed=seed, batch_images=batch_images, start=start)
    share = Share(
        batch_images=batch_images, lanes=state.lanes, rank=rank, world=world, drop_last=data.drop_last
    )
    if share.drop_last and len(index) < batch_images:
        raise ConfigError(f"{where}: {len(index)} images are selected: fewer than a batch of {batch_images}.")
    task = Task(
        dataset=where,
        index=index,
        temper=data.weights.temper if data.weights.by else 1.0,
        rules=_rules(data, side, state.seed, PADDING[channel_order]),
        share=share,
        state=state,
        on_bad_sample=data.on_bad_sample,
        reading=_reading(where, data, folder / "shards" / index.manifest, workers),
    )
    return Stream(
        task, workers=workers, slots=data.prefetch, start_method=start_method, embeddings=embeddings
    )


def _rules(data: DataTable, side: int, seed: int, padding: Colour) -> Rules:
    return Rules(
        side=side,
        masks_per_image=data.masks_per_image,
        masks=data.masks,
        repeat_masks=data.repeat_masks,
        fit=data.fit,
        interpolation=data.interpolation,
        padding=padding,
        images=not data.embeddings,
        seed=seed,
    )


def _reading(dataset: Location, data: DataTable, mirror: Path, workers: int) -> Reading:
    """Local bytes come when they are needed, remote ones ahead, by threads."""
    if dataset.is_local:
        return Reading(ahead_bytes=LOCAL_AHEAD_BYTES)
    share = max(workers, 1)
    ahead, threads = REMOTE_AHEAD_BYTES // share, max(_REMOTE_THREADS // share, 2)
    if not data.cache_bytes:
        return Reading(ahead_bytes=ahead, threads=threads)
    Mirror(mirror, data.cache_bytes).recount()
    return Reading(ahead_bytes=ahead, threads=threads, mirror=mirror, mirror_bytes=data.cache_bytes)


def _state_of(
    index: Index, data: DataTable, *, seed: int, batch_images: int, start: StreamState | None
) -> StreamState:
    """The state to start from, with what it is about. Raises ConfigError where that is something else."""
    start = start or StreamState(seed=seed)
    weights = f"{','.join(data.weights.by)} {data.weights.temper}" if data.weights.by else ""
    about = {"manifest": index.manifest, "selection": f"{index.selection} {weights}".strip()}
    for name, now in about.items():
        then = getattr(start, name)
        if then and then != now:
            raise ConfigError(
                f"the checkpoint was made with another {name} ({then[:12]}…, now {now[:12]}…): the order of samples "
                "would change in the middle of an epoch. Resume with the same dataset, split, where and weights, "
                "or start a new run from its weights."
            )
    lanes = start.lanes or lanes_for(batch_images)
    return replace(start, lanes=lanes, manifest=about["manifest"], selection=about["selection"])
