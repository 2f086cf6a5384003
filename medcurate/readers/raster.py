"""PNG, JPEG, TIFF, BMP, GIF and PGM/PPM, told apart by their first bytes.

Colour is RGB. Grey keeps its depth (8, 16 or 32 bits; TIFF also float). One-bit and other shallow greys are
scaled to 8 bits, as the PNG specification has it. An opaque alpha channel is dropped, any other refused.
EXIF orientation is ignored, for images and labels alike: pixels stay as stored. A file's resolution tags
are not trusted as spacing. Damage is found where the format can tell: all of PNG's chunks are checked, and
every format must reach its end marker or hold all its bytes; flipped bits inside a JPEG cannot be seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from medcurate.config.source import Strict
from medcurate.errors import CaseRejected, Reason
from medcurate.readers import geometry, raster_formats, raster_tiff
from medcurate.readers.files import CaseFiles
from medcurate.types import Array, Volume

_TIFF_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_HALVES = {
    "left": (1, False),
    "right": (1, True),
    "top": (0, False),
    "bottom": (0, True),
}  # axis, second half
Millimetres = Annotated[float, Field(gt=0)]


class Options(Strict):
    """How pixels are read.

    ``palette``: "colours" looks palette images up, "indices" keeps the palette's indices (labels).
    ``white_is_zero``: TIFF greys that say so are inverted, so that larger is brighter as viewers show them;
    "keep" takes the stored values (tifffile writes boolean masks as white-is-zero).
    ``grey``: red, green and blue must be equal and become one channel (labels stored as RGB).
    ``alpha``: "refuse" accepts opaque pictures only, "ignore" takes the colours as they stand below.
    ``stack``: the pages of a TIFF, or the files of a folder in natural order, are planes of a volume;
    ``spacing_mm`` is then (plane, row, column), otherwise (row, column).
    """

    palette: Literal["colours", "indices"] = "colours"
    white_is_zero: Literal["invert", "keep"] = "invert"
    grey: bool = False
    alpha: Literal["refuse", "ignore"] = "refuse"
    stack: bool = False
    spacing_mm: Annotated[tuple[Millimetres, ...], Field(min_length=2, max_length=3)] | None = None

    @model_validator(mode="after")
    def _spacing_fits(self) -> Options:
        count = 0 if self.spacing_mm is None else len(self.spacing_mm)
        if self.stack and count != 3:
            raise ValueError("stack needs spacing_mm = [plane, row, column]")
        if not self.stack and count == 3:
            raise ValueError("spacing_mm of an image is [row, column]; three values need stack = true")
        return self


def read(files: CaseFiles, paths: Sequence[Path], options: Options) -> Volume:
    """One file as (H, W) or (H, W, 3) RGB; with ``stack`` as (I, J, K) or (I, J, K, 3).

    A stack's axes are i = column, j = row, k = page or file, laid along LPS as ITK does for files without
    orientation. Raises CaseRejected: UNREADABLE, CORRUPT, HEADER_SIZE.
    """
    if options.stack and len(paths) > 1:
        return _laid(_piled(files, paths, options), options)
    if len(paths) != 1:
        raise CaseRejected(Reason.UNREADABLE, f"an image is one file, not {len(paths)}")
    pixels = _decoded(files, paths[0], options, stack=options.stack)
    return _laid(pixels, options) if options.stack else Volume(voxels=pixels, spacing_mm=options.spacing_mm)  # type: ignore[arg-type]


def check_entry(entry: str) -> None:
    """Raise ValueError unless ``entry`` is a half of a picture."""
    if entry not in _HALVES:
        raise ValueError(f'"{entry}" is no part of a picture; known: {", ".join(_HALVES)}')


def read_entry(files: CaseFiles, paths: Sequence[Path], entry: str, options: Options) -> Volume:
    """One half of a picture: (H, W) or (H, W, 3). Raises CaseRejected, also where it cannot be halved."""
    if entry not in _HALVES or options.stack:
        raise CaseRejected(Reason.UNREADABLE, "no part of a picture")
    volume = read(files, paths, options)
    axis, second = _HALVES[entry]
    side = volume.voxels.shape[axis]
    if side % 2:
        raise CaseRejected(
            Reason.GEOMETRY, f"a picture of {side} pixels has no equal halves", {"measure": side}
        )
    part = slice(side // 2, None) if second else slice(side // 2)
    pixels = volume.voxels[part] if axis == 0 else volume.voxels[:, part]
    return Volume(voxels=np.ascontiguousarray(pixels), spacing_mm=volume.spacing_mm)


def _decoded(files: CaseFiles, path: Path, options: Options, *, stack: bool) -> Array:
    """Pixels of one file: (H, W[, 3]), with ``stack`` (pages, H, W[, 3])."""
    content = files.read(path)
    indices = options.palette == "indices"
    if content.startswith(_TIFF_MAGICS):
        invert = options.white_is_zero == "invert"
        pixels = raster_tiff.decode(content, files.check_claim, indices=indices, invert=invert, stack=stack)
    elif stack:
        raise CaseRejected(
            Reason.UNREADABLE, "only TIFF files are read as stacks; other files are planes of one"
        )
    else:
        pixels = raster_formats.decode(content, files.check_claim, indices=indices)
    planes = 3 if stack else 2
    pixels = _without_alpha(pixels, planes, checked=options.alpha == "refuse")
    return _collapsed(pixels, planes) if options.grey else pixels


def _piled(files: CaseFiles, paths: Sequence[Path], options: Options) -> Array:
    """(files, H, W[, 3])."""
    first = _decoded(files, paths[0], options, stack=False)
    files.check_claim(first.nbytes * len(paths), first.nbytes * len(paths))
    pile = np.empty((len(paths), *first.shape), first.dtype)
    for place, path in enumerate(paths):
        pixels = first if place == 0 else _decoded(files, path, options, stack=False)
        if pixels.shape != first.shape or pixels.dtype != first.dtype:
            raise CaseRejected(Reason.GEOMETRY, "the files of the stack differ in shape or depth")
        pile[place] = pixels
    return pile


def _laid(pixels: Array, options: Options) -> Volume:
    """(planes, H, W[, 3]) as a volume."""
    plane, row, column = options.spacing_mm  # type: ignore[misc]
    affine = geometry.affine_from_axes(np.diag([column, row, plane]), np.zeros(3), geometry.LPS)
    return Volume(voxels=pixels.transpose(2, 1, 0, *range(3, pixels.ndim)), affine=affine)


def _without_alpha(pixels: Array, planes: int, *, checked: bool) -> Array:
    """Grey + alpha or RGB + alpha to grey or RGB; with ``checked`` alpha must be opaque everywhere."""
    channels = pixels.shape[-1] if pixels.ndim > planes else 1
    if channels in {2, 4}:
        opaque = np.iinfo(pixels.dtype).max if pixels.dtype.kind == "u" else 1
        if checked and (pixels[..., -1] != opaque).any():
            raise CaseRejected(Reason.UNREADABLE, "the image has transparent pixels")
        pixels = pixels[..., 0] if channels == 2 else np.ascontiguousarray(pixels[..., :3])
    elif channels not in {1, 3}:
        raise CaseRejected(Reason.UNREADABLE, f"{channels} channels; 1 to 4 are supported")
    elif pixels.ndim > planes and channels == 1:
        pixels = pixels[..., 0]
    return pixels


def _collapsed(pixels: Array, planes: int) -> Array:
    if pixels.ndim == planes:
        return pixels
    first = pixels[..., 0]
    if not ((first == pixels[..., 1]).all() and (first == pixels[..., 2]).all()):
        raise CaseRejected(Reason.UNREADABLE, "red, green and blue differ where the source states grey")
    return np.ascontiguousarray(first)
