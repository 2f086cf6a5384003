"""Images and masks to a square of ``size_px``; masks in whole numbers, so equal on every processor."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]


def resize_image(image: npt.NDArray[np.uint8], size_px: int) -> npt.NDArray[np.uint8]:
    """uint8 (H, W) or (H, W, 3) to (size_px, size_px[, 3]); the aspect ratio is not kept.

    A side that shrinks is averaged over each target pixel's footprint (cv2 INTER_AREA), a side that grows
    is interpolated linearly (INTER_LINEAR_EXACT: INTER_LINEAR in OpenCV's bit-exact arithmetic). OpenCV's
    INTER_AREA falls back to interpolation for both sides when one grows, hence two steps.
    """
    height, width = image.shape[:2]
    shrunk = (min(width, size_px), min(height, size_px))
    if shrunk != (width, height):
        image = np.asarray(cv2.resize(image, shrunk, interpolation=cv2.INTER_AREA), np.uint8)
    if shrunk != (size_px, size_px):
        image = np.asarray(
            cv2.resize(image, (size_px, size_px), interpolation=cv2.INTER_LINEAR_EXACT), np.uint8
        )
    return image


def resize_mask(mask: npt.NDArray[np.bool_], size_px: int) -> npt.NDArray[np.bool_]:
    """bool (H, W) to (size_px, size_px): set where the mask covers at least half of a pixel's footprint.

    Unlike nearest-neighbour sampling this neither shifts outlines by half a pixel nor leaves scattered
    pixels of structures too thin for the grid: those vanish, and the caller's ledger says so.
    """
    height, width = mask.shape
    resized = np.zeros((size_px, size_px), np.bool_)
    box = bounding_box(mask)
    if box is None:
        return resized
    x0, y0, x1, y1 = box
    top, bottom = y0 * size_px // height, -(-y1 * size_px // height)
    left, right = x0 * size_px // width, -(-x1 * size_px // width)
    cropped = mask[y0:y1, x0:x1].astype(np.int64)
    rows = _overlaps(cropped, y0, height, np.arange(top, bottom + 1), size_px)
    parts = _overlaps(rows.T, x0, width, np.arange(left, right + 1), size_px).T
    resized[top:bottom, left:right] = 2 * parts >= height * width
    return resized


def bounding_box(mask: npt.NDArray[np.bool_]) -> tuple[int, int, int, int] | None:
    """(x0, y0, x1, y1), last + 1; None where no pixel is set."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    if not len(rows):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _overlaps(values: Int64s, start: int, length: int, edges: Int64s, size_px: int) -> Int64s:
    """Sums of ``values`` (L, M) between target edges along the first axis, in 1/size_px of a source pixel.

    ``values`` are source pixels [start, start + L) of ``length``; target edge e lies at e * length / size_px.
    """
    position = np.clip(edges * length - start * size_px, 0, len(values) * size_px)
    whole, part = np.divmod(position, size_px)
    before = np.zeros((len(values) + 2, values.shape[1]), np.int64)
    np.cumsum(values, axis=0, out=before[1:-1])
    before[-1] = before[-2]
    upto = before[whole] * size_px + (before[whole + 1] - before[whole]) * part[:, np.newaxis]
    sums: Int64s = np.diff(upto, axis=0)
    return sums
