"""Grey values and bounds against scalar arithmetic, fractions and np.percentile."""

from __future__ import annotations

import math
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from medcurate.config.recipe import Clip, MinMax, Percentiles, Rgb, Window
from medcurate.errors import CaseRejected, ConfigError, Reason
from medcurate.stages import intensity
from medcurate.stages.intensity import bounds, rule_for, scale_for, to_uint8
from medcurate.types import Volume

DTYPES = [
    "?",
    "i1",
    "u1",
    "<i2",
    ">i2",
    "<u2",
    ">u2",
    "<i4",
    ">i4",
    "u4",
    "i8",
    "u8",
    "f2",
    "<f4",
    ">f4",
    "f8",
]
SLOPES = st.sampled_from([1.0, -1.0, 0.5, 2.0, -0.1, 1.7, 3e-5])
INTERCEPTS = st.sampled_from([0.0, -1024.0, 0.3, 7.0])


def finite(dtype):
    dtype = np.dtype(dtype)
    wide = {"min_value": -1e6, "max_value": 1e6} if dtype.kind == "f" and dtype.itemsize > 2 else {}
    few = {"allow_nan": False, "allow_infinity": False} if dtype.kind == "f" else {}
    values = hnp.from_dtype(dtype, **wide, **few)
    return hnp.arrays(dtype, hnp.array_shapes(min_dims=2, max_dims=3, max_side=6), elements=values)


voxel_arrays = st.sampled_from(DTYPES).flatmap(finite)


def grey_of(stored, slope, intercept, low, high):
    value = min(max(float(stored) * slope + intercept, low), high)
    return math.floor(255.0 * (value - low) / (high - low) + 0.5)


def exact_grey_of(stored, slope, intercept, low, high):
    value = Fraction(float(stored)) * Fraction(slope) + Fraction(intercept)
    low, high = Fraction(low), Fraction(high)
    return 255 * (min(max(value, low), high) - low) / (high - low)


def physical(voxels, slope, intercept):
    return voxels.astype(np.float64) * slope + intercept


@settings(max_examples=250, deadline=None)
@given(
    voxels=voxel_arrays,
    slope=SLOPES,
    intercept=INTERCEPTS,
    low=st.floats(-3000, 3000),
    width=st.floats(1e-3, 5000),
)
def test_grey_equals_scalar_arithmetic_for_every_dtype(voxels, slope, intercept, low, width):
    high = low + width
    grey = to_uint8(voxels, slope, intercept, low, high)
    assert grey.dtype == np.uint8
    assert grey.shape == voxels.shape
    for stored, found in zip(voxels.ravel().tolist(), grey.ravel().tolist(), strict=True):
        assert found == grey_of(stored, slope, intercept, low, high)
        # Half a grey, and the rounding of float64 beside it: never further from the exact fraction.
        assert abs(found - exact_grey_of(stored, slope, intercept, low, high)) <= 0.5 + 1e-6


@pytest.mark.parametrize("slope", [1.0, -0.7])
def test_all_16_bit_patterns_are_monotone_and_equal_in_every_wider_type(slope):
    voxels = np.arange(-(1 << 15), 1 << 15).astype(np.int16).reshape(256, 256)
    grey = to_uint8(voxels, slope, 12.5, -160.0, 240.0)
    steps = np.diff(grey.ravel().astype(int)) * np.sign(slope)
    assert set(steps.tolist()) == {0, 1}
    assert {int(grey.min()), int(grey.max())} == {0, 255}
    for dtype in (">i2", "<i4", ">i4", "i8", "f4", ">f4", "f8", np.longdouble):
        assert np.array_equal(to_uint8(voxels.astype(dtype), slope, 12.5, -160.0, 240.0), grey)
    unsigned = (voxels.astype(np.int32) + (1 << 15)).astype(np.uint16)
    assert np.array_equal(to_uint8(unsigned, slope, 12.5 - slope * (1 << 15), -160.0, 240.0), grey)


def test_bounds_and_halves_are_where_the_rule_says():
    voxels = np.array([[-501, -500, 1000, 1001]], np.int16)
    assert to_uint8(voxels, 1.0, 0.0, -500.0, 1000.0).tolist() == [[0, 0, 255, 255]]
    halves = np.array([[0, 1, 2, 3, 4]], np.uint8)  # 0, 0.5, 1, 1.5, 2 greys
    assert to_uint8(halves, 1.0, 0.0, 0.0, 510.0).tolist() == [[0, 1, 1, 2, 2]]


