"""Dice, IoU and normalised surface distance of one mask or volume against its truth.

The rule for empty masks: where truth and prediction are both empty every score is 1, where one of them is, 0. Truth of
a dataset is never empty, so an empty prediction counts as 0 and no mask is left out of a mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from itertools import product

import numpy as np
from scipy.ndimage import distance_transform_edt

from medcurate.train.evaluation.surface import Bools, corner_codes, sizes_of_codes

EMPTY_RULE = "both empty: 1; one of them empty: 0; no mask is left out"
_MOST_SHIFTS = 200  # beyond, a distance transform is faster


def dice_and_iou(truth: Bools, predicted: Bools) -> tuple[float, float]:
    """2 |T ∩ P| / (|T| + |P|) and |T ∩ P| / |T ∪ P| of bool arrays of one shape, 0 to 1."""
    total = np.count_nonzero(truth) + np.count_nonzero(predicted)
    return ratios(int(np.count_nonzero(truth & predicted)), int(total))


def ratios(both: int, total: int) -> tuple[float, float]:
    """Dice and IoU from |T ∩ P| and |T| + |P|."""
    return (2 * both / total, both / (total - both)) if total else (1.0, 1.0)


def surface_dice(truth: Bools, predicted: Bools, spacing_mm: tuple[float, ...], tolerance_mm: float) -> float:
    """Normalised surface distance: the share of both surfaces that lies within ``tolerance_mm`` of the other one.

    Bool arrays of one shape, (H, W) or (D, H, W); ``spacing_mm`` along their axes. Weighted by length or area; a mask
    ends where the image does. Source: Nikolov et al., arXiv 1809.04430, as computed by their surface-distance, which
    MedSAM was measured with.
    """
    window = _window(truth | predicted)
    if window is None:
        return 1.0
    codes = [corner_codes(np.ascontiguousarray(mask[window])) for mask in (truth, predicted)]
    sizes = sizes_of_codes(spacing_mm)
    full = len(sizes) - 1
    borders = [(code != 0) & (code != full) for code in codes]
    if not (borders[0].any() and borders[1].any()):
        return 0.0
    near = whole = 0.0
    for code, border, other in zip(codes, borders, reversed(borders), strict=True):
        sizes_here = sizes[code[border]]
        within = _within(other, spacing_mm, tolerance_mm)[border]
        near += float(sizes_here[within].sum())
        whole += float(sizes_here.sum())
    return near / whole


def _window(mask: Bools) -> tuple[slice, ...] | None:
    """Slices of the smallest box around what is set; None where nothing is."""
    found = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        hit = np.flatnonzero(mask.any(axis=others))
        if not len(hit):
            return None
        found.append(slice(int(hit[0]), int(hit[-1]) + 1))
    return tuple(found)


def _within(border: Bools, spacing_mm: tuple[float, ...], tolerance_mm: float) -> Bools:
    """Which points lie within ``tolerance_mm`` of a point of ``border``."""
    shifts = _shifts(spacing_mm, tolerance_mm)
    if shifts is None:
        return np.asarray(distance_transform_edt(~border, sampling=spacing_mm) <= tolerance_mm)
    near = np.zeros_like(border)
    for shift in shifts:
        if any(abs(by) >= side for by, side in zip(shift, border.shape, strict=True)):
            continue
        near[_from(shift, border.shape)] |= border[_from([-by for by in shift], border.shape)]
    return near


def _from(shift: Sequence[int], shape: Sequence[int]) -> tuple[slice, ...]:
    """The part of an array that has something at its place before a shift."""
    return tuple(slice(max(by, 0), side + min(by, 0)) for by, side in zip(shift, shape, strict=True))


@cache
def _shifts(spacing_mm: tuple[float, ...], tolerance_mm: float) -> tuple[tuple[int, ...], ...] | None:
    """Grid steps that are at most ``tolerance_mm`` long; None where they are too many."""
    reach = [math.floor(tolerance_mm / step) for step in spacing_mm]
    if math.prod(2 * steps + 1 for steps in reach) > 2 * _MOST_SHIFTS:
        return None
    steps = np.array(list(product(*(range(-most, most + 1) for most in reach))))
    # As scipy computes distances, so that both ways agree on those equal to the tolerance.
    long = np.sqrt(((steps * np.array(spacing_mm)) ** 2).sum(axis=1))
    return tuple(tuple(step) for step in steps[long <= tolerance_mm].tolist())
