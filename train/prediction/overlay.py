"""Masks over their image, as a picture for people."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]
Pixels = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]

_TINT = 0.35
_COLOURS: tuple[Colour, ...] = (
    (255, 82, 82), (64, 196, 255), (255, 214, 64), (105, 225, 130), (255, 140, 220), (178, 140, 255),
    (255, 160, 70), (45, 226, 214),
)  # fmt: skip


def colours(count: int) -> list[Colour]:
    """``count`` bright RGB colours; beyond the first ones, hues at the golden angle."""
    more = (colorsys.hsv_to_rgb(0.08 + number * 0.618034 % 1, 0.6, 1.0) for number in range(count))
    return [*_COLOURS, *((round(r * 255), round(g * 255), round(b * 255)) for r, g, b in more)][:count]


def overlaid(image: Pixels, masks: Sequence[Bools], palette: Sequence[Colour], scale: float = 1.0) -> Pixels:
    """uint8 RGB, ``scale`` times the size of ``image``: every mask tinted and outlined in its colour.

    ``image``: uint8 (H, W) or (H, W, 3) RGB. ``masks``: bool (H, W).
    """
    height, width = (max(round(side * scale), 1) for side in image.shape[:2])
    rgb = np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    canvas = np.asarray(
        cv2.resize(np.ascontiguousarray(rgb), (width, height), interpolation=method), np.uint8
    )
    outlines = []
    for mask, colour in zip(masks, palette, strict=True):
        fine = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR) >= 0.5
        canvas[fine] = np.rint(canvas[fine] * (1 - _TINT) + np.array(colour) * _TINT).astype(np.uint8)
        paths, _ = cv2.findContours(fine.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        outlines.append((paths, colour))
    for paths, colour in outlines:
        cv2.polylines(canvas, paths, True, colour, 1, cv2.LINE_AA)
    return canvas
