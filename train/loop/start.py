"""How a run begins: what it was asked, which checkpoint it goes on from, and its stream."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from medcurate.errors import ConfigError
from medcurate.train.config.recipe import TrainRecipe
from medcurate.train.embed.store import EmbeddingStore, default_folder, identity_of
from medcurate.train.loop import checkpoint
from medcurate.train.loop.session import Length, Session
from medcurate.train.loop.world import World
from medcurate.train.stream.open import open_stream
from medcurate.train.stream.state import StreamState
from medcurate.train.stream.stream import Stream
from medcurate.train.types import Batch

SEEN_S = 60.0  # NFS keeps what it knows of a folder for so long (acdirmax)
_POLL_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a run is started with beside its recipe; nothing of it changes what is learnt but by rounding.

    ``resume``: "auto" continues from the last checkpoint in ``out`` where there is one; "never" refuses then.
    ``workers``: processes that read data, for each training process. ``tools``: see ``Logs``.
    """

    data: str
    out: Path
    resume: Literal["auto", "never"] = "auto"
    workers: int = 2
    device: str = "auto"
    tools: tuple[str, ...] = ()


def found_by_all(options: Options, world: World) -> Path | None:
    """The checkpoint that the run continues from; None at its beginning. Raises ConfigError."""
    found = checkpoint.latest(options.out) if world.leads else None
    (told,) = world.total([checkpoint.batches_of(found) + 1 if found else 0])
    if not told:
        others = [path.name for path in checkpoint.complete(options.out)]
        world.require_same(" ".join(others), f"folder of checkpoints, {options.out}")
        return None
    # Machines keep lists of a shared folder for a while: only the leader's counts.
    found = checkpoint.folder_of(options.out, told - 1)
    world.require_same(_seen(found, 0 if world.leads else SEEN_S), f"checkpoint {found}")
    if options.resume == "never":
        raise ConfigError(
            f"{options.out}: holds checkpoints of an earlier run; give another --out, or --resume auto to continue it."
        )
    return found


def _seen(folder: Path, within_s: float) -> str:
    """The record of the checkpoint in ``folder`` once this machine sees it; empty where it does not ``within_s``."""
    until = time.monotonic() + within_s
    while True:
        try:
            return (folder / checkpoint.STATE_FILE).read_text(encoding="utf-8")
        except FileNotFoundError:
            if time.monotonic() >= until:
                return ""
        time.sleep(_POLL_S)


def opened_stream(session: Session, options: Options) -> Stream:
    """The batches that come after those that ``session`` has done. Raises ConfigError and StorageError."""
    recipe, world, done = session.recipe, session.world, session.state.stream
    return open_stream(
        options.data,
        recipe.data,
        side=recipe.model.image_side,
        seed=recipe.run.seed,
        batch_images=recipe.run.batch_images,
        rank=world.rank,
        world=world.size,
        workers=options.workers,
        start=StreamState.from_dict(done) if done else StreamState(seed=recipe.run.seed),
        channel_order=recipe.model.channel_order,
        embeddings=_embeddings(session, options),
    )


def _embeddings(session: Session, options: Options) -> EmbeddingStore | None:
    """The cached embeddings of this encoder, where the recipe reads them. Raises ConfigError where there are none."""
    if not session.recipe.data.embeddings:
        return None
    return EmbeddingStore(default_folder(options.data), identity_of(session.sam, session.recipe))


def length_of(recipe: TrainRecipe, stream: Stream) -> Length:
    """How long a run is. Raises ConfigError where nothing is selected."""
    run, per_epoch = recipe.run, stream.batches_per_epoch
    total = run.batches or run.epochs * per_epoch
    if not total:
        raise ConfigError("no sample fits the recipe's data.where and data.split")
    return Length(per_epoch, total, run.batch_images, stream.samples_per_epoch)


def moved(batch: Batch, device: torch.device) -> Batch:
    """``batch`` with its tensors on ``device``."""
    tensors = {
        name: value.to(device, non_blocking=True)
        for name in ("images", "masks", "valid", "annotations", "seeds", "embeddings")
        if (value := getattr(batch, name)) is not None
    }
    return replace(batch, **tensors)
