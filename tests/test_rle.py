"""COCO compressed RLE, against pycocotools."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco

from medcurate.format import rle

# pycocotools' own decode warns so under numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SHAPES = st.tuples(st.integers(1, 40), st.integers(1, 40))
MASKS = SHAPES.flatmap(lambda shape: hnp.arrays(np.bool_, shape))
STACKS = st.tuples(st.integers(1, 5), st.integers(1, 20), st.integers(1, 20)).flatmap(
    lambda shape: hnp.arrays(np.bool_, shape)
)


def by_pycocotools(mask: np.ndarray) -> bytes:
    return coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]


def large_masks() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:2048, :2048]
    return {
        "disc": (y - 1000) ** 2 + (x - 1100) ** 2 <= 800**2,
        "halves": x >= 1024,  # one run of two million pixels: five characters
        "noise": rng.random((2048, 2048)) < 0.5,
        "checkerboard": (y + x) % 2 == 1,
        "last pixel": (y == 2047) & (x == 2047),
        "first pixel": (y == 0) & (x == 0),
        "empty": np.zeros((2048, 2048), bool),
        "full": np.ones((2048, 2048), bool),
        "wide": rng.random((3, 2048)) < 0.1,
        "high": rng.random((2047, 1)) < 0.9,
    }


@given(MASKS)
@example(np.zeros((1, 1), bool))
@example(np.ones((1, 1), bool))
@example(np.ones((7, 1), bool))
@example(np.zeros((1, 9), bool))
@settings(max_examples=300, deadline=None)
def test_equal_to_pycocotools(mask):
    text = rle.encode(mask)
    assert text == by_pycocotools(mask)
    decoded = rle.decode(text, *mask.shape)
    assert decoded.dtype == np.bool_
    assert decoded.flags.c_contiguous
    np.testing.assert_array_equal(decoded, mask)


@pytest.mark.parametrize("name", large_masks())
def test_large_masks_equal_pycocotools(name):
    mask = large_masks()[name]
    text = rle.encode(mask)
    assert text == by_pycocotools(mask)
    np.testing.assert_array_equal(rle.decode(text, *mask.shape), mask)


@given(STACKS)
@settings(max_examples=100, deadline=None)
def test_many_masks_at_once_equal_one_by_one(masks):
    texts = rle.encode_many(masks)
    assert texts == [by_pycocotools(mask) for mask in masks]
    np.testing.assert_array_equal(rle.decode_many(texts, *masks.shape[1:]), masks)


@given(MASKS)
@settings(max_examples=50, deadline=None)
def test_memory_layout_does_not_matter(mask):
    assert rle.encode(mask.T[::-1]) == by_pycocotools(mask.T[::-1])
    assert rle.encode(np.asfortranarray(mask)) == by_pycocotools(mask)


def test_no_masks():
    assert rle.encode_many(np.zeros((0, 4, 5), bool)) == []
    assert rle.decode_many([], 4, 5).shape == (0, 4, 5)
    assert rle.compress(np.zeros(0, np.int64), np.zeros(0, np.int64)) == []


def counts_up_to(largest: int):
    counts = st.lists(st.one_of(st.integers(0, 40), st.integers(0, largest)), min_size=1, max_size=12)
    return st.lists(counts, min_size=1, max_size=5)


def written(counts: list[int]) -> bytes:
    """One number at a time: five bits a character, lowest first, bit 5 where more follow, ``0`` for no bits."""
    text = bytearray()
    for index, count in enumerate(counts):
        number = count - (counts[index - 2] if index > 2 else 0)
        while not -16 <= number < 16:
            text.append(48 + 32 + (number & 31))
            number >>= 5
        text.append(48 + (number & 31))
    return bytes(text)


def compressed(masks: list[list[int]]) -> list[bytes]:
    joined = np.array([count for counts in masks for count in counts], np.int64)
    return rle.compress(joined, np.array([len(counts) for counts in masks]))


@given(counts_up_to(2**24 - 1))
@settings(max_examples=200, deadline=None)
def test_counts_are_written_as_pycocotools_does(masks):
    """pycocotools keeps six bytes for each count, its closing zero included: larger counts overrun its memory."""
    expected = [coco.frPyObjects({"size": [1, 1], "counts": counts}, 1, 1)["counts"] for counts in masks]
    assert compressed(masks) == expected == [written(counts) for counts in masks]


@given(counts_up_to(2**31 - 1))
@settings(max_examples=200, deadline=None)
def test_counts_of_any_size_are_written(masks):
    assert compressed(masks) == [written(counts) for counts in masks]


@given(st.lists(st.integers(0, 6), min_size=2, max_size=20), st.integers(1, 4))
@settings(max_examples=200, deadline=None)
def test_runs_of_no_pixels_are_read_as_pycocotools_does(counts, height):
    """pycocotools never writes them, but others do."""
    counts.append(-sum(counts) % height + height)
    size = [height, sum(counts) // height]
    text = coco.frPyObjects({"size": size, "counts": counts}, *size)["counts"]
    np.testing.assert_array_equal(rle.decode(text, *size), coco.decode({"size": size, "counts": text}))


@given(MASKS, st.data())
@settings(max_examples=200, deadline=None)
def test_damaged_strings_are_refused_or_read_as_pycocotools_does(mask, data):
    text = bytearray(rle.encode(mask))
    text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    try:
        decoded = rle.decode(bytes(text), *mask.shape)
    except ValueError:
        return
    np.testing.assert_array_equal(decoded, coco.decode({"size": list(mask.shape), "counts": bytes(text)}))


@given(st.binary(max_size=30))
@settings(max_examples=200, deadline=None)
def test_any_bytes_raise_nothing_but_value_error(text):
    with contextlib.suppress(ValueError):
        assert rle.decode(text, 5, 4).shape == (5, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "empty, cut"),
        (b"o", "empty, cut"),  # says that another character follows
        (b"5 5", "other characters"),
        (b"5\xff5", "other characters"),
        (b"52", "describes 7 pixels"),
        (b"6555", "describes 26 pixels"),
        (b"e0", "over the 20 pixels"),
        (b"O1", "negative"),  # -1, 1
        (b"o" * 7 + b"0", "over 7 characters"),
    ],
)
def test_malformed_strings_say_why(text, message):
    with pytest.raises(ValueError, match=message):
        rle.decode(text, 5, 4)


def test_one_wrong_mask_among_many_is_refused():
    good = rle.encode(np.eye(5, 4, dtype=bool))
    with pytest.raises(ValueError, match="describes 7 pixels"):
        rle.decode_many([good, b"52", good], 5, 4)


def test_sums_beyond_64_bits_are_refused():
    """Counts that overflow to the right sum must not pass."""
    huge = rle.compress(np.array([0, 2**33, 0, 2**34, 20], np.int64), np.array([5]))[0]
    with pytest.raises(ValueError, match="over the 20 pixels"):
        rle.decode(huge, 5, 4)


@pytest.mark.parametrize("mask", [np.zeros((4, 4), np.uint8), np.zeros((0, 4), bool), np.zeros(4, bool)])
def test_only_bool_images_are_encoded(mask):
    with pytest.raises(ValueError, match="must be bool"):
        rle.encode(mask)
