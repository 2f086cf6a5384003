"""What ``python -m medcurate.train.embed`` does: image embeddings of a dataset, computed once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from medcurate.errors import ConfigError
from medcurate.places import cache_folder
from medcurate.progress import configure
from medcurate.storage import locate
from medcurate.train.config.load import load_recipe
from medcurate.train.config.recipe import TrainRecipe
from medcurate.train.embed.store import default_folder, identity_of
from medcurate.train.embed.write import Embedding, Share
from medcurate.train.loop.world import own_device
from medcurate.train.model.build import build_sam
from medcurate.train.model.checkpoint import load_checkpoint
from medcurate.train.model.sam import Sam
from medcurate.train.place import own_place
from medcurate.train.stream.reading import Reader
from medcurate.train.stream.select import open_index


def embed(  # noqa: PLR0913  # one parameter an option
    recipe: Annotated[str, typer.Argument(help="Name of a train recipe, or path of a .toml file.")],
    data: Annotated[str, typer.Option(help="Dataset: folder, or https:// or s3:// URL.")],
    checkpoint: Annotated[
        str, typer.Option(help="Weights of the encoder, in place of the recipe's: .pth or .safetensors.")
    ] = "",
    split: Annotated[str, typer.Option(help="train, val, test or all.", show_default="the recipe's")] = "",
    out: Annotated[
        Path | None, typer.Option(help="Folder of embeddings.", show_default="DATASET.embeddings")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images that the encoder sees together.")] = 8,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    log_format: Annotated[
        str, typer.Option(help="Progress on standard error: auto, plain or json.")
    ] = "auto",
) -> None:
    """Write image embeddings for a recipe with ``data.embeddings``; run again to continue.

    Under torchrun every process makes its share.
    """
    configure(log_format)
    place = own_place()
    chosen = load_recipe(recipe)
    where = {"": chosen.data.split, "all": ""}.get(split, split)
    sam = _model(chosen, checkpoint or chosen.model.checkpoint, own_device(device, place.local_rank))
    index = open_index(
        locate(data), split=where, where=chosen.data.where, by=(), cache=cache_folder() / "train" / "indexes"
    )
    folder = out or default_folder(data).path
    identity = identity_of(sam, chosen)
    reader = Reader(locate(data), index, threads=4)
    share = Share(rank=place.rank, world=place.size)
    count = Embedding(sam, identity, index, reader, folder, batch=batch).run(share)
    reader.close()
    by = f" by process {place.rank} of {place.size}" if place.size > 1 else ""
    rest = "were there or are others'" if by else "were there"
    typer.echo(f"{folder / identity.id}: {count:,} images embedded{by}, {len(index) - count:,} {rest}")


def _model(recipe: TrainRecipe, checkpoint: str, device: torch.device) -> Sam:
    """The encoder in evaluation mode, on ``device``. Raises ConfigError."""
    if not checkpoint:
        raise ConfigError("embeddings of random weights serve nobody: give --checkpoint, or model.checkpoint")
    sam = build_sam(recipe.model)
    load_checkpoint(sam, checkpoint)
    sam.configure(precision=recipe.run.precision, compiled=recipe.run.compile)
    return sam.to(device).eval()
