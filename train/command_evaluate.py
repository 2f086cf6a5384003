"""The ``evaluate`` verb."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Annotated

import typer

from medcurate.commit import require_picture_name
from medcurate.errors import ConfigError
from medcurate.progress import configure
from medcurate.train.entry import packages_needed


def evaluate(
    dataset: Annotated[str, typer.Argument(help="Folder or URL (https, s3) of a dataset.")],
    checkpoint: Annotated[
        str, typer.Option(help="Run or checkpoint folder; or .pth, .safetensors of SAM, SAM-Med2D, MedSAM.")
    ],
    prompts: Annotated[
        str, typer.Option(help="box, and after how many points masks are scored.")
    ] = "box,1,3,5",
    split: Annotated[str, typer.Option(help="train, val, test or all.")] = "test",
    where: Annotated[str, typer.Option(help="SQL condition on the manifest.")] = "",
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of scores; medcurate query reads it.", show_default="scores/ and the split"
        ),
    ] = None,
    recipe: Annotated[
        str, typer.Option(help="Train recipe that names the model of a .pth or .safetensors file.")
    ] = "",
    against: Annotated[
        list[str] | None,
        typer.Option(
            help="Another checkpoint, untrained, or filled-box, in the same tables; may be repeated."
        ),
    ] = None,
    against_recipe: Annotated[
        str,
        typer.Option(help="Train recipe of --against files.", show_default="that of --recipe, or the run's"),
    ] = "",
    replay: Annotated[
        Path | None, typer.Option(help="Give the prompts of this prompts.parquet again.")
    ] = None,
    allow_leaks: Annotated[
        bool,
        typer.Option("--allow-leaks", help="Score patients that were trained on; the report counts them."),
    ] = False,
    picture: Annotated[
        Path | None, typer.Option(help="Draw predictions beside the truth to this PNG file.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Masks that the decoder sees together.")] = 32,
    tolerance: Annotated[float, typer.Option(min=0, help="Of the surface distance, mm.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Another seed draws other points.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    processes: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Processes of this machine that share the work; they change no score.",
            show_default="one a GPU; on a processor as many as are of use",
        ),
    ] = None,
    log_format: Annotated[
        str, typer.Option(help="Progress on standard error: auto, plain or json.")
    ] = "auto",
) -> None:
    """Score a checkpoint on a dataset: Dice, IoU and NSD by prompt, source, modality and organ, in 2D and 3D.

    Killed, the same command goes on where it was.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("WORLD_SIZE") != "1":
        raise ConfigError("evaluate starts processes of its own: run it without torchrun (--processes)")
    configure(log_format)
    with packages_needed("evaluation"):
        from medcurate.train.evaluation.run import evaluate as run
        from medcurate.train.evaluation.run import show_evaluation
        from medcurate.train.evaluation.types import Options
    if not math.isfinite(tolerance):
        raise ConfigError(f"--tolerance {tolerance}: give a number of millimetres")
    if split not in {"train", "val", "test", "all"}:
        raise ConfigError(f'--split "{split}" is unknown; known: train, val, test, all')
    if picture:
        require_picture_name("--picture", picture)
    folder = out or Path("scores") / split
    found = run(
        Options(
            data=dataset,
            checkpoint=checkpoint,
            out=folder,
            recipe=recipe,
            prompts=prompts,
            split="" if split == "all" else split,
            where=where,
            against=tuple(against or ()),
            against_recipe=against_recipe,
            replay=replay,
            allow_leaks=allow_leaks,
            picture=picture,
            masks_at_once=batch,
            tolerance_mm=tolerance,
            seed=seed,
            device=device,
            processes=processes or 0,
        )
    )
    show_evaluation(found)
    typer.echo(
        f'{folder}: scores of every mask; medcurate query {folder} "SELECT * FROM scores ORDER BY dice"'
    )
    if picture:
        typer.echo(f"written: {picture}", err=True)