@pytest.mark.parametrize("dtype", ["i2", "f4"])
def test_memory_order_is_kept_and_strided_input_is_exact(dtype):
    base = np.random.default_rng(0).integers(-900, 900, (6, 7, 8)).astype(dtype)
    for voxels in (base, np.asfortranarray(base), base.transpose(1, 2, 0)):
        grey = to_uint8(voxels, 1.0, 0.0, -500.0, 500.0)
        assert np.array_equal(np.argsort(grey.strides), np.argsort(voxels.strides))
        assert np.array_equal(grey, to_uint8(voxels.copy(), 1.0, 0.0, -500.0, 500.0))
    for voxels in (base[::-1, :, ::2], base[:, ::-3].T):
        assert np.array_equal(
            to_uint8(voxels, 1.0, 0.0, -500.0, 500.0),
            to_uint8(np.ascontiguousarray(voxels), 1.0, 0.0, -500.0, 500.0),
        )


def test_the_input_is_not_changed():
    for dtype in ("i2", "f4", "f8"):
        voxels = np.linspace(-5, 5, 60).reshape(3, 4, 5).astype(dtype)
        voxels.flags.writeable = False
        before = voxels.copy()
        rule = Percentiles(rule="percentiles", low=1, high=99, voxels="nonzero")
        to_uint8(voxels, 2.0, 1.0, *bounds(voxels, 2.0, 1.0, rule))
        assert np.array_equal(voxels, before)


def test_without_opencvs_16_bit_table_the_bytes_are_the_same(monkeypatch):
    voxels = np.random.default_rng(0).integers(-2000, 3000, (30, 31, 32)).astype(np.int16)
    expected = to_uint8(voxels, 1.0, 0.0, -500.0, 1000.0)
    monkeypatch.setattr(intensity, "_CV_LOOKS_UP_16_BIT", False)
    assert np.array_equal(to_uint8(voxels, 1.0, 0.0, -500.0, 1000.0), expected)


@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), (2.0, 1.0), (0.0, np.inf), (-1e308, 1e308)])
def test_bounds_without_a_width_are_a_callers_mistake(low, high):
    with pytest.raises(ValueError, match="low must be below high"):
        to_uint8(np.zeros((2, 2)), 1.0, 0.0, low, high)


@settings(max_examples=300, deadline=None)
@given(
    voxels=voxel_arrays,
    slope=SLOPES,
    intercept=INTERCEPTS,
    percents=st.tuples(st.floats(0, 99), st.floats(0.001, 1)),
    which=st.sampled_from(["all", "nonzero"]),
)
def test_percentiles_equal_numpys_exactly(voxels, slope, intercept, percents, which):
    low_percent, high_percent = percents[0], percents[0] + percents[1]
    rule = Percentiles(rule="percentiles", low=low_percent, high=high_percent, voxels=which)
    values = physical(voxels, slope, intercept)
    chosen = values[values != 0] if which == "nonzero" else values
    expected = np.percentile(chosen, [low_percent, high_percent]).tolist() if chosen.size else [0.0, 0.0]
    if not expected[0] < expected[1]:
        with pytest.raises(CaseRejected) as caught:
            bounds(voxels, slope, intercept, rule)
        assert caught.value.reason is Reason.BAD_INTENSITY
    else:
        assert list(bounds(voxels, slope, intercept, rule)) == expected


@pytest.mark.parametrize("dtype", ["i2", "u1", "i4", "f4", "f8"])
@pytest.mark.parametrize("which", ["all", "nonzero"])
def test_percentiles_of_an_image_equal_numpys(dtype, which):
    rng = np.random.default_rng(3)
    image = np.where(rng.random((61, 62, 63)) < 0.4, 0, rng.normal(90, 40, (61, 62, 63)).clip(-20, 255))
    voxels = np.asfortranarray(np.abs(image) if dtype == "u1" else image).astype(dtype)
    values = voxels.astype(np.float64).ravel()
    values = values[values != 0] if which == "nonzero" else values
    rule = Percentiles(rule="percentiles", low=0.5, high=99.5, voxels=which)
    assert list(bounds(voxels, 1.0, 0.0, rule)) == np.percentile(values, [0.5, 99.5]).tolist()


