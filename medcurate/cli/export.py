"""The verb that writes a trained model for other tools."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from medcurate.train.entry import packages_needed


class Format(StrEnum):
    """What a model can be written as."""

    pth = "pth"
    safetensors = "safetensors"
    onnx = "onnx"


def register(app: typer.Typer) -> None:
    """Add the verb to ``app``."""
    app.command()(export)


def export(
    checkpoint: Annotated[
        str, typer.Argument(help="Run or checkpoint folder; or .pth, .safetensors of SAM, SAM-Med2D, MedSAM.")
    ],
    format_: Annotated[
        Format,
        typer.Option(
            "--format", help="pth, safetensors: SAM's own layout; onnx: encoder and decoder in a folder."
        ),
    ] = Format.pth,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="File; of onnx, folder: one that is not there yet.",
            show_default="named after the checkpoint",
        ),
    ] = None,
    recipe: Annotated[
        str, typer.Option(help="Train recipe that names the model of a .pth or .safetensors file.")
    ] = "",
) -> None:
    """Write a trained model for other SAM tools, or for ONNX runtimes without torch."""
    with packages_needed("an export"):
        from medcurate.train.export.run import Options
        from medcurate.train.export.run import export as run
    for path in run(Options(checkpoint=checkpoint, format=format_.value, out=out, recipe=recipe)):
        typer.echo(f"written: {path}", err=True)
