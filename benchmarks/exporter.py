"""The baseline of bench_build: how a corpus of loose PNG files is usually exported.

nibabel reads, every slice is clipped in float, OpenCV writes one PNG an image and one PNG a mask, where a
mask is a connected component (8 neighbours) of one label of at least 100 pixels on a 256 x 256 grid.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import nibabel as nib
import numpy as np

MIN_FRACTION = 100 / 256**2


def export(images: Path, labels: Path, out: Path, *, percentiles: bool) -> int:
    """Export every volume of ``images``; CT is clipped to [-500, 1000], MR to percentiles. Returns slices."""
    written = 0
    (out / "images").mkdir(parents=True)
    (out / "masks").mkdir()
    for path in sorted(images.glob("*.nii.gz")):
        volume = np.asanyarray(nib.load(path).dataobj)
        label = np.asanyarray(nib.load(labels / path.name).dataobj)
        low, high = np.percentile(volume, [0.5, 99.5]) if percentiles else (-500.0, 1000.0)
        for index in np.flatnonzero(label.any(axis=(0, 1))):
            written += _slice(
                volume[:, :, index], label[:, :, index], low, high, out, f"{path.name[:-7]}_{index:04d}"
            )
    return written


def _slice(image: np.ndarray, label: np.ndarray, low: float, high: float, out: Path, name: str) -> int:
    masks = []
    for value in np.unique(label)[1:]:
        count, regions, stats, _ = cv2.connectedComponentsWithStats(
            (label == value).astype(np.uint8), connectivity=8
        )
        masks += [
            (value, number, (regions == number).astype(np.uint8) * 255)
            for number in range(1, count)
            if stats[number, cv2.CC_STAT_AREA] >= MIN_FRACTION * label.size
        ]
    if not masks:
        return 0
    grey = (np.clip(image, low, high) - low) / (high - low) * 255  # float64 by numpy's rules
    cv2.imwrite(str(out / "images" / f"{name}.png"), np.round(grey).astype(np.uint8))
    for value, number, mask in masks:
        cv2.imwrite(str(out / "masks" / f"{name}_{value:04d}_{number:03d}.png"), mask)
    return 1
