"""One geometry for images, masks, prompts and predictions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medcurate.train.geometry import (
    frame_of,
    is_scaled,
    place_image,
    place_masks,
    restore_logits,
    to_square,
)
from medcurate.train.types import Frame

SIDES = st.integers(1, 90)
FITS = st.sampled_from(["resize", "pad", "sam-med2d"])


def placed(image: np.ndarray, frame: Frame, interpolation: str = "nearest") -> np.ndarray:
    out = np.zeros((3, frame.side, frame.side), np.uint8)
    place_image(image, frame, interpolation, out, (0, 0, 0))
    return out


def centres(frame: Frame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Whether each pixel of the square is of the image, (S, S); y and x of its centre in the image, (S,)."""
    middle = np.arange(frame.side) + 0.5
    y = (middle - frame.top) * frame.height / frame.scaled_height
    x = (middle - frame.left) * frame.width / frame.scaled_width
    inside = ((y >= 0) & (y < frame.height))[:, None] & ((x >= 0) & (x < frame.width))[None]
    return inside, y, x


def sampled(frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    """The row and the column that each pixel of the square shows: where images of them are placed."""
    rows = np.repeat(np.arange(frame.height, dtype=np.uint8)[:, None], frame.width, axis=1)
    cols = np.repeat(np.arange(frame.width, dtype=np.uint8)[None], frame.height, axis=0)
    return placed(rows, frame)[0], placed(cols, frame)[0]


@pytest.mark.parametrize(
    ("height", "width", "fit", "expected"),
    [
        (100, 200, "resize", Frame(100, 200, 64, 64, 64)),
        (100, 200, "pad", Frame(100, 200, 64, 32, 64)),
        (30, 20, "pad", Frame(30, 20, 64, 64, 43)),
        (1, 900, "pad", Frame(1, 900, 64, 1, 64)),
        (30, 21, "sam-med2d", Frame(30, 21, 64, 30, 21, 17, 21)),
        (30, 64, "sam-med2d", Frame(30, 64, 64, 64, 64)),
        (300, 20, "sam-med2d", Frame(300, 20, 64, 64, 64)),
    ],
)
def test_frames(height, width, fit, expected):
    assert frame_of(height, width, 64, fit) == expected


def test_pad_scales_as_sam_does():
    """segment-anything, ResizeLongestSide.get_preprocess_shape: int(side * scale + 0.5)."""
    for height in range(1, 80, 7):
        for width in range(1, 80, 5):
            scale = 48 / max(height, width)
            frame = frame_of(height, width, 48, "pad")
            assert frame.scaled_height == max(int(height * scale + 0.5), 1)
            assert frame.scaled_width == max(int(width * scale + 0.5), 1)
            assert (frame.top, frame.left) == (0, 0)


@settings(max_examples=80, deadline=None)
@given(SIDES, SIDES, st.integers(1, 70), FITS, st.integers(0, 2**31), st.booleans())
def test_image_and_masks_are_sampled_below_the_same_centres(height, width, side, fit, seed, rgb):
    rng = np.random.default_rng(seed)
    frame = frame_of(height, width, side, fit)
    image = rng.integers(1, 256, (height, width, 3) if rgb else (height, width), dtype=np.uint8)
    masks = rng.random((3, height, width)) < 0.5
    inside, y, x = centres(frame)
    rows, cols = sampled(frame)
    # OpenCV's steps have 16 bits: a centre that lies between two pixels may show either
    assert np.abs((rows + 0.5 - y[:, None])[inside]).max() < 0.51
    assert np.abs((cols + 0.5 - x[None])[inside]).max() < 0.51
    wanted = image[rows, cols] * (inside[..., None] if rgb else inside)
    wanted = wanted.transpose(2, 0, 1) if rgb else np.repeat(wanted[None], 3, axis=0)
    assert np.array_equal(placed(image, frame), wanted)
    assert np.array_equal(place_masks(masks, frame), masks[:, rows, cols] & inside)


@settings(max_examples=60, deadline=None)
@given(SIDES, SIDES, st.integers(8, 70), FITS)
def test_points_go_where_their_pixel_goes(height, width, side, fit):
    frame = frame_of(height, width, side, fit)
    corners = to_square(np.array([[0, 0], [width, height]], np.float32), frame)
    assert corners[0].tolist() == [frame.left, frame.top]
    assert np.allclose(corners[1], (frame.left + frame.scaled_width, frame.top + frame.scaled_height))
    inside, y, x = centres(frame)
    for row, col in np.argwhere(inside)[::side]:
        there = to_square(np.array([x[col], y[row]], np.float32), frame)
        assert np.allclose(there, (col + 0.5, row + 0.5), atol=1e-3)


def test_averages_when_shrinking_and_interpolates_when_growing():
    image = np.zeros((64, 64), np.uint8)
    image[::2, ::2] = 200  # single pixels, which sampling would take or leave
    shrunk = placed(image, frame_of(64, 64, 32, "resize"), "linear")
    assert set(np.unique(shrunk)) == {50}
    ramp = np.repeat(np.arange(0, 240, 24, dtype=np.uint8)[None], 10, axis=0)
    grown = placed(ramp, frame_of(10, 10, 40, "resize"), "linear")[0]
    assert (np.diff(grown[0].astype(int)) >= 0).all()
    assert np.abs(np.diff(grown[0].astype(int))).max() <= 7
    mixed = placed(np.repeat(ramp, 10, axis=0), frame_of(100, 10, 40, "resize"), "linear")[0]  # down and up
    assert np.array_equal(mixed[0], mixed[-1])


@settings(max_examples=40, deadline=None)
@given(st.integers(20, 90), st.integers(20, 90), FITS, st.sampled_from([16, 64]))
def test_predictions_come_back_to_the_image(height, width, fit, resolution):
    frame = frame_of(height, width, 64, fit)
    y, x = np.mgrid[:height, :width]
    mask = ((y - height * 0.4) / (height * 0.3)) ** 2 + ((x - width * 0.55) / (width * 0.35)) ** 2 <= 1
    square = torch.from_numpy(place_masks(mask[None], frame)).float()[None] * 20 - 10
    logits = torch.nn.functional.interpolate(square, (resolution, resolution), mode="area")
    restored = restore_logits(logits, frame)
    assert restored.shape == (1, 1, height, width)
    found = (restored[0, 0] > 0).numpy()
    dice = 2 * (found & mask).sum() / (found.sum() + mask.sum())
    assert dice > (0.93 if resolution == 64 else 0.8)


def test_without_scaling_predictions_come_back_as_they_are():
    frame = frame_of(30, 21, 64, "sam-med2d")
    assert not is_scaled(frame)
    logits = torch.randn(2, 3, 64, 64)
    assert torch.equal(restore_logits(logits, frame), logits[..., 17:47, 21:42])
