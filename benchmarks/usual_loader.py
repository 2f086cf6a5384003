"""A loader as training scripts of this field write it: one PNG a mask, work by the sample, ready dtypes.

It does what SAM-Med2D's published dataset class does, in the same libraries: ``cv2.imread`` of the image and
of every mask, normalisation in float64, boxes by ``skimage.measure.regionprops`` of the largest component
with a random shift, points by ``np.argwhere``. Its augmentation library, which resizes, is left out.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import cv2
import numpy as np
import torch
from skimage.measure import label, regionprops
from torch.utils.data import Dataset

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


class UsualDataset(Dataset):
    """``images/`` and ``masks/`` of PNG files, paired by a JSON file."""

    def __init__(self, folder: Path, masks: int, side: int) -> None:
        pairs = json.loads((folder / "image2label_train.json").read_text())
        self._images, self._masks = list(pairs), list(pairs.values())
        self._count, self._side = masks, side

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """Image float32 (3, S, S), masks int64 (K, S, S), boxes float32 (K, 4), points float32 (K, 1, 2)."""
        image = cv2.imread(self._images[index])
        image = (image - np.array(MEAN)) / np.array(STD)
        image = cv2.resize(image, (self._side, self._side), interpolation=cv2.INTER_NEAREST)
        masks, boxes, points = [], [], []
        for path in random.choices(self._masks[index], k=self._count):
            mask = cv2.imread(path, 0)
            if mask.max() == 255:
                mask = mask / 255
            mask = cv2.resize(mask, (self._side, self._side), interpolation=cv2.INTER_NEAREST).astype(
                np.int64
            )
            masks.append(torch.tensor(mask))
            boxes.append(_box(mask))
            points.append(_point(mask))
        return {
            "image": torch.tensor(image.transpose(2, 0, 1)).float(),
            "masks": torch.stack(masks),
            "boxes": torch.stack(boxes),
            "points": torch.stack(points),
        }


def _box(mask: np.ndarray, most_px: int = 5) -> torch.Tensor:
    regions = regionprops(label(mask))
    y0, x0, y1, x1 = max(regions, key=lambda region: region.area).bbox
    limit = min(most_px, int(0.5 * min(x1 - x0, y1 - y0)))
    dx, dy = random.randint(-limit, limit), random.randint(-limit, limit)
    return torch.tensor([x0 + dx, y0 + dy, x1 + dx, y1 + dy], dtype=torch.float32)


def _point(mask: np.ndarray) -> torch.Tensor:
    inside = np.argwhere(mask == 1)
    y, x = inside[np.random.randint(len(inside))]
    return torch.tensor([[x, y]], dtype=torch.float32)
