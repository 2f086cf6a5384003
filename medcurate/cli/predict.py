"""The verb that segments one image or volume."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medcurate.errors import ConfigError
from medcurate.train.entry import packages_needed


def register(app: typer.Typer) -> None:
    """Add the verb to ``app``."""
    app.command()(predict)


def predict(
    image: Annotated[
        Path, typer.Argument(help="Picture, NIfTI, NRRD or MetaImage file, or folder of a DICOM series.")
    ],
    checkpoint: Annotated[
        str, typer.Option(help="Run or checkpoint folder; or .pth, .safetensors of SAM, SAM-Med2D, MedSAM.")
    ],
    box: Annotated[
        list[str] | None, typer.Option(metavar="X0,Y0,X1,Y1", help="Pixels of the image; one object a box.")
    ] = None,
    point: Annotated[
        list[str] | None,
        typer.Option(metavar="X,Y[,LABEL]", help="Label 1 inside (default), 0 outside; all of one object."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Mask: .png, or .nii.gz for volumes.", show_default="NAME-mask"),
    ] = None,
    overlay: Annotated[
        Path | None, typer.Option(help="Draw the mask over the image to this PNG file.")
    ] = None,
    slice_: Annotated[
        int | None,
        typer.Option("--slice", min=0, help="Of a volume, from 0: the one that the prompts are on."),
    ] = None,
    axis: Annotated[
        str,
        typer.Option(help="Canonical axis of the slices: x, y or z.", show_default="of the largest spacing"),
    ] = "",
    one_slice: Annotated[bool, typer.Option("--one-slice", help="Do not go on to the other slices.")] = False,
    margin: Annotated[
        int, typer.Option(min=0, help="Pixels by which a slice's box is widened for its neighbour.")
    ] = 2,
    stop_iou: Annotated[
        float, typer.Option(min=0, max=1, help="End where the predicted IoU of a slice is below.")
    ] = 0.5,
    intensity: Annotated[
        str,
        typer.Option(
            help="clip:LOW:HIGH, window:LEVEL:WIDTH, percentiles:LOW:HIGH, minmax or rgb.",
            show_default="that of the training data",
        ),
    ] = "",
    modality: Annotated[
        str, typer.Option(help="Which of the training data's intensity rules: ct, mr, …")
    ] = "",
    recipe: Annotated[
        str, typer.Option(help="Train recipe that names the model of a .pth or .safetensors file.")
    ] = "",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Segment an image, or an object through the slices of a volume, from boxes and points.

    Planes are shown as in a dataset: axial rows from anterior to posterior, columns from the patient's right to left.
    """
    with packages_needed("prediction"):
        from medcurate.prediction.run import Options
        from medcurate.prediction.run import predict as run
    done = run(
        Options(
            path=image, checkpoint=checkpoint, recipe=recipe, out=out, overlay=overlay, slice_index=slice_, axis=axis,
            boxes=tuple(_numbers("--box", text, (4,)) for text in box or ()),
            points=tuple(_numbers("--point", text, (2, 3)) for text in point or ()),
            one_slice=one_slice, margin_px=margin, stop_iou=stop_iou, intensity=intensity, modality=_modality(modality),
            device=device,
        )
    )  # fmt: skip
    for number, (pixels, iou) in enumerate(zip(done.pixels, done.iou, strict=True), 1):
        typer.echo(f"object {number}: {pixels:,} pixels, predicted IoU {iou:.2f}")
    for path in done.written:
        typer.echo(f"written: {path}", err=True)


def _modality(text: str) -> str:
    """``text``, which a rule may exist for: a wrong name would take the default's grey unnoticed."""
    from medcurate.library import ontology

    known = ontology().modalities
    if text and text not in known:
        raise ConfigError(f'--modality "{text}" is unknown; known: {", ".join(sorted(known))}')
    return text


def _numbers(option: str, text: str, counts: tuple[int, ...]) -> tuple[float, ...]:
    try:
        values = tuple(float(word) for word in text.split(","))
    except ValueError:
        values = ()
    if len(values) not in counts or (len(values) == 3 and values[2] not in {0, 1}):
        shape = "x0,y0,x1,y1" if counts == (4,) else "x,y or x,y,label with label 1 (inside) or 0 (outside)"
        raise ConfigError(f'{option} "{text}": give {shape}')
    return values