def test_counts_beyond_float32_stay_exact():
    """A histogram in float32 loses counts above 2**24 and would move the upper percentile."""
    voxels = np.zeros((1 << 12, (1 << 12) + 3), np.uint8)
    voxels[-1, -2:] = 100, 200
    rule = Percentiles(rule="percentiles", low=0, high=100 * (1 - 1 / (voxels.size - 1)))
    assert bounds(voxels, 1.0, 0.0, rule)[1] == pytest.approx(100, abs=1e-6)


@settings(max_examples=100, deadline=None)
@given(voxels=voxel_arrays, slope=SLOPES, intercept=INTERCEPTS)
def test_minmax_spans_the_whole_range(voxels, slope, intercept):
    values = physical(voxels, slope, intercept)
    if values.min() == values.max():
        with pytest.raises(CaseRejected, match="equal"):
            bounds(voxels, slope, intercept, MinMax(rule="minmax"))
        return
    low, high = bounds(voxels, slope, intercept, MinMax(rule="minmax"))
    assert (low, high) == (values.min(), values.max())
    grey = to_uint8(voxels, slope, intercept, low, high)
    assert (grey.min(), grey.max()) == (0, 255)


def test_clip_and_window_do_not_look_at_the_data():
    voxels = np.array([[-1000, 40, 2000]], np.int16)
    assert bounds(voxels, 1.0, 0.0, Clip(rule="clip", low=-500, high=1000)) == (-500, 1000)
    assert bounds(voxels, 1.0, 0.0, Window(rule="window", level=40, width=400)) == (-160, 240)


ANY_RULE = [
    Clip(rule="clip", low=-500, high=1000),
    Window(rule="window", level=40, width=400),
    Percentiles(rule="percentiles", low=1, high=99),
    Percentiles(rule="percentiles", low=1, high=99, voxels="nonzero"),
    MinMax(rule="minmax"),
]


@pytest.mark.parametrize("rule", ANY_RULE, ids=lambda rule: rule.rule)
@pytest.mark.parametrize("dtype", ["f2", "f4", ">f8"])
def test_nan_and_infinite_voxels_are_refused_with_their_count(rule, dtype):
    voxels = np.arange(60, dtype=dtype).reshape(3, 4, 5)
    voxels[0, 0, 0], voxels[1, 1, 1], voxels[2, 2, 2] = np.nan, np.inf, -np.inf
    with pytest.raises(CaseRejected) as caught:
        bounds(voxels, 1.0, 0.0, rule)
    assert caught.value.reason is Reason.BAD_INTENSITY
    assert caught.value.measures == {"measure": 3, "bound": 0}


@pytest.mark.parametrize("rule", ANY_RULE, ids=lambda rule: rule.rule)
@pytest.mark.parametrize(
    ("voxels", "slope", "intercept"),
    [
        (np.full((3, 3), 7, np.int16), 1.0, 0.0),
        (np.zeros((3, 3), np.float32), 1.0, 0.0),
        (np.arange(9).reshape(3, 3), 0.0, 5.0),
        (np.arange(9).reshape(3, 3), np.nan, 0.0),
        (np.arange(9.0).reshape(3, 3), 1e308, 0.0),
        (np.zeros((0, 3), np.int16), 1.0, 0.0),
        (np.ones((3, 3), np.complex64), 1.0, 0.0),
    ],
    ids=["constant", "zero", "no-slope", "nan-slope", "overflow", "empty", "complex"],
)
def test_volumes_without_contrast_are_refused(rule, voxels, slope, intercept):
    with pytest.raises(CaseRejected) as caught:
        bounds(voxels, slope, intercept, rule)
    assert caught.value.reason is Reason.BAD_INTENSITY


@pytest.mark.parametrize(("values", "word"), [([2000, 3000], "below"), ([-2000, -500], "above")])
def test_nothing_between_the_bounds_is_refused(values, word):
    with pytest.raises(CaseRejected, match=word):
        bounds(np.array([values], np.int16), 1.0, 0.0, Clip(rule="clip", low=-500, high=1000))


@pytest.mark.parametrize("slope", [1.0, -2.0])
def test_one_voxel_of_a_large_volume_makes_it_readable_and_its_want_is_seen(slope):
    rule = Clip(rule="clip", low=-500, high=1000)
    voxels = np.full((64, 48, 80), 40 if slope > 0 else -20, np.int16)
    with pytest.raises(CaseRejected, match="all voxels are equal"):
        bounds(voxels, slope, 0.0, rule)
    voxels[63, 47, 79] = 0
    assert bounds(voxels, slope, 0.0, rule) == (-500, 1000)
    above = (voxels * slope + 1000) * np.sign(slope)  # as stored, everything lies above the window
    with pytest.raises(CaseRejected, match="below the upper bound"):
        bounds(above.astype(np.int16), np.sign(slope), 0.0, rule)


