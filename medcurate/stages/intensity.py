"""From source units to grey: bounds over the whole volume, then one linear map to uint8.

Building a dataset and preparing an image for a trained model call the same two functions, ``bounds`` and
``to_uint8``, so the same tissue gets the same grey in both. All arithmetic is float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from medcurate.config.recipe import Clip, Intensity, Percentiles, Rgb, Window
from medcurate.errors import CaseRejected, ConfigError, Reason
from medcurate.stages.voxels import Distribution, paired_blocks
from medcurate.types import Array, Volume

_FALLBACK = "default"
_SAMPLES_A_SIDE = 16  # voxels along an axis: a fraction of a millisecond, where all of them take one or more
_CACHED_VOXELS = 1 << 14  # float64 temporaries of this many voxels stay in the second-level cache
# OpenCV looks up 16-bit indices since version 5; numpy gives the same bytes in seven times the time.
_CV_LOOKS_UP_16_BIT = int(cv2.__version__.split(".")[0]) >= 5


@dataclass(frozen=True, slots=True)
class Scale:
    """The map from a volume's stored values to grey.

    ``low``, ``high``: the physical values that become 0 and 255; None where pictures stay as they are. ``grey`` gives
    uint8 of the same shape and memory order for the volume or any part of it.
    """

    low: float | None
    high: float | None
    grey: Callable[[Array], npt.NDArray[np.uint8]]


def rule_for(modality: str, rules: Mapping[str, Intensity]) -> Intensity:
    """The recipe's rule for a modality, else its "default". Raises ConfigError when it has neither."""
    if modality in rules:
        return rules[modality]
    if _FALLBACK in rules:
        return rules[_FALLBACK]
    raise ConfigError(
        f'recipe: intensity has no rule for modality "{modality}" and no "{_FALLBACK}"; it has '
        f"{', '.join(sorted(rules)) or 'none'}. Add [intensity.{modality}] or [intensity.{_FALLBACK}]."
    )


def scale_for(volume: Volume, rule: Intensity) -> Scale:
    """What ``rule`` makes of a whole volume or picture.

    Raises CaseRejected(BAD_INTENSITY) as ``bounds`` does, and for colour under any rule but ``rgb``.
    """
    if isinstance(rule, Rgb):
        _require_picture(volume.voxels, volume.slope, volume.intercept)
        return Scale(None, None, np.asarray)
    if volume.voxels.ndim > (2 if volume.affine is None else 3):
        raise CaseRejected(
            Reason.BAD_INTENSITY,
            f'{volume.voxels.shape[-1]} values a voxel: colours need the intensity rule "rgb" (the recipe has '
            f'"{rule.rule}"), several channels need their components in the source\'s [[channels]]',
        )
    low, high = bounds(volume.voxels, volume.slope, volume.intercept, rule)
    return Scale(low, high, _grey_map(volume.voxels.dtype, volume.slope, volume.intercept, low, high))


def bounds(volume_voxels: Array, slope: float, intercept: float, rule: Intensity) -> tuple[float, float]:
    """The physical values that become 0 and 255, over all stored voxels of any shape; low < high.

    Physical is ``stored * slope + intercept``. ``percentiles`` are numpy's with linear interpolation
    (Hyndman and Fan 1996, definition 7), exactly, without its copies; "nonzero" leaves out physical
    zeros. ``rgb`` gives (0, 255), the identity on uint8.
    Raises CaseRejected(BAD_INTENSITY) when voxels are NaN, infinite or all equal, when all lie on one side
    of the bounds, when no voxel is left to take percentiles of, and for ``rgb`` on anything but pictures.
    """
    if isinstance(rule, Rgb):
        _require_picture(volume_voxels, slope, intercept)
        return 0.0, 255.0
    given = _given_bounds(rule)
    if given and _samples_show_contrast(volume_voxels, slope, intercept, *given):
        return given
    stored = Distribution(volume_voxels, counted=isinstance(rule, Percentiles))
    least, most = _physical_extremes(stored, slope, intercept)
    if isinstance(rule, Percentiles):
        low, high = _percentiles(stored, volume_voxels.size, slope, intercept, rule)
    else:
        low, high = given or (least, most)
    _require_contrast(least, most, low, high)
    return low, high


def to_uint8(voxels: Array, slope: float, intercept: float, low: float, high: float) -> npt.NDArray[np.uint8]:
    """uint8 of the same shape and memory order: 0 at or below ``low``, 255 at or above ``high``.

    Between them floor(255 * (v - low) / (high - low) + 0.5) with v = stored * slope + intercept: halves
    round up. ``voxels``: any real dtype without NaN, any strides and byte order; ``low`` < ``high`` finite.
    Equal for equal v, whatever the stored dtype. Source: DICOM PS3.3 C.11.2.1.3.2 (LINEAR_EXACT).
    """
    return _grey_map(voxels.dtype, slope, intercept, low, high)(voxels)


def _grey_map(
    dtype: np.dtype[Any], slope: float, intercept: float, low: float, high: float
) -> Callable[[Array], npt.NDArray[np.uint8]]:
    """``to_uint8`` for many parts of one volume: what does not depend on the voxels is done once."""
    if not (low < high and math.isfinite(255 * (high - low))):
        raise ValueError(f"low must be below high and both finite, not {low} and {high}")
    if dtype.itemsize > 2:
        return partial(_computed, slope=slope, intercept=intercept, low=low, high=high)
    # Every bit pattern, read in the stored type and byte order, so that no voxel is ever converted.
    patterns = np.arange(1 << (8 * dtype.itemsize), dtype=f"u{dtype.itemsize}").view(dtype)
    with np.errstate(invalid="ignore", over="ignore"):
        return partial(_looked_up, table=_grey(_physical(patterns, slope, intercept), low, high))


