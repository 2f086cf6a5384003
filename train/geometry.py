"""The one geometry of the trainer: how an image lies in the model's square, there and back.

Images, masks, prompts and predictions all go through a ``Frame``, so they cannot disagree. Continuous
coordinates count from the outer corner of the first pixel, so that the centre of pixel (row, column) is at
(x, y) = (column + 0.5, row + 0.5), and scaling moves x to x * scaled_width / width + left.
Source of "pad": segment-anything, utils/transforms.py (``ResizeLongestSide``) and ``Sam.preprocess``; of
"sam-med2d": its published data loader, which centres small images among zeros. Both put these zeros around an
image that is normalised already: what stands around our pixels is the colour that becomes zero.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np
import numpy.typing as npt

from medcurate.train.types import Frame

if TYPE_CHECKING:
    import torch

Fit = Literal["resize", "pad", "sam-med2d"]
Interpolation = Literal["linear", "nearest"]
Floats = npt.NDArray[np.float32]
Colour = tuple[int, int, int]

PADDING: MappingProxyType[str, Colour] = MappingProxyType({"rgb": (124, 116, 104), "bgr": (104, 116, 124)})
"""What stands around an image, RGB, by the model's channel order: within half a grey value of zero once normalised."""


def frame_of(height: int, width: int, side: int, fit: Fit) -> Frame:
    """How an image of ``height`` x ``width`` pixels fills a square of ``side``.

    "resize": both sides become ``side``. "pad": the long side becomes ``side``, padding stands right and below.
    "sam-med2d": images smaller than the square on both sides are not scaled but centred, others as "resize".
    """
    if fit == "pad":
        scale = side / max(height, width)
        scaled = (max(int(height * scale + 0.5), 1), max(int(width * scale + 0.5), 1))
        return Frame(height, width, side, *scaled)
    if fit == "sam-med2d" and height < side and width < side:
        return Frame(height, width, side, height, width, (side - height) // 2, (side - width) // 2)
    return Frame(height, width, side, side, side)


def is_scaled(frame: Frame) -> bool:
    """Whether pixels are resampled, not only placed."""
    return (frame.height, frame.width) != (frame.scaled_height, frame.scaled_width)


def place_image(
    image: npt.NDArray[np.uint8],
    frame: Frame,
    interpolation: Interpolation,
    out: npt.NDArray[np.uint8],
    padding: Colour,
) -> None:
    """Write ``image``, uint8 (H, W) grey or (H, W, 3) RGB, into ``out``, uint8 (3, S, S), and ``padding`` around it.

    "linear": a side that shrinks is averaged over each target pixel's footprint, a side that grows is
    interpolated. "nearest": the pixel under the target pixel's centre.
    """
    scaled = _scaled(image, frame, interpolation) if is_scaled(frame) else image
    bottom, right = frame.top + frame.scaled_height, frame.left + frame.scaled_width
    if (frame.scaled_height, frame.scaled_width) != (frame.side, frame.side):
        out[...] = np.array(padding, np.uint8)[:, None, None]
    place = out[:, frame.top : bottom, frame.left : right]
    place[...] = scaled if image.ndim == 2 else scaled.transpose(2, 0, 1)


def place_columns(columns: npt.NDArray[np.uint8], frame: Frame, out: npt.NDArray[np.bool_]) -> None:
    """Write masks into ``out``, bool (N, S, S) that holds False, by nearest pixel centres.

    ``columns`` uint8 0 or 1 (N, W, H), as ``rle.decode_columns`` gives them: transposing after scaling
    handles fewer pixels.
    """
    pixels = out.view(np.uint8)
    bottom, right = frame.top + frame.scaled_height, frame.left + frame.scaled_width
    size = (frame.scaled_height, frame.scaled_width)  # of the transposed mask: its width, its height
    for column_major, target in zip(columns, pixels, strict=True):
        scaled = column_major
        if is_scaled(frame):
            scaled = np.asarray(
                cv2.resize(column_major, size, interpolation=cv2.INTER_NEAREST_EXACT), np.uint8
            )
        cv2.transpose(scaled, target[frame.top : bottom, frame.left : right])


def place_masks(masks: npt.NDArray[np.bool_], frame: Frame) -> npt.NDArray[np.bool_]:
    """Masks, bool (N, H, W), in the model's square, bool (N, S, S), by nearest pixel centres."""
    out = np.zeros((len(masks), frame.side, frame.side), np.bool_)
    place_columns(np.ascontiguousarray(masks.transpose(0, 2, 1)).view(np.uint8), frame, out)
    return out


def to_square(points_xy: Floats, frame: Frame) -> Floats:
    """Points (..., 2) as (x, y) in the image's pixels, to the model's square. A box is two points."""
    scale = np.array((frame.scaled_width / frame.width, frame.scaled_height / frame.height), np.float32)
    return points_xy * scale + np.array((frame.left, frame.top), np.float32)


def restore_logits(logits: torch.Tensor, frame: Frame) -> torch.Tensor:
    """Predictions (N, C, s, s) of any resolution s, to the image's pixels, float (N, C, H, W).

    They are enlarged to the square first, what was padding is cut off, and the rest is scaled to the image,
    bilinearly, as ``Sam.postprocess_masks`` does.
    """
    side = (frame.side, frame.side)
    whole = logits if tuple(logits.shape[-2:]) == side else _bilinear(logits, side)
    bottom, right = frame.top + frame.scaled_height, frame.left + frame.scaled_width
    inside = whole[..., frame.top : bottom, frame.left : right]
    return _bilinear(inside, (frame.height, frame.width)) if is_scaled(frame) else inside


def _bilinear(values: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    from torch.nn.functional import interpolate  # here, because workers of the stream need no torch

    return interpolate(values, size, mode="bilinear", align_corners=False)


def _scaled(
    image: npt.NDArray[np.uint8], frame: Frame, interpolation: Interpolation
) -> npt.NDArray[np.uint8]:
    size = (frame.scaled_width, frame.scaled_height)
    if interpolation == "nearest":
        return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)
    shrunk = (min(frame.width, size[0]), min(frame.height, size[1]))
    if shrunk != (frame.width, frame.height):  # INTER_AREA only interpolates when one of the sides grows
        image = np.asarray(cv2.resize(image, shrunk, interpolation=cv2.INTER_AREA), np.uint8)
    if shrunk != size:
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR_EXACT), np.uint8)
    return image
