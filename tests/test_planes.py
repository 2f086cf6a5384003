"""Planes in radiological display, the way back, and fast copies of strided planes."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813  (its usual name)
from grids import ORIENTATIONS, affine_of
from hypothesis import given, settings
from hypothesis import strategies as st

from medcurate.stages.contiguous import contiguous_plane, each_plane
from medcurate.stages.orient import canonical, canonical_affine, canonical_spacing_mm, orientation
from medcurate.stages.planes import (
    aspect,
    place_back,
    plane_affine,
    plane_spacing_mm,
    plane_uint8,
    planes,
    resolve_axes,
)

RIGHT, ANTERIOR, SUPERIOR = np.eye(3)
# axis -> directions in which slice_index, rows and columns grow
DISPLAY = {
    "z": (SUPERIOR, -ANTERIOR, -RIGHT),
    "y": (ANTERIOR, -SUPERIOR, -RIGHT),
    "x": (RIGHT, -SUPERIOR, -ANTERIOR),
}


@pytest.mark.parametrize("axis", "xyz")
@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS)
def test_every_pixel_of_every_plane_lies_where_the_stored_voxel_lies(order, signs, axis):
    affine, shape = affine_of(order, signs), (3, 4, 5)
    stored = np.arange(np.prod(shape)).reshape(shape)
    turned = orientation(affine)
    seen = canonical(stored, turned)
    stack = planes(seen, axis)
    to_mm = plane_affine(canonical_affine(affine, turned, shape), seen.shape, axis)

    pixels = np.array(list(np.ndindex(stack.shape)))
    voxels = np.column_stack(np.unravel_index(stack.ravel(), shape))
    ones = np.ones((len(pixels), 1))
    assert np.allclose(to_mm @ np.hstack([pixels, ones]).T, affine @ np.hstack([voxels, ones]).T)


@pytest.mark.parametrize("axis", "xyz")
def test_display_directions_and_spacing(axis):
    affine = affine_of((2, 0, 1), (-1, 1, -1))
    turned = orientation(affine)
    to_mm = plane_affine(canonical_affine(affine, turned, (3, 4, 5)), (4, 5, 3), axis)
    columns = to_mm[:3, :3]
    assert np.allclose(columns / np.linalg.norm(columns, axis=0), np.column_stack(DISPLAY[axis]))
    spacing = plane_spacing_mm(canonical_spacing_mm(affine, turned), axis)
    assert np.allclose(spacing, np.linalg.norm(columns, axis=0)[1:])


@pytest.mark.parametrize(("axis", "code"), [("z", "LPS"), ("y", "LIA"), ("x", "PIR")])
@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS[::5])
def test_equals_simpleitks_reorientation(order, signs, axis, code):
    affine, shape = affine_of(order, signs), (3, 4, 5)
    stored = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    image = sitk.GetImageFromArray(stored.transpose(2, 1, 0))
    lps = np.diag([-1, -1, 1]) @ affine[:3]
    spacing = np.linalg.norm(lps[:, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:, 3].tolist())

    expected = sitk.GetArrayFromImage(sitk.DICOMOrient(image, code))
    assert np.array_equal(planes(canonical(stored, orientation(affine)), axis), expected)


@settings(max_examples=50, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 6)] * 3),
    channels=st.sampled_from([(), (3,)]),
    axis=st.sampled_from("xyz"),
)
def test_place_back_is_the_inverse(shape, channels, axis):
    seen = np.arange(np.prod(shape + channels)).reshape(shape + channels)
    stack = planes(seen, axis)
    assert np.array_equal(place_back(stack, axis), seen)
    assert np.array_equal(planes(place_back(stack, axis), axis), stack)
    assert np.shares_memory(place_back(stack, axis), seen)


@pytest.mark.parametrize(
    ("rules", "spacing_mm", "expected"),
    [
        (("out-of-plane",), (0.7, 0.7, 5.0), ("z",)),
        (("out-of-plane",), (0.7, 5.0, 0.7), ("y",)),
        (("out-of-plane",), (3.0, 0.9, 0.9), ("x",)),
        (("out-of-plane",), (1.0, 1.0, 1.0), ("z",)),
        (("out-of-plane",), (1.0, 1.0, 0.995), ("z",)),
        (("out-of-plane",), (1.0, 0.995, 0.5), ("y",)),
        (("out-of-plane",), (1.0, 0.98, 0.5), ("x",)),
        (("out-of-plane",), (1.0, 0.5, 0.98), ("x",)),
        (("x", "y", "z"), (1.0, 1.0, 5.0), ("x", "y", "z")),
        (("out-of-plane", "x", "z", "y"), (1.0, 1.0, 5.0), ("z", "x", "y")),
    ],
)
def test_axes_of_a_recipe(rules, spacing_mm, expected):
    assert resolve_axes(rules, spacing_mm) == expected


def test_aspect_is_short_over_long():
    assert aspect(100, 400) == aspect(400, 100) == 0.25
    assert aspect(7, 7) == 1


@pytest.mark.parametrize("axis", "xyz")
@pytest.mark.parametrize("channels", [(), (3,)])
@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS)
def test_copied_planes_equal_their_views(order, signs, channels, axis):
    rng = np.random.default_rng(0)
    for layout in "CF":
        stored = np.array(rng.integers(0, 256, (70, 9, 66, *channels)), np.uint8, order=layout)
        stack = planes(canonical(stored, orientation(affine_of(order, signs))), axis)
        for index, plane in each_plane(stack, range(len(stack))):
            assert plane.flags.c_contiguous
            assert np.array_equal(plane, stack[index])
        assert np.array_equal(plane_uint8(stack, 1), stack[1])
        assert plane_uint8(stack, 1).flags.c_contiguous


@settings(max_examples=60, deadline=None)
@given(
    dtype=st.sampled_from(["?", "i1", "<u2", ">u2", ">i4", "<f4", ">f8", "<i8", "c16", "f2"]),
    order=st.permutations(range(3)),
    steps=st.tuples(*[st.sampled_from([1, -1, 2, -3])] * 3),
    shape=st.tuples(*[st.integers(1, 40)] * 3),
    wanted=st.sets(st.integers(0, 39)),
)
def test_planes_of_any_dtype_and_stride_are_exact(dtype, order, steps, shape, wanted):
    raw = np.random.default_rng(1).integers(0, 2, shape) if dtype == "?" else np.arange(np.prod(shape))
    stack = raw.reshape(shape).astype(dtype).transpose(order)[tuple(slice(None, None, s) for s in steps)]
    indices = sorted(index for index in wanted if index < len(stack))
    got = list(each_plane(stack, indices))
    assert [index for index, _ in got] == indices
    for index, plane in got:
        assert plane.flags.c_contiguous
        assert plane.dtype == stack.dtype
        assert np.array_equal(plane, stack[index])
        assert np.array_equal(contiguous_plane(stack[index]), stack[index])