def _computed(
    voxels: Array, *, slope: float, intercept: float, low: float, high: float
) -> npt.NDArray[np.uint8]:
    grey = np.empty_like(voxels, np.uint8, subok=False)
    for stored, target in paired_blocks(voxels, grey, _CACHED_VOXELS):
        target[...] = _grey(_physical(stored, slope, intercept), low, high)
    return grey


def _looked_up(voxels: Array, *, table: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    grey = np.empty_like(voxels, np.uint8, subok=False)
    for stored, target in paired_blocks(voxels.view(f"u{voxels.dtype.itemsize}"), grey):
        _look_up(stored, table, target)
    return grey


def _physical(stored: Array, slope: float, intercept: float) -> npt.NDArray[np.float64]:
    values = stored.astype(np.float64)
    values *= slope
    values += intercept
    return values


def _grey(values: npt.NDArray[np.float64], low: float, high: float) -> npt.NDArray[np.uint8]:
    """Overwrites ``values``."""
    np.clip(values, low, high, out=values)
    values -= low
    values *= 255
    values /= high - low
    values += 0.5
    return values.astype(np.uint8)


def _given_bounds(rule: Intensity) -> tuple[float, float] | None:
    """The bounds that a rule states itself; None where it takes them from the voxels."""
    match rule:
        case Clip():
            return rule.low, rule.high
        case Window():
            return rule.level - rule.width / 2, rule.level + rule.width / 2
        case _:
            return None


def _samples_show_contrast(voxels: Array, slope: float, intercept: float, low: float, high: float) -> bool:
    """Whether a few voxels prove what all of them have to, so that the others need not be looked at.

    Of short integers only: any of them is finite, and so are all physical values where those of the type's ends are.
    """
    if voxels.dtype.kind not in "ui" or voxels.dtype.itemsize > 2 or not voxels.size:
        return False
    ends = np.iinfo(voxels.dtype)
    if not all(math.isfinite(end * slope + intercept) for end in (ends.min, ends.max)):
        return False
    every = (slice(None, None, -(-side // _SAMPLES_A_SIDE)) for side in voxels.shape)
    few = _physical(voxels[tuple(every)], slope, intercept)
    least, most = few.min(), few.max()
    return bool(
        least < most and low < most and least < high and low < high and math.isfinite(255 * (high - low))
    )


def _look_up(indices: Array, table: npt.NDArray[np.uint8], target: npt.NDArray[np.uint8]) -> None:
    if indices.itemsize == 1 or _CV_LOOKS_UP_16_BIT:
        cv2.LUT(indices.reshape(1, -1), table, dst=target.reshape(1, -1))
    else:
        np.take(table, indices, out=target, mode="clip")


def _physical_extremes(stored: Distribution, slope: float, intercept: float) -> tuple[float, float]:
    first, last = (value * slope + intercept for value in stored.extremes())
    if not (math.isfinite(first) and math.isfinite(last)):
        raise CaseRejected(Reason.BAD_INTENSITY, "slope and intercept give NaN or infinite values")
    return min(first, last), max(first, last)


def _percentiles(
    stored: Distribution, size: int, slope: float, intercept: float, rule: Percentiles
) -> tuple[float, float]:
    negative, zero = stored.signs(slope, intercept) if rule.voxels == "nonzero" else (0, 0)
    count = size - zero
    if not count:
        raise CaseRejected(Reason.BAD_INTENSITY, "all voxels are zero", {"measure": 0, "bound": 1})
    places = [(count - 1) * (percent / 100) for percent in (rule.low, rule.high)]
    ranks = [rank for place in places for rank in (int(place), min(int(place) + 1, count - 1))]
    # Left-out zeros stand between the negative and the positive values of the sorted volume.
    whole = [rank if rank < negative else rank + zero for rank in ranks]
    values = stored.order_statistics(whole if slope > 0 else [size - 1 - rank for rank in whole])
    below_low, above_low, below_high, above_high = (value * slope + intercept for value in values)
    return (
        _between(below_low, above_low, places[0] - int(places[0])),
        _between(below_high, above_high, places[1] - int(places[1])),
    )


def _between(below: float, above: float, fraction: float) -> float:
    """Linear interpolation from the nearer end, as numpy computes it to stay monotone."""
    step = above - below
    return above - step * (1 - fraction) if fraction >= 0.5 else below + step * fraction


def _require_contrast(least: float, most: float, low: float, high: float) -> None:
    if least == most:
        raise CaseRejected(Reason.BAD_INTENSITY, "all voxels are equal", {"measure": 0, "bound": 0})
    if not low < high:
        raise CaseRejected(
            Reason.BAD_INTENSITY, "the two percentiles are equal", {"measure": high - low, "bound": 0}
        )
    if most <= low:
        raise CaseRejected(
            Reason.BAD_INTENSITY, "no voxel is above the lower bound", {"measure": most, "bound": low}
        )
    if least >= high:
        raise CaseRejected(
            Reason.BAD_INTENSITY, "no voxel is below the upper bound", {"measure": least, "bound": high}
        )
    if not math.isfinite(255 * (high - low)):
        raise CaseRejected(Reason.BAD_INTENSITY, "the bounds are too far apart for float64")


def _require_picture(voxels: Array, slope: float, intercept: float) -> None:
    is_picture = voxels.ndim == 2 or (voxels.ndim in {3, 4} and voxels.shape[-1] == 3)
    if voxels.dtype != np.uint8 or not is_picture or (slope, intercept) != (1, 0):
        found = f"{voxels.dtype.name} {' x '.join(str(size) for size in voxels.shape)}"
        raise CaseRejected(
            Reason.BAD_INTENSITY,
            f'the intensity rule "rgb" needs unscaled uint8, grey or with three channels, not {found}',
        )
