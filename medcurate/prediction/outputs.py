"""Predicted labels as files: PNG for pictures, NIfTI with the input's affine for volumes, and a picture to look at."""

from __future__ import annotations

from pathlib import Path

import cv2
import nibabel
import numpy as np
import numpy.typing as npt

from medcurate.commit import committed, committed_path, require_picture_name, require_place
from medcurate.errors import ConfigError
from medcurate.format import png
from medcurate.inspection.survey import READER_OF, extension
from medcurate.prediction.inputs import Subject
from medcurate.train.prediction.overlay import colours, overlaid

NIFTI = (".nii", ".nii.gz")
_OVERLAY_PX = 768  # a smaller image is enlarged to about this


def default_name(path: Path, subject: Subject) -> str:
    """``<name>-mask.png``, or .nii.gz for volumes."""
    name = path.resolve().name if path.is_dir() else path.name
    ending = extension(name)
    stem = name.removesuffix(ending) if ending.lower() in READER_OF else name
    return f"{stem}-mask{'.png' if subject.axis is None else '.nii.gz'}"


def check_names(image: Path, out: Path, overlay: Path | None, subject: Subject) -> None:
    """Raise ConfigError unless the endings fit what will be written, and every file has a place of its own.

    Raises OutputError where nothing can be written there.
    """
    endings = (".png",) if subject.axis is None else NIFTI
    if not out.name.lower().endswith(endings):
        raise ConfigError(f"{out}: the mask of this input is written as {' or '.join(endings)}")
    if overlay:
        require_picture_name("--overlay", overlay)
    if overlay and overlay.resolve() == out.resolve():
        raise ConfigError(f"--overlay {overlay}: is where the mask is written; give another name.")
    for path in (out, overlay):
        if path and path.exists() and path.samefile(image):
            raise ConfigError(f"{path}: is the image itself, and is not overwritten; give another name.")
        if path:
            require_place(path)


def write_labels(path: Path, labels: npt.NDArray[np.uint8], subject: Subject, objects: int) -> None:
    """Commit labels (n, H, W) of ``subject``: 0 background, 1, 2, … ``objects``; the only one of a picture is 255."""
    own = subject.as_stored(labels)
    if subject.affine is None:
        with committed(path) as stream:
            stream.write(png.encode(np.ascontiguousarray(own * np.uint8(255 if objects == 1 else 1))))
        return
    image = nibabel.Nifti1Image(own, subject.affine)  # type: ignore[no-untyped-call]
    image.header.set_xyzt_units("mm")  # type: ignore[no-untyped-call]
    with committed_path(path) as temporary:
        nibabel.save(image, temporary)


def write_overlay(path: Path, image: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8]) -> None:
    """Commit a PNG of ``image``, uint8 (H, W) or (H, W, 3), with every label of (H, W) in its colour."""
    values = [int(value) for value in np.unique(labels) if value]
    scale = max(round(_OVERLAY_PX / max(image.shape[:2])), 1)
    palette = colours(max(values, default=0))
    picture = overlaid(
        image, [labels == value for value in values], [palette[value - 1] for value in values], scale
    )
    encoded, content = cv2.imencode(".png", picture[..., ::-1])
    if not encoded:
        raise ConfigError(f"{path}: the picture could not be encoded")
    with committed(path) as stream:
        stream.write(content.tobytes())
