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
Millimetres = Annotated[float, Field(gt=0)]


class Options(Strict):
    """How pixels are read.

    ``palette``: "colours" looks palette images up, "indices" keeps the palette's indices (labels).
    ``white_is_zero``: TIFF greys that say so are inverted, so that larger is brighter as viewers show them;
    "keep" takes the stored values (tifffile writes boolean masks as white-is-zero).
    ``grey``: red, green and blue must be equal and become one channel (labels stored as RGB).
    ``stack``: the pages of a TIFF are planes of a volume; ``spacing_mm`` is then (plane, row, column),
    otherwise (row, column).
    """

    palette: Literal["colours", "indices"] = "colours"
    white_is_zero: Literal["invert", "keep"] = "invert"
    grey: bool = False
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

    A stack's axes are i = column, j = row, k = page, laid along LPS as ITK does for files without
    orientation. Raises CaseRejected: UNREADABLE, CORRUPT, HEADER_SIZE.
    """
    if len(paths) != 1:
        raise CaseRejected(Reason.UNREADABLE, f"an image is one file, not {len(paths)}")
    content = files.read(paths[0])
    indices = options.palette == "indices"
    if content.startswith(_TIFF_MAGICS):
        pixels = raster_tiff.decode(
            content,
            files.check_claim,
            indices=indices,
            invert=options.white_is_zero == "invert",
            stack=options.stack,
        )
    elif options.stack:
        raise CaseRejected(Reason.UNREADABLE, "only TIFF files are read as stacks")
    else:
        pixels = raster_formats.decode(content, files.check_claim, indices=indices)
    pixels = _without_alpha(pixels, planes=3 if options.stack else 2)
    if options.grey:
        pixels = _collapsed(pixels, planes=3 if options.stack else 2)
    if not options.stack:
        return Volume(voxels=pixels, spacing_mm=options.spacing_mm)  # type: ignore[arg-type]
    plane, row, column = options.spacing_mm  # type: ignore[misc]
    affine = geometry.affine_from_axes(np.diag([column, row, plane]), np.zeros(3), geometry.LPS)
    return Volume(voxels=pixels.transpose(2, 1, 0, *range(3, pixels.ndim)), affine=affine)


def _without_alpha(pixels: Array, planes: int) -> Array:
    """Grey + alpha or RGB + alpha to grey or RGB, where alpha is opaque everywhere."""
    channels = pixels.shape[-1] if pixels.ndim > planes else 1
    if channels in {2, 4}:
        opaque = np.iinfo(pixels.dtype).max if pixels.dtype.kind == "u" else 1
        if (pixels[..., -1] != opaque).any():
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