def test_a_scale_gives_grey_and_its_bounds():
    volume = Volume(voxels=np.array([[[-1000, 0, 1000]]], np.int16), affine=np.eye(4))
    scale = scale_for(volume, Clip(rule="clip", low=-500, high=1000))
    assert scale.grey(volume.voxels).tolist() == [[[0, 85, 255]]]
    assert (scale.low, scale.high) == (-500, 1000)


@pytest.mark.parametrize("dtype", ["i2", ">i2", "u1", "f4", ">f8"])
def test_a_part_of_a_volume_is_as_grey_as_in_the_whole(dtype):
    voxels = np.random.default_rng(0).integers(0, 200, (9, 8, 7)).astype(dtype)
    volume = Volume(voxels=np.asfortranarray(voxels), affine=np.eye(4), slope=1.5, intercept=-20.0)
    scale = scale_for(volume, Percentiles(rule="percentiles", low=2, high=97))
    whole = to_uint8(voxels, 1.5, -20.0, scale.low, scale.high)
    assert np.array_equal(scale.grey(volume.voxels), whole)
    assert np.array_equal(scale.grey(volume.voxels[::-1, 2:5]), whole[::-1, 2:5])


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3)])
def test_pictures_are_stored_as_they_are(shape):
    picture = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    scale = scale_for(Volume(voxels=picture), Rgb(rule="rgb"))
    assert np.array_equal(scale.grey(picture), picture)
    assert (scale.low, scale.high) == (None, None)
    assert np.array_equal(to_uint8(picture, 1.0, 0.0, *bounds(picture, 1.0, 0.0, Rgb(rule="rgb"))), picture)


@pytest.mark.parametrize(
    "volume",
    [
        Volume(voxels=np.zeros((4, 5), np.uint16)),
        Volume(voxels=np.zeros((4, 5, 4), np.uint8)),
        Volume(voxels=np.zeros((4, 5, 6), np.uint8), affine=np.eye(4)),
        Volume(voxels=np.zeros((4, 5), np.uint8), slope=2.0),
    ],
    ids=["16-bit", "alpha", "grey-volume", "scaled"],
)
def test_other_data_than_pictures_is_refused_by_rgb(volume):
    with pytest.raises(CaseRejected, match="rgb") as caught:
        scale_for(volume, Rgb(rule="rgb"))
    assert caught.value.reason is Reason.BAD_INTENSITY


@pytest.mark.parametrize(
    "volume",
    [
        Volume(voxels=np.zeros((4, 5, 3), np.uint8)),
        Volume(voxels=np.zeros((4, 5, 6, 3), np.uint8), affine=np.eye(4)),
    ],
)
@pytest.mark.parametrize("rule", ANY_RULE, ids=lambda rule: rule.rule)
def test_colour_needs_the_rgb_rule(volume, rule):
    with pytest.raises(CaseRejected, match='"rgb"') as caught:
        scale_for(volume, rule)
    assert caught.value.reason is Reason.BAD_INTENSITY


def test_the_rule_of_a_modality_or_the_default():
    ct, other = Clip(rule="clip", low=0, high=1), MinMax(rule="minmax")
    assert rule_for("ct", {"ct": ct, "default": other}) is ct
    assert rule_for("mr", {"ct": ct, "default": other}) is other
    with pytest.raises(ConfigError, match=r'"mr".*ct'):
        rule_for("mr", {"ct": ct})


@pytest.mark.parametrize("dtype", ["i2", "f4", ">f4", "f8"])
def test_temporaries_do_not_grow_with_the_volume(dtype):
    """The whole stage stays under one array of the volume's size beyond its uint8 result."""
    peaks = []
    for depth in (24, 96):
        voxels = np.random.default_rng(0).normal(0, 300, (256, 256, depth)).astype(dtype)
        rule = Percentiles(rule="percentiles", low=0.5, high=99.5, voxels="nonzero")
        tracemalloc.start()
        grey = to_uint8(voxels, 1.5, 3.0, *bounds(voxels, 1.5, 3.0, rule))
        peaks.append(tracemalloc.get_traced_memory()[1] - grey.nbytes)
        tracemalloc.stop()
    assert peaks[1] < max(peaks[0], 1 << 20) * 1.25 + (6 << 20)
