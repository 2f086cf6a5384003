"""``predict``: from a file, a checkpoint and prompts to labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from medcurate.errors import ConfigError
from medcurate.prediction.inputs import Subject, read_subject
from medcurate.prediction.outputs import check_names, default_name, write_labels, write_overlay
from medcurate.progress import progress
from medcurate.train.loop.world import leave_cores
from medcurate.train.prediction.predictor import Predictor
from medcurate.train.prediction.slices import through_slices

MOST_OBJECTS = 255

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What ``medcurate predict`` is told; its help says what each means."""

    path: Path
    checkpoint: str
    boxes: tuple[tuple[float, ...], ...] = ()
    points: tuple[tuple[float, ...], ...] = ()
    recipe: str = ""
    out: Path | None = None
    overlay: Path | None = None
    slice_index: int | None = None
    axis: str = ""
    one_slice: bool = False
    margin_px: int = 2
    stop_iou: float = 0.5
    intensity: str = ""
    modality: str = ""
    device: str = "auto"


@dataclass(frozen=True, slots=True)
class Outcome:
    """``written``: files. ``pixels``: marked, by object; ``iou``: predicted by the model, of the prompted slice."""

    written: tuple[Path, ...]
    pixels: tuple[int, ...]
    iou: tuple[float, ...]


def predict(options: Options) -> Outcome:
    """Predict and write. Raises ConfigError, OutputError."""
    _check_prompts(options)
    predictor = Predictor.from_checkpoint(options.checkpoint, recipe=options.recipe, device=options.device)
    leave_cores(predictor.trained.sam.pixel_mean.device, 0)
    subject = read_subject(
        options.path,
        axis=options.axis,
        intensity=options.intensity,
        modality=options.modality,
        of_training=predictor.trained.intensity,
    )
    out = options.out or Path(default_name(options.path, subject))
    check_names(options.path, out, options.overlay, subject)
    index = _slice(options, subject)
    height, width = subject.stack.shape[1:3]
    _check_inside(options, height, width)
    predictor.set_volume(subject.stack)
    predictor.set_slice(index)
    masks, iou = _first(predictor, options)
    labels = np.zeros((len(subject.stack), height, width), np.uint8)
    for number, volume in enumerate(_followed(predictor, options, index, masks), 1):
        labels[volume] = number
    write_labels(out, labels, subject, len(masks))
    if options.overlay:
        write_overlay(options.overlay, np.ascontiguousarray(subject.stack[index]), labels[index])
    written = (out, options.overlay) if options.overlay else (out,)
    counts = tuple(int((labels == number).sum()) for number in range(1, len(masks) + 1))
    return Outcome(written, counts, tuple(float(value) for value in iou))


def _first(predictor: Predictor, options: Options) -> tuple[Bools, npt.NDArray[np.float32]]:
    """Masks bool (N, H, W) of the prompted slice and their predicted IoU."""
    if not options.points:
        return predictor.predict_boxes(options.boxes)
    masks, iou, _ = predictor.predict(
        point_coords=[point[:2] for point in options.points],
        point_labels=[int(point[2]) if len(point) == 3 else 1 for point in options.points],
        box=options.boxes[0] if options.boxes else None,
        multimask_output=predictor.trained.recipe.steps.multimask,
    )
    best = int(iou.argmax())
    return np.asarray(masks[best : best + 1], np.bool_), iou[best : best + 1]


def _followed(predictor: Predictor, options: Options, index: int, masks: Bools) -> list[Bools]:
    """Each object through the volume, bool (n, H, W)."""
    count = len(masks) * (predictor.volume_shape[0] - 1)
    if options.one_slice or not count:
        found = np.zeros((len(masks), *predictor.volume_shape), np.bool_)
        found[:, index] = masks
        return list(found)
    with progress("slices, at most", count, "slices") as shown:
        return [
            through_slices(
                predictor, index, mask,
                margin_px=options.margin_px, min_iou=options.stop_iou, advance=shown.advance,
            )
            for mask in masks
        ]  # fmt: skip


def _slice(options: Options, subject: Subject) -> int:
    count = len(subject.stack)
    if subject.axis is None:
        if options.slice_index is not None:
            raise ConfigError(f"{options.path}: a picture has no slices; leave --slice out")
        return 0
    if options.slice_index is None and count == 1:
        return 0
    if options.slice_index is None:
        raise ConfigError(
            f"{options.path}: a volume of {count} slices along {subject.axis}: say with --slice, from 0, which one the "
            "prompts are on"
        )
    if not 0 <= options.slice_index < count:
        raise ConfigError(
            f"--slice {options.slice_index}: the volume has {count} slices along {subject.axis}, from 0"
        )
    return options.slice_index


def _check_prompts(options: Options) -> None:
    if not options.boxes and not options.points:
        raise ConfigError("give at least one --box x0,y0,x1,y1 or --point x,y")
    if options.points and len(options.boxes) > 1:
        raise ConfigError("points belong to one object: with several --box no --point can be given")
    if len(options.boxes) > MOST_OBJECTS:
        raise ConfigError(f"{len(options.boxes)} boxes; at most {MOST_OBJECTS} fit into one mask file")


def _check_inside(options: Options, height: int, width: int) -> None:
    for x0, y0, x1, y1 in options.boxes:
        if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
            raise ConfigError(
                f"--box {_text((x0, y0, x1, y1))}: is not within the image of {width} x {height} pixels, "
                "or its corners are not x0 < x1 and y0 < y1"
            )
    for point in options.points:
        if not (0 <= point[0] < width and 0 <= point[1] < height):
            raise ConfigError(f"--point {_text(point)}: is not within the image of {width} x {height} pixels")


def _text(values: Sequence[float]) -> str:
    return ",".join(f"{value:g}" for value in values)
