"""Readers backwards: from arrays to files of a format. One function a kind, in ``WRITERS``.

Arrays are (planes, rows, columns), colour with three more, channels of one file with one more at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import nibabel as nib
import numpy as np
import SimpleITK
import tifffile
from dicom_kit import dicom_bytes, enhanced, instance, series
from PIL import Image
from pydicom.uid import generate_uid

from layouts import readings
from layouts.paint import Strip
from layouts.pieces import File, Piece

SPACING_MM = (1.0, 1.0, 3.0)  # column, row, plane


def _voxels(piece: Piece) -> np.ndarray:
    """(columns, rows, planes[, channels]), the axes grown to LPS unless the piece says otherwise."""
    voxels = np.swapaxes(piece.array, 0, 2)
    if piece.turned:
        axes = [next(at for at, pair in enumerate(("LR", "PA", "SI")) if way in pair) for way in piece.turned]
        voxels = voxels.transpose([*axes, *range(3, voxels.ndim)])
        flipped = [at for at, way in enumerate(piece.turned) if way not in "LPS"]
        voxels = np.flip(voxels, flipped)
    return np.moveaxis(voxels, 2, "ijk".index(piece.frames)) if piece.frames else voxels


def nifti(file: File) -> None:
    """.nii, .nii.gz, or .hdr with .img; RAS+ from LPS axes."""
    voxels = _frames(file.pieces) if file.pieces[0].entry else _voxels(file.pieces[0])
    voxels = voxels.astype(np.int32) if voxels.dtype == np.int64 else voxels
    affine = np.diag([-SPACING_MM[0], -SPACING_MM[1], SPACING_MM[2], 1])
    if file.pieces[0].on_dicom:
        affine = np.array([[-0.6, 0, 0, 10], [0, -0.8, 0, 20], [0, 0, 2.5, 30], [0, 0, 0, 1]])  # dicom_kit
    kind = nib.Nifti1Pair if file.path.name.endswith((".hdr", ".img")) else nib.Nifti1Image
    nib.save(kind(np.ascontiguousarray(voxels), affine), file.path)


def _frames(pieces: Sequence[Piece]) -> np.ndarray:
    """One file of several images on its fourth axis, where entries say; between them lie empty frames."""
    by_number = {int(piece.entry): _voxels(piece) for piece in pieces}
    first = next(iter(by_number.values()))
    empty = np.zeros_like(first)
    return np.stack([by_number.get(at, empty) for at in range(max(by_number) + 2)], axis=-1)


def itk(file: File) -> None:
    """MetaImage and NRRD, as ITK writes them; pictures with red, green and blue as planes where asked."""
    piece = file.pieces[0]
    if piece.dimensions == 2:
        planes = piece.array[0]
        array = np.moveaxis(planes, 2, 0) if file.options.get("channels") == "k" else planes
    else:
        array = np.swapaxes(_voxels(piece), 0, 2)
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(array), isVector=array.ndim == 4)
    image.SetSpacing(SPACING_MM[: image.GetDimension()])
    SimpleITK.WriteImage(image, str(file.path))


def raster(file: File) -> None:
    """By the name's ending; what has none of these is PNG."""
    piece, options = file.pieces[0], file.options
    if len(file.pieces) == 2:
        _save(_halves(file.pieces), file.path, file.path.suffix.lower())
        return
    if file.is_folder:
        for number, plane in enumerate(piece.array):
            _save(plane, file.path / f"{number}.png", ".png")  # natural order: 10 comes after 9
        return
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


def _halves(pieces: Sequence[Piece]) -> np.ndarray:
    """Image and label side by side, or one above the other, as their entries say; colour if either is."""
    coloured = any(piece.array.ndim == 4 for piece in pieces)
    by_entry = {
        piece.entry: np.repeat(piece.array[0][..., None], 3, axis=2)
        if coloured and piece.array.ndim == 3
        else piece.array[0]
        for piece in pieces
    }
    first = "left" if "left" in by_entry else "top"
    second = {"left": "right", "top": "bottom"}[first]
    halves = [by_entry[name].astype(np.uint8) for name in (first, second)]
    return np.concatenate(halves, axis=1 if first == "left" else 0)


