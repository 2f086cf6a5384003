"""Canonical orientation against nibabel and the DICOM equation, over all 48 orientations."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from grids import ORIENTATIONS, affine_of
from hypothesis import given, settings
from hypothesis import strategies as st

from medcurate.errors import CaseRejected, Reason
from medcurate.stages.orient import (
    canonical,
    canonical_affine,
    canonical_spacing_mm,
    orientation,
    same_grid,
)

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

shapes = st.tuples(*[st.integers(1, 5)] * 3)
spacings = st.tuples(*[st.floats(0.3, 8)] * 3)
origins = st.tuples(*[st.floats(-500, 500)] * 3)


def rotated(affine, degrees):
    turn = np.eye(4)
    for angle, (a, b) in zip(np.radians(degrees), ((0, 1), (1, 2), (0, 2)), strict=True):
        step = np.eye(4)
        step[[a, b], [a, b]], step[a, b], step[b, a] = np.cos(angle), -np.sin(angle), np.sin(angle)
        turn = step @ turn
    return turn @ affine


def test_there_are_48_orientations_and_each_is_told_apart():
    assert len({orientation(affine_of(*case)) for case in ORIENTATIONS}) == 48


@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS)
@settings(max_examples=6, deadline=None)
@given(shape=shapes, spacing=spacings, origin=origins, degrees=st.tuples(*[st.floats(-15, 15)] * 3))
def test_equals_nibabels_closest_canonical(order, signs, shape, spacing, origin, degrees):
    affine = rotated(affine_of(order, signs, spacing, origin), degrees)
    voxels = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    expected = nib.as_closest_canonical(nib.Nifti1Image(voxels, affine))
    turned = orientation(affine)

    assert np.array_equal(canonical(voxels, turned), np.asanyarray(expected.dataobj))
    assert np.allclose(canonical_affine(affine, turned, shape), expected.affine, rtol=0, atol=1e-9)
    assert np.allclose(canonical_spacing_mm(affine, turned), nib.affines.voxel_sizes(expected.affine))


@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS)
def test_a_marked_voxel_keeps_its_place_in_the_patient(order, signs):
    rng = np.random.default_rng([*order, *(sign + 1 for sign in signs)])
    affine, shape = affine_of(order, signs), (4, 5, 6)
    stored = tuple(int(rng.integers(size)) for size in shape)
    voxels = np.zeros(shape, np.uint8)
    voxels[stored] = 1
    turned = orientation(affine)

    found = np.argwhere(canonical(voxels, turned))
    assert len(found) == 1
    place = canonical_affine(affine, turned, shape) @ [*found[0], 1]
    assert np.allclose(place, affine @ [*stored, 1])


@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS)
def test_the_dicom_equation_puts_right_anterior_superior_last(order, signs):
    """PS3.3 equation C.7.6.2.1-1: columns run along the row cosines, rows along the column cosines (LPS)."""
    row_cosine, column_cosine, normal = (
        sign * np.eye(3)[axis] for axis, sign in zip(order, signs, strict=True)
    )
    shape, spacing, position = (3, 4, 5), (0.5, 0.6, 2.5), np.array([10.0, -20.0, 30.0])
    places = np.array([
        position + i * spacing[0] * row_cosine + j * spacing[1] * column_cosine + k * spacing[2] * normal
        for i, j, k in np.ndindex(shape)
    ])
    voxels = np.arange(len(places)).reshape(shape)
    affine = np.eye(4)
    affine[:3] = np.column_stack([
        row_cosine * spacing[0],
        column_cosine * spacing[1],
        normal * spacing[2],
        position,
    ])
    seen = canonical(voxels, orientation(LPS_TO_RAS @ affine))

    left, posterior, head = places[seen.ravel()].reshape(*seen.shape, 3).transpose(3, 0, 1, 2)
    assert (np.diff(left, axis=0) < 0).all()
    assert (np.diff(posterior, axis=1) < 0).all()
    assert (np.diff(head, axis=2) > 0).all()


def test_canonical_is_a_view_and_keeps_channels():
    voxels = np.zeros((3, 4, 5, 3), np.uint8)
    seen = canonical(voxels, orientation(affine_of((2, 0, 1), (-1, 1, -1))))
    assert seen.shape == (4, 5, 3, 3)
    assert np.shares_memory(seen, voxels)


def test_gantry_tilt_is_accepted():
    affine = affine_of((0, 1, 2), (1, 1, 1))
    affine[1, 2] = affine[2, 2] * np.tan(np.radians(30))
    assert orientation(affine).axes == (0, 1, 2)


@pytest.mark.parametrize(
    "damage",
    [
        lambda a: a.__setitem__((0, 0), np.nan),
        lambda a: a.__setitem__((1, 3), np.inf),
        lambda a: a.__setitem__((slice(None), 1), 0),
        lambda a: a.__setitem__((slice(3), 1), a[:3, 0] * 2),
        lambda a: a.__setitem__((slice(3), 1), a[:3, 0] + [0, 1e-5, 0]),
        lambda a: a.__setitem__((slice(3), slice(3)), 0),
        lambda a: a.__setitem__((0, 0), 1e300),
    ],
    ids=["nan", "infinite", "no-extent", "parallel", "nearly-parallel", "zero", "overflow"],
)
def test_affines_that_span_no_volume_are_refused(damage):
    affine = affine_of((0, 1, 2), (1, 1, 1))
    damage(affine)
    with pytest.raises(CaseRejected) as caught:
        orientation(affine)
    assert caught.value.reason is Reason.GEOMETRY
    with pytest.raises(CaseRejected):
        same_grid((2, 2, 2), np.eye(4), (2, 2, 2), affine)


def test_an_affine_of_another_shape_is_refused():
    with pytest.raises(CaseRejected, match="3 x 3"):
        orientation(np.eye(3))


@settings(max_examples=60, deadline=None)
@given(
    case=st.sampled_from(ORIENTATIONS),
    shape=st.tuples(*[st.integers(1, 600)] * 3),
    spacing=spacings,
    origin=origins,
    degrees=st.tuples(*[st.floats(-40, 40)] * 3),
)
def test_float32_headers_are_the_same_grid(case, shape, spacing, origin, degrees):
    affine = rotated(affine_of(*case, spacing, origin), degrees)
    assert same_grid(shape, affine, shape, affine.astype(np.float32).astype(np.float64)) == ""


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("voxels", [0.5, -0.5, 1.0, 0.11])
def test_shifts_of_a_fraction_of_a_voxel_are_told(axis, voxels):
    affine = affine_of((1, 0, 2), (1, -1, 1))
    moved = affine.copy()
    moved[:, 3] += affine[:, axis] * voxels
    assert f"{abs(voxels):.3g} voxels" in same_grid((10, 20, 30), affine, (10, 20, 30), moved)


@pytest.mark.parametrize("shape", [(10, 20, 30), (10, 20, 1)])
def test_another_spacing_flip_or_axis_order_is_told(shape):
    affine = affine_of((0, 1, 2), (1, 1, 1), spacing_mm=(1, 1, 2))
    for change in (np.diag([1, 1, 1.5, 1]), np.diag([-1, 1, 1, 1]), np.eye(4)[[1, 0, 2, 3]]):
        assert "affine" in same_grid(shape, affine, shape, affine @ change)


def test_another_shape_is_told_and_channels_are_not_compared():
    affine = affine_of((0, 1, 2), (1, 1, 1))
    assert same_grid((4, 5, 6), affine, (4, 5, 7), affine) == "shape 4 x 5 x 6 against 4 x 5 x 7"
    assert same_grid((4, 5, 6, 3), affine, (4, 5, 6), affine) == ""
