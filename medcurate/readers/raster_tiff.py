"""TIFF and BigTIFF bytes to pixels, through tifffile; every compression that imagecodecs knows.

Samples of one, two and four bits are scaled to 0..255, as PNG's are. Source: TIFF 6.0,
PhotometricInterpretation, ExtraSamples.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from io import BytesIO
from itertools import pairwise

import numpy as np
import tifffile

from medcurate.errors import CaseRejected, Reason
from medcurate.readers.guard import refusing
from medcurate.readers.inflate import DEFLATE_RATIO
from medcurate.types import Array

_LEAST_STORED = {tifffile.COMPRESSION.NONE: 1, tifffile.COMPRESSION.ADOBE_DEFLATE: DEFLATE_RATIO}
_SUPPORTED = {
    tifffile.PHOTOMETRIC.MINISWHITE,
    tifffile.PHOTOMETRIC.MINISBLACK,
    tifffile.PHOTOMETRIC.RGB,
    tifffile.PHOTOMETRIC.PALETTE,
    tifffile.PHOTOMETRIC.YCBCR,
}
_PAGE_AXES = frozenset("IQZ")  # pages, unknown, depth: what a stack may run along

logging.getLogger("tifffile").addHandler(logging.NullHandler())
logging.getLogger("tifffile").propagate = False  # its messages quote tags


def decode(
    content: bytes, check_claim: Callable[[int, int], None], *, indices: bool, invert: bool, stack: bool
) -> Array:
    """Pixels (H, W[, C]), or with ``stack`` (pages, H, W[, C]); channels as in ``raster_formats.decode``.

    ``invert``: white-is-zero greys are turned, so that larger is brighter.

    Raises CaseRejected: UNREADABLE for several pages without ``stack`` and for unsupported variants,
    HEADER_SIZE before allocation, CORRUPT where a strip is missing, cut or does not decode.
    """
    with (
        refusing(Reason.UNREADABLE, "tifffile refuses the TIFF"),
        tifffile.TiffFile(BytesIO(content)) as tiff,
    ):
        if len(tiff.series) != 1:
            raise CaseRejected(Reason.UNREADABLE, f"{len(tiff.series)} images in one TIFF; one is read")
        series, page = tiff.series[0], tiff.pages.first
        _check_tags(page)
        _check_layout(series, page, len(content), check_claim)
        with refusing(Reason.CORRUPT, "the TIFF does not decode"):
            pixels = _interpreted(series.asarray(), page, indices=indices, invert=invert)
        return _arranged(pixels, series.axes, stack=stack)


def _check_tags(page: tifffile.TiffPage) -> None:
    """Refuse a page without the tags that decide what its bits mean: tifffile would assume, not fail.

    Bilevel images may leave out BitsPerSample (TIFF 6.0, section 3). One that was lost to a changed tag number
    shows in the numbers, which must ascend (section 2): only its own fits between those of its neighbours.
    """
    numbers = [tag.code for tag in page.tags]
    ascending = all(before < after for before, after in pairwise(numbers))
    required = ["PhotometricInterpretation", *([] if ascending else ["BitsPerSample"])]
    missing = [name for name in required if name not in page.tags]
    if missing:
        raise CaseRejected(Reason.CORRUPT, f"the TIFF tag {missing[0]} is missing")


def _check_layout(
    series: tifffile.TiffPageSeries,
    page: tifffile.TiffPage,
    stored_bytes: int,
    check_claim: Callable[[int, int], None],
) -> None:
    size = int(series.nbytes)
    ratio = _LEAST_STORED.get(tifffile.COMPRESSION(page.compression))
    check_claim(size, stored_bytes * ratio * _unpacking(page) if ratio else size)
    raw_ycbcr = (
        page.photometric == tifffile.PHOTOMETRIC.YCBCR and page.compression != tifffile.COMPRESSION.JPEG
    )
    if (
        raw_ycbcr
        or page.photometric not in _SUPPORTED
        or series.dtype is None
        or series.dtype.kind not in "buif"
    ):
        raise CaseRejected(Reason.UNREADABLE, "TIFF of a colour space or number type that is not supported")
    for each in series.pages:
        segments = () if each is None else zip(each.dataoffsets, each.databytecounts, strict=True)
        if any(count == 0 or offset + count > stored_bytes for offset, count in segments):
            raise CaseRejected(Reason.CORRUPT, "a strip of the TIFF is missing or cut")


def _unpacking(page: tifffile.TiffPage) -> int:
    """How many times as many bytes samples take in an array, at most: a byte for each bit, two bytes for 12 bits."""
    bits = page.bitspersample
    return 1 if bits in {8, 16, 32, 64} else 8 if bits < 8 else 2


def _interpreted(pixels: Array, page: tifffile.TiffPage, *, indices: bool, invert: bool) -> Array:
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8) * 255
        bits = 8
    else:
        bits = page.bitspersample
        pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    if bits in {2, 4} and page.photometric != tifffile.PHOTOMETRIC.PALETTE:
        pixels, bits = pixels * np.uint8(255 // (2**bits - 1)), 8
    if page.photometric == tifffile.PHOTOMETRIC.PALETTE and not indices:
        return np.moveaxis((np.asarray(page.colormap) >> 8).astype(np.uint8)[:, pixels], 0, -1)
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE and invert:
        if pixels.dtype.kind != "u":
            raise CaseRejected(Reason.UNREADABLE, "a white-is-zero TIFF of signed or real numbers")
        return np.asarray(pixels.dtype.type(2**bits - 1) - pixels)
    return pixels


def _arranged(pixels: Array, axes: str, *, stack: bool) -> Array:
    """tifffile's axes to (pages, H, W, samples), each where it is there; a palette appended samples.

    Axes of length one mean nothing: tifffile keeps those of an array (H, W, 1) or (1, H, W) that it wrote.
    """
    axes += "S" * (pixels.ndim - len(axes))
    single = {
        at for at, size in enumerate(pixels.shape) if size == 1 and axes[at] not in "YX" and at >= stack
    }
    pixels = pixels.squeeze(tuple(single))
    axes = "".join(axis for at, axis in enumerate(axes) if at not in single)
    pages, rest = (axes[0], axes[1:]) if axes[0] in _PAGE_AXES else ("", axes)
    if bool(pages) != stack or rest not in {"YX", "YXS", "SYX"}:
        wanted = "pages (Z, Y, X)" if stack else "one page (Y, X)"
        raise CaseRejected(Reason.UNREADABLE, f"a TIFF of axes {axes}; {wanted} is read")
    return np.moveaxis(pixels, -3, -1) if rest == "SYX" else pixels
