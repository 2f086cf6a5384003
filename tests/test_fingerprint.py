"""What a voxel digest must not see, and what it must."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import xxhash
from grids import ORIENTATIONS, affine_of
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from medcurate.stages.fingerprint import picture_digest, voxel_digest
from medcurate.stages.orient import canonical, canonical_affine, canonical_spacing_mm, orientation

SPACING_MM = (0.7, 0.8, 5.0)
SHAPES = hnp.array_shapes(min_dims=3, max_dims=3, max_side=6)


def image(shape=(9, 8, 7), low=-1024, high=3000):
    return np.random.default_rng(0).integers(low, high, shape).astype(np.int16)


def test_the_canonical_form_is_fixed():
    """Digests are stored in datasets: a change here needs a new version in the header."""
    voxels = np.arange(-12, 12, dtype=np.int16).reshape(2, 3, 4)
    written = b"medcurate-voxels-1|[2, 3, 4]|[700, 800, 5000]|" + b"".join(
        b"i2" + struct.pack("<6h", *(voxels[x, y, z] for y in range(3) for x in range(2))) for z in range(4)
    )
    assert voxel_digest(voxels, SPACING_MM) == xxhash.xxh3_128_hexdigest(written)

    halves = voxels[:, :, :1] / 8
    written = b"medcurate-voxels-1|[2, 3, 1]|[]|f8" + struct.pack("<6d", *halves[:, :, 0].T.ravel())
    assert voxel_digest(halves, None) == xxhash.xxh3_128_hexdigest(written)


@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS)
def test_stored_orientation_does_not_matter(order, signs):
    seen = image()
    turned = orientation(affine_of(order, signs, SPACING_MM))
    # Store the canonical image in this orientation: undo the flips, then the permutation.
    flipped = seen[tuple(slice(None, None, -1 if flip else None) for flip in turned.flips)]
    stored = np.ascontiguousarray(flipped.transpose(np.argsort(turned.axes)))
    affine = affine_of(order, signs, np.array(SPACING_MM)[list(order)])
    assert np.array_equal(canonical(stored, turned), seen)
    found = voxel_digest(canonical(stored, turned), canonical_spacing_mm(affine, turned))
    assert found == voxel_digest(seen, SPACING_MM)


@settings(max_examples=80, deadline=None)
@given(
    voxels=hnp.arrays(np.int16, SHAPES, elements=st.integers(0, 127)),
    dtype=st.sampled_from([
        "i1",
        "u1",
        ">i2",
        "<u2",
        ">u2",
        "i4",
        ">i8",
        "u8",
        "f2",
        "f4",
        ">f4",
        "f8",
        ">f8",
    ]),
    order=st.sampled_from("CF"),
    slope=st.sampled_from([1.0, 0.5, -0.25, 1e-3]),
    intercept=st.sampled_from([0.0, -1024.0, 40000.0, 0.5]),
)
def test_dtype_byte_order_and_memory_order_do_not_matter(voxels, dtype, order, slope, intercept):
    stored = np.array(voxels, dtype, order=order)
    expected = voxel_digest(voxels, SPACING_MM, slope=slope, intercept=intercept)
    assert voxel_digest(stored, SPACING_MM, slope=slope, intercept=intercept) == expected
    applied = voxels.astype(np.float64) * slope + intercept
    assert voxel_digest(applied, SPACING_MM) == expected


@pytest.mark.parametrize(
    ("stored", "slope", "intercept"),
    [
        (lambda hu: (hu + 1024).astype(np.uint16), 1.0, -1024.0),
        (lambda hu: (hu + 1024.0).astype(np.float32), 1.0, -1024.0),
        (lambda hu: (-hu).astype(np.int32), -1.0, 0.0),
        (lambda hu: (hu * 4).astype(np.int16), 0.25, 0.0),
        (lambda hu: (hu.astype(np.int32) + 40000).astype(np.uint16), 1.0, -40000.0),
        (lambda hu: hu.astype(np.int64) - (1 << 40), 1.0, float(1 << 40)),
    ],
)
def test_slope_and_intercept_do_not_matter(stored, slope, intercept):
    hu = image()
    assert voxel_digest(stored(hu), None, slope=slope, intercept=intercept) == voxel_digest(hu, None)


@pytest.mark.parametrize("value", [1 << 15, -(1 << 15) - 1, 1 << 40, -(1 << 53)])
def test_wide_integers_equal_their_floats_and_nothing_else(value):
    voxels = np.zeros((3, 4, 5), np.int64)
    voxels[1, 2, 3] = value
    assert voxel_digest(voxels.astype(np.float64), None) == voxel_digest(voxels, None)
    assert voxel_digest(voxels.astype(np.int16), None) != voxel_digest(voxels, None)


def test_unsigned_values_do_not_wrap():
    voxels = np.full((3, 4, 5), 40000, np.uint16)
    assert voxel_digest(voxels, None) == voxel_digest(voxels.astype(np.int32), None)
    assert voxel_digest(voxels, None) != voxel_digest(voxels.astype(np.int16), None)


def test_fractions_are_exact_in_both_float_types_and_zero_has_one_sign():
    voxels = np.random.default_rng(0).normal(size=(5, 6, 7)).astype(np.float32)
    voxels[0, 0] = 0
    negative = np.where(voxels == 0, -voxels, voxels)
    assert np.signbit(negative).sum() != np.signbit(voxels).sum()
    assert voxel_digest(voxels.astype(np.float64), None) == voxel_digest(voxels, None)
    assert voxel_digest(negative, None) == voxel_digest(voxels, None)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 1e300])
def test_values_that_no_integer_holds_still_have_a_digest(value):
    voxels = np.zeros((3, 4, 5))
    voxels[1, 1, 1] = value
    assert voxel_digest(voxels, None) != voxel_digest(np.zeros((3, 4, 5)), None)


@settings(max_examples=120, deadline=None)
@given(
    dtype=st.sampled_from(["u1", "i2", "u2", "i4", "f4", "f8"]),
    shape=SHAPES,
    data=st.data(),
)
def test_one_voxel_changed_by_one_changes_it(dtype, shape, data):
    voxels = np.random.default_rng(1).integers(0, 200, shape).astype(dtype)
    place = data.draw(st.tuples(*[st.integers(0, size - 1) for size in shape]))
    changed = voxels.copy()
    changed[place] += 1
    assert voxel_digest(changed, None) != voxel_digest(voxels, None)


def test_place_shape_and_spacing_matter():
    voxels = image()
    digests = [
        voxel_digest(voxels, SPACING_MM),
        voxel_digest(voxels, None),
        voxel_digest(voxels, (0.7, 0.8, 5.01)),
        voxel_digest(voxels, (0.8, 0.7, 5.0)),
        voxel_digest(voxels[::-1], SPACING_MM),
        voxel_digest(voxels[:, ::-1], SPACING_MM),
        voxel_digest(voxels[:, :, ::-1], SPACING_MM),
        voxel_digest(voxels[:, :, 1:], SPACING_MM),
        voxel_digest(voxels.transpose(1, 0, 2), SPACING_MM),
        voxel_digest(voxels.reshape(9, 7, 8, order="F"), SPACING_MM),
        voxel_digest(voxels[..., np.newaxis], SPACING_MM),
    ]
    assert len(set(digests)) == len(digests)


@pytest.mark.parametrize("spacing", [0.7125, 0.5, 0.48828125, 1 / 3, 0.0005, 2.5])
def test_spacing_from_float32_headers_is_the_same(spacing):
    for noise in (-1e-7, 0, 1e-7):
        noisy = float(np.float32(spacing)) * (1 + noise)
        assert voxel_digest(image(), (noisy, 1, 1)) == voxel_digest(image(), (spacing, 1, 1))


def test_oblique_grids_have_the_spacing_of_their_voxels():
    angle = np.radians(20)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    straight = affine_of((0, 1, 2), (1, 1, 1), SPACING_MM)
    digests = set()
    for affine in (straight, turn @ straight):
        turned = orientation(affine)
        assert canonical_affine(affine, turned, (9, 8, 7)).shape == (4, 4)
        digests.add(voxel_digest(canonical(image(), turned), canonical_spacing_mm(affine, turned)))
    assert len(digests) == 1


def test_pictures():
    rng = np.random.default_rng(0)
    grey, colour = (rng.integers(0, 256, shape, dtype=np.uint8) for shape in ((40, 30), (40, 30, 3)))
    assert voxel_digest(grey, None) == voxel_digest(np.asfortranarray(grey.astype(np.uint16)), None)
    assert picture_digest(colour) == picture_digest(np.asfortranarray(colour))
    assert picture_digest(colour) != picture_digest(colour[..., ::-1])
    assert picture_digest(colour) != picture_digest(colour[::-1])


@pytest.mark.parametrize("shape", [(700, 800, 3), (3, 1_000_000, 3), (1500, 1100), (1, 1)])
def test_large_pictures_are_digested_in_pieces_that_do_not_show(shape):
    picture = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    digest = picture_digest if picture.ndim == 3 else lambda array: voxel_digest(array, None)
    assert digest(picture) == digest(picture.astype(np.int32))