def array(file: File) -> None:
    """.npy of rows, or .npz of arrays or of rows, with their spacing where a key names it."""
    found: dict[str, Any] = {}
    for piece in file.pieces:
        key, _, row = piece.entry.partition("[")
        key = key or piece.options.get("key", "")
        value = np.array(piece.key) if piece.is_text else _as_axes(piece)
        if row:
            found.setdefault(key, {})[int(row[:-1])] = value
        else:
            found[key] = value
        if spacing := piece.options.get("spacing_key"):
            found[spacing] = np.array(SPACING_MM if "k" in piece.options["axes"] else SPACING_MM[:2])
    arrays = {
        key: np.stack([value[row] for row in sorted(value)]) if isinstance(value, dict) else value
        for key, value in found.items()
    }
    if file.path.suffix == ".npz":
        np.savez_compressed(file.path, **arrays)
    else:
        np.save(file.path, arrays[""])


def _as_axes(piece: Piece) -> np.ndarray:
    """The array with the axes that the reader's options state."""
    axes = piece.options.get("axes", "hw")
    order = "ijkc" if "k" in axes else "hwc"
    whole = np.swapaxes(piece.array, 0, 2) if "k" in axes else piece.array[0]
    if "c" in axes and whole.ndim == len(order) - 1:
        whole = whole[..., None]
    return np.ascontiguousarray(whole.transpose([order.index(axis) for axis in axes]))


def polygon_text(file: File) -> None:
    """Outlines half a pixel around the strips."""
    options = file.options
    blocks = []
    for strip in file.pieces[0].strips:
        points = _outline(strip, options.get("pixel_centre", 0.5))
        if options.get("columns", "xy") == "yx":
            points = [(y, x) for x, y in points]
        blocks.append("\n".join(f"{first} {second}" for first, second in points))
    head = "head\n" * options.get("header_lines", 0)
    file.path.write_text(head + "\n\n".join(blocks) + "\n")


def polygon_xml(file: File) -> None:
    """ImageScope: an annotation a key, a region a strip."""
    centre = file.options.get("pixel_centre", 0.5)
    annotations = []
    for strip in file.pieces[0].strips:
        vertices = "".join(f'<Vertex X="{x}" Y="{y}"/>' for x, y in _outline(strip, centre))
        region = f'<Region Id="1" Type="0"><Vertices>{vertices}</Vertices></Region>'
        name = quoteattr(strip.key)
        annotations.append(f"<Annotation Name={name}><Regions>{region}</Regions></Annotation>")
    file.path.write_text(f"<Annotations>{''.join(annotations)}</Annotations>")


def _outline(strip: Strip, centre: float) -> list[tuple[float, float]]:
    """Corners (x, y) of ``strip``, half a pixel outside of its outer pixels' centres."""
    left, right = 2 + centre - 0.5, 2 + strip.width + centre - 0.5
    top, bottom = strip.top + centre - 0.5, strip.top + 2 + centre - 0.5
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


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
    """A folder of one plane a file, an enhanced file of all planes, or one flat image.

    An entry is what the headers of a series must say: modality, patient and UID.
    """
    piece = file.pieces[0]
    uid = file.options.get("series_uid") or generate_uid(entropy_srcs=[str(file.path)])
    said: dict[str, object] = {"SeriesInstanceUID": uid}
    if piece.entry:
        said = dict(readings.headers(piece.entry))
    voxels = _voxels(piece)
    if file.is_folder:
        for number, dataset in enumerate(series(voxels, **said)):
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
    "array": array,
    "dicom": dicom,
    "dicom-seg": readings.dicom_seg,
    "lidc-xml": readings.lidc_xml,
    "metaimage": itk,
    "nifti": nifti,
    "nrrd": itk,
    "polygon-text": polygon_text,
    "polygon-xml": polygon_xml,
    "raster": raster,
    "rtstruct": readings.rtstruct,
}


def write(reader: str, file: File) -> None:
    """Write ``file`` so that ``reader`` reads its pieces."""
    assert reader in WRITERS, f"reader {reader}: add its layout to tests/layouts/writers.py"
    (file.path if file.is_folder else file.path.parent).mkdir(parents=True, exist_ok=True)
    WRITERS[reader](file)
