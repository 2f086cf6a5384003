"""Scores against MONAI and surface-distance, and what must hold for any masks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from monai.metrics import compute_dice, compute_iou
from monai.metrics import compute_surface_dice as monai_surface_dice
from scipy.ndimage import distance_transform_edt
from surface_distance import compute_surface_dice_at_tolerance, compute_surface_distances
from surface_distance.lookup_tables import (
    create_table_neighbour_code_to_contour_length,
    create_table_neighbour_code_to_surface_area,
)

from medcurate.train.evaluation import metrics
from medcurate.train.evaluation.metrics import dice_and_iou, surface_dice
from medcurate.train.evaluation.surface import corner_codes, sizes_of_codes

torch.set_num_threads(1)
SPACINGS = st.sampled_from([0.3, 0.5, 0.7, 1.0, 1.5, 5.0])


@st.composite
def pairs(draw, dimensions=(2, 3)):
    """Two masks of one shape, blocks or noise, none of them empty, and a spacing."""
    axes = draw(st.sampled_from(dimensions))
    shape = tuple(draw(st.lists(st.integers(1, 9), min_size=axes, max_size=axes)))
    masks = []
    for _ in range(2):
        mask = draw(hnp.arrays(np.bool_, shape))
        if draw(st.booleans()):
            low = [draw(st.integers(0, side - 1)) for side in shape]
            mask = np.zeros(shape, np.bool_)
            mask[tuple(slice(at, at + draw(st.integers(1, 5))) for at in low)] = True
        mask.flat[draw(st.integers(0, mask.size - 1))] = True
        masks.append(mask)
    return masks[0], masks[1], tuple(draw(SPACINGS) for _ in shape)


def reference(truth: np.ndarray, predicted: np.ndarray, spacing, tolerance: float) -> float:
    distances = compute_surface_distances(truth, predicted, spacing)
    return float(compute_surface_dice_at_tolerance(distances, tolerance))


@settings(max_examples=150, deadline=None)
@given(pairs(), st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.0]))
def test_surface_dice_is_that_of_surface_distance(pair, tolerance) -> None:
    truth, predicted, spacing = pair
    assert surface_dice(truth, predicted, spacing, tolerance) == pytest.approx(
        reference(truth, predicted, spacing, tolerance), abs=1e-12
    )


@settings(max_examples=60, deadline=None)
@given(pairs(), st.sampled_from([0.5, 1.0, 2.0]))
def test_both_ways_to_measure_distances_agree(pair, tolerance) -> None:
    truth, _, spacing = pair
    border = corner_codes(truth) > 0
    shifts = metrics._shifts(spacing, tolerance)
    if shifts is None or not border.any():
        return
    by_shifts = metrics._within(border, spacing, tolerance)
    assert np.array_equal(by_shifts, distance_transform_edt(~border, sampling=spacing) <= tolerance)


@settings(max_examples=60, deadline=None)
@given(pairs(dimensions=(2,)))
def test_surface_dice_is_that_of_monai_with_subvoxels(pair) -> None:
    truth, predicted, spacing = pair
    if truth.ndim != 2 or 1 in truth.shape or truth.all() or predicted.all():
        return  # MONAI squeezes axes of length 1, and sees no surface at the image's border
    inner = [np.pad(mask, 2) for mask in (predicted, truth)]
    tensors = [torch.from_numpy(mask)[None, None] for mask in inner]
    found = monai_surface_dice(*tensors, [1.0], include_background=True, spacing=spacing, use_subvoxels=True)
    assert surface_dice(truth, predicted, spacing, 1.0) == pytest.approx(float(found), abs=1e-6)


@settings(max_examples=80, deadline=None)
@given(pairs())
def test_dice_and_iou_are_those_of_monai(pair) -> None:
    truth, predicted, _ = pair
    tensors = [torch.from_numpy(mask)[None, None] for mask in (predicted, truth)]
    dice, iou = dice_and_iou(truth, predicted)
    assert dice == pytest.approx(float(compute_dice(*tensors)), abs=1e-6)
    assert iou == pytest.approx(float(compute_iou(*tensors)), abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(pairs(), st.sampled_from([0.5, 1.0, 2.0]))
def test_scores_are_symmetric_within_bounds_and_1_for_equals(pair, tolerance) -> None:
    truth, predicted, spacing = pair
    for one in (dice_and_iou, lambda a, b: (surface_dice(a, b, spacing, tolerance),)):
        assert one(truth, predicted) == pytest.approx(one(predicted, truth))
        assert all(0 <= score <= 1 for score in one(truth, predicted))
        assert one(truth, truth) == (1.0,) * len(one(truth, truth))
    dice, iou = dice_and_iou(truth, predicted)
    assert dice == pytest.approx(2 * iou / (1 + iou))


@pytest.mark.parametrize("axes", [2, 3])
def test_the_rule_for_empty_masks(axes: int) -> None:
    empty, full = np.zeros((4,) * axes, np.bool_), np.ones((4,) * axes, np.bool_)
    spacing = (1.0,) * axes
    assert dice_and_iou(empty, empty) == (1.0, 1.0)
    assert surface_dice(empty, empty, spacing, 1.0) == 1.0
    for pair in ((empty, full), (full, empty)):
        assert dice_and_iou(*pair) == (0.0, 0.0)
        assert surface_dice(*pair, spacing, 1.0) == 0.0


def test_padding_changes_nothing_and_far_masks_score_0() -> None:
    rng = np.random.default_rng(0)
    truth, predicted = rng.random((2, 7, 9)) > 0.5
    inner = surface_dice(truth, predicted, (0.4, 0.6), 1.0)
    padded = [np.pad(mask, ((3, 5), (1, 40))) for mask in (truth, predicted)]
    assert surface_dice(*padded, (0.4, 0.6), 1.0) == inner
    left, right = np.zeros((2, 10, 60), np.bool_)
    left[2:5, 2:5] = right[2:5, 50:55] = True
    assert surface_dice(left, right, (1.0, 1.0), 1.0) == 0.0


@settings(max_examples=20, deadline=None)
@given(SPACINGS, SPACINGS, SPACINGS)
def test_the_tables_are_those_of_surface_distance(first, second, third) -> None:
    lengths = create_table_neighbour_code_to_contour_length((first, second))
    areas = create_table_neighbour_code_to_surface_area((first, second, third))
    np.testing.assert_allclose(sizes_of_codes((first, second)), lengths, rtol=1e-12)
    np.testing.assert_allclose(sizes_of_codes((first, second, third)), areas, rtol=1e-12)
