"""From one slice of a volume to all: the mask of a slice gives the box of its neighbour."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import cv2
import numpy as np
import numpy.typing as npt

from medcurate.train.prediction.predictor import Predictor

Bools = npt.NDArray[np.bool_]
Box = tuple[float, float, float, float]


def through_slices(
    predictor: Predictor,
    start: int,
    first: Bools,
    *,
    margin_px: int = 2,
    min_iou: float = 0.5,
    advance: Callable[[int], None] = lambda count: None,
) -> Bools:
    """Follow an object from its mask ``first``, bool (H, W), in slice ``start`` to both sides: bool (n, H, W).

    Each neighbour is asked with the box of the mask before, of its largest connected region, widened by ``margin_px``
    on every side: a speck elsewhere would stretch the box over other organs. A side ends at the volume's end, where the
    mask is empty, or where the model predicts an IoU below ``min_iou`` for it: SAM marks something in any box, so that
    "empty" alone would rarely end it. ``advance`` is told of every slice.
    """
    found = np.zeros(predictor.volume_shape, np.bool_)
    found[start] = first
    for step in (1, -1):
        for index, mask in _followed(predictor, start, first, step, margin_px, min_iou):
            found[index] = mask
            advance(1)
    return found


def box_around(mask: Bools, margin_px: int = 0) -> Box | None:
    """(x0, y0, x1, y1) of the first and last pixel set, widened and cut to the image; None for an empty mask."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    if not len(rows):
        return None
    height, width = mask.shape
    return (
        float(max(columns[0] - margin_px, 0)),
        float(max(rows[0] - margin_px, 0)),
        float(min(columns[-1] + margin_px, width - 1)),
        float(min(rows[-1] + margin_px, height - 1)),
    )


def largest_region(mask: Bools) -> Bools:
    """Of bool (H, W), the largest region whose pixels touch, diagonally too; an empty mask as it is."""
    count, regions, facts, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8)
    if count <= 2:
        return mask
    return np.asarray(regions == 1 + int(facts[1:, cv2.CC_STAT_AREA].argmax()), np.bool_)


def _followed(
    predictor: Predictor, start: int, first: Bools, step: int, margin_px: int, min_iou: float
) -> Iterator[tuple[int, Bools]]:
    mask, index = first, start + step
    while 0 <= index < predictor.volume_shape[0]:
        box = box_around(largest_region(mask), margin_px)
        if box is None:
            return
        predictor.set_slice(index)
        masks, iou = predictor.predict_boxes([box])
        mask = masks[0]
        if not mask.any() or iou[0] < min_iou:
            return
        yield index, mask
        index += step
