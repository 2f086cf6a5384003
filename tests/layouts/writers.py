"""Readers backwards: from arrays to files of a format. One function a kind, in ``WRITERS``.

Arrays are (planes, rows, columns), colour with three more, channels of one file with one more at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK
import tifffile
from dicom_kit import dicom_bytes, enhanced, instance, series
from PIL import Image
from pydicom.uid import generate_uid

SPACING_MM = (1.0, 1.0, 3.0)  # column, row, plane


@dataclass(frozen=True)
class Piece:
    """One image or label that goes to a file; ``entry``: which one, where the file holds many."""

    array: np.ndarray
    is_label: bool
    entry: str = ""
    key: str = ""  # of [labels] where every class has its own file, or the channel
    dimensions: int = 3


@dataclass(frozen=True)
class File:
    """All that one file holds, and the options of its reader."""

    path: Path  # of the file, or of the folder of a series
    is_folder: bool
    pieces: Sequence[Piece]
    options: Mapping[str, Any]

    @property
    def array(self) -> np.ndarray:
        (piece,) = self.pieces
        return piece.array


def _voxels(array: np.ndarray) -> np.ndarray:
    """(columns, rows, planes[, channels])."""
    return np.swapaxes(array, 0, 2)


def nifti(file: File) -> None:
    """.nii, .nii.gz, or .hdr with .img; RAS+ from LPS axes."""
    voxels = _voxels(file.array)
    voxels = voxels.astype(np.int32) if voxels.dtype == np.int64 else voxels
    affine = np.diag([-SPACING_MM[0], -SPACING_MM[1], SPACING_MM[2], 1])
    kind = nib.Nifti1Pair if file.path.name.endswith((".hdr", ".img")) else nib.Nifti1Image
    nib.save(kind(np.ascontiguousarray(voxels), affine), file.path)


def itk(file: File) -> None:
    """MetaImage and NRRD, as ITK writes them."""
    array = file.array
    image = SimpleITK.GetImageFromArray(array, isVector=array.ndim == 4)
    image.SetSpacing(SPACING_MM)
    SimpleITK.WriteImage(image, str(file.path))


def raster(file: File) -> None:
    """By the name's ending; what has none of these is PNG."""
    piece, options = file.pieces[0], file.options
    if options.get("stack"):
        _tiff(file.path, piece.array, options)
        return
    pixels = piece.array[0]
    if options.get("grey") and pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    ending = file.path.suffix.lower()
    if ending in {".tif", ".tiff"}:
        _tiff(file.path, pixels, options)
    elif piece.is_label and options.get("palette") == "indices":
        _palette(pixels).save(file.path, "GIF" if ending == ".gif" else "PNG")
    else:
        _save(pixels, file.path, ending)


def _tiff(path: Path, pixels: np.ndarray, options: Mapping[str, Any]) -> None:
    grey = "miniswhite" if options.get("white_is_zero") == "keep" else "minisblack"
    colour = pixels.ndim == (4 if options.get("stack") else 3)
    tifffile.imwrite(path, pixels, photometric="rgb" if colour else grey)


def _palette(indices: np.ndarray) -> Image.Image:
    image = Image.fromarray(indices.astype(np.uint8), "P")
    image.putpalette([value for index in range(256) for value in (index, 255 - index, 7 * index % 256)])
    return image


_FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".bmp": "BMP", ".gif": "GIF", ".ppm": "PPM", ".pgm": "PPM"}


def _save(pixels: np.ndarray, path: Path, ending: str) -> None:
    image = Image.fromarray(pixels)
    kind = _FORMATS.get(ending, "PNG")
    if kind == "PPM" and ending == ".ppm":
        image = image.convert("RGB")
    more = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    image.save(path, kind, **more)


def dicom(file: File) -> None:
    """A folder of one plane a file, an enhanced file of all planes, or one flat image."""
    piece = file.pieces[0]
    uid = file.options.get("series_uid") or generate_uid(entropy_srcs=[str(file.path)])
    voxels = _voxels(piece.array)
    if file.is_folder:
        for number, dataset in enumerate(series(voxels, SeriesInstanceUID=uid)):
            # The file's name says nothing of the plane's place.
            (file.path / f"{9 - number:04d}.dcm").write_bytes(dicom_bytes(dataset))
    elif piece.dimensions == 3:
        order = list(range(voxels.shape[2]))
        whole = enhanced(voxels, order, SeriesInstanceUID=uid)
        scale = whole.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence[0]
        scale.RescaleSlope, scale.RescaleIntercept = 1, 0
        file.path.write_bytes(dicom_bytes(whole))
    else:
        flat = instance(piece.array[0], PixelSpacing=[0.2, 0.2], SeriesInstanceUID=uid)
        file.path.write_bytes(dicom_bytes(flat))


WRITERS: dict[str, Callable[[File], None]] = {
    "dicom": dicom,
    "metaimage": itk,
    "nifti": nifti,
    "nrrd": itk,
    "raster": raster,
}


def write(reader: str, file: File) -> None:
    """Write ``file`` so that ``reader`` reads its pieces."""
    assert reader in WRITERS, f"reader {reader}: add its layout to tests/layouts/writers.py"
    (file.path if file.is_folder else file.path.parent).mkdir(parents=True, exist_ok=True)
    WRITERS[reader](file)
