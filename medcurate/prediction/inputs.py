"""An image or volume from a file or a DICOM folder, as a build would make samples of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medcurate.config.recipe import Rgb
from medcurate.errors import CaseRejected, ConfigError
from medcurate.inspection.survey import reader_of
from medcurate.prediction.intensity import choose_rule
from medcurate.readers import READERS
from medcurate.readers.files import CaseFiles
from medcurate.registry import load
from medcurate.stages.intensity import scale_for
from medcurate.stages.orient import Orientation, canonical, canonical_spacing_mm, orientation, stored
from medcurate.stages.planes import Axis, place_back, planes, resolve_axes
from medcurate.types import Volume

VOLUME_BYTES = 4 << 30  # of one decoded array
_DICOM_MARK, _DICOM_MARK_AT = b"DICM", 128  # DICOM PS3.10 7.1
_OPTIONS = {"dicom": {"instance_numbers": "any"}}  # a part of a series may be asked about
AXES: tuple[Axis, ...] = ("x", "y", "z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is predicted on.

    ``stack``: uint8 (n, H, W) or (n, H, W, 3), a view: planes along ``axis`` as a dataset shows them, or one picture
    (``axis`` None). ``affine`` (4, 4): of the file's own voxels to RAS+ mm, None for pictures.
    """

    stack: npt.NDArray[np.uint8]
    axis: Axis | None
    affine: npt.NDArray[np.float64] | None = None
    axes: Orientation | None = None

    def as_stored(self, labels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Labels (n, H, W) of ``stack`` on the file's own grid: (I, J, K), or (H, W) of a picture."""
        if self.axis is None or self.axes is None:
            return np.asarray(labels[0])
        return np.ascontiguousarray(stored(place_back(labels, self.axis), self.axes))


def read_subject(
    path: Path, *, axis: str = "", intensity: str = "", modality: str = "", of_training: Mapping[str, Any]
) -> Subject:
    """Read ``path``: a picture, NIfTI, NRRD or MetaImage file, or a folder of one DICOM series.

    ``axis``: x, y or z of the volume's canonical axes, "" for the one of the largest spacing. ``intensity``,
    ``modality`` and ``of_training`` as for ``choose_rule``. Raises ConfigError, naming the file.
    """
    try:
        volume = _read(path)
        picture = volume.affine is None
        rule = choose_rule(
            intensity, modality, of_training, picture=picture and volume.voxels.dtype == np.uint8
        )
        if not picture and volume.voxels.ndim > 3 and not isinstance(rule, Rgb):
            count = volume.voxels.shape[3]
            raise ConfigError(
                f"{path}: {count} values a voxel, frames or channels; give a file of one of them."
            )
        pixels = scale_for(volume, rule).grey(volume.voxels)
    except CaseRejected as error:
        raise ConfigError(f"{path}: {error.detail} ({error.reason}).") from error
    if volume.affine is None:
        return Subject(stack=pixels[np.newaxis], axis=None)
    return _placed(path, pixels, volume.affine, axis)


def _placed(path: Path, pixels: npt.NDArray[np.uint8], affine: npt.NDArray[np.float64], axis: str) -> Subject:
    try:
        axes = orientation(affine)
    except CaseRejected as error:
        raise ConfigError(f"{path}: {error.detail} ({error.reason}).") from error
    chosen = _axis(axis) or resolve_axes(("out-of-plane",), canonical_spacing_mm(affine, axes))[0]
    return Subject(stack=planes(canonical(pixels, axes), chosen), axis=chosen, affine=affine, axes=axes)


def _axis(text: str) -> Axis | None:
    for known in AXES:
        if text == known:
            return known
    if text:
        raise ConfigError(f'--axis "{text}" is unknown; known: {", ".join(AXES)}')
    return None


def _read(path: Path) -> Volume:
    """The whole image. Raises CaseRejected, ConfigError."""
    if path.is_dir():
        kind, root, paths = "dicom", path, _series(path)
    else:
        if not path.is_file():
            raise ConfigError(f"{path}: no such file")
        kind, root, paths = _reader_of(path), path.parent, [Path(path.name)]
    if not kind:
        raise ConfigError(
            f"{path}: no reader knows this ending; give NIfTI, NRRD, MetaImage, DICOM or a picture."
        )
    reader = load(READERS, kind, "reader")
    options = reader.Options(**_OPTIONS.get(kind, {}))
    volume: Volume = reader.read(CaseFiles(root, VOLUME_BYTES), paths, options)
    return volume


def _series(folder: Path) -> list[Path]:
    """Names of the DICOM files in ``folder``. Raises ConfigError where one is none, or there is none."""
    visible = (path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith("."))
    found = [path for path in visible if _reader_of(path) == "dicom"]
    if not found:
        raise ConfigError(f"{folder}: no DICOM file in this folder; give the folder of one series.")
    for path in found:
        if not _is_marked(path):
            raise ConfigError(
                f"{path}: is no DICOM file, or damaged; leave nothing but one series in the folder."
            )
    return [Path(path.name) for path in found]


def _reader_of(path: Path) -> str:
    """The reader of a file, "" where none is known. DICOM files are often named by numbers with dots."""
    return reader_of(path.name) or ("dicom" if _is_marked(path) else "")


def _is_marked(path: Path) -> bool:
    with path.open("rb") as stream:
        stream.seek(_DICOM_MARK_AT)
        return stream.read(len(_DICOM_MARK)) == _DICOM_MARK
