"""Single stages against the usual way of doing them, on generated and real slices; one core, in one run.

    python benchmarks/bench_stages.py [--runs 5] [--ct lung1_image.nrrd]

Every pair is checked for equal results before it is timed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import measure
import nibabel as nib
import numpy as np
import SimpleITK
from pycocotools import mask as coco

from medcurate.config.recipe import Masks, Percentiles
from medcurate.format import png
from medcurate.phantom import CT_LABELS, ct_phantom, write_nifti
from medcurate.readers.inflate import gunzip
from medcurate.stages.contiguous import each_plane
from medcurate.stages.intensity import bounds, to_uint8
from medcurate.stages.masks import find_masks

SLICES = 100
Pair = tuple[str, Callable[[], object], Callable[[], object], float]


def decode_pair(folder: Path) -> Pair:
    """.nii.gz to voxels, CRC and length checked by ours alone; SHA-256 of the file, which a build takes too, is not
    part of it."""

    def ours() -> np.ndarray:
        content = (folder / "image.nii.gz").read_bytes()
        return gunzip(content, limit=1 << 32)[352:].view("<i2").reshape((512, 512, SLICES), order="F")

    def theirs() -> np.ndarray:
        return np.asanyarray(nib.load(folder / "image.nii.gz").dataobj)

    assert np.array_equal(ours(), theirs())
    return ".nii.gz to int16 (nibabel)", theirs, ours, SLICES


def clip_pair(image: np.ndarray) -> Pair:
    """CT window to uint8: a slice at a time in float64, as numpy's rules make it of int16, against the table."""

    def theirs() -> np.ndarray:
        grey = np.empty(image.shape, np.uint8, order="F")
        for index in range(image.shape[2]):
            plane = np.clip(image[:, :, index], -500.0, 1000.0)
            grey[:, :, index] = np.floor((plane + 500.0) / 1500.0 * 255.0 + 0.5)
        return grey

    def ours() -> np.ndarray:
        return to_uint8(image, 1.0, 0.0, -500.0, 1000.0)

    assert np.array_equal(ours(), theirs())
    return "clip to uint8 (float64 a slice)", theirs, ours, SLICES


def percentile_pair(image: np.ndarray) -> Pair:
    """Two percentiles of a volume: numpy against the histogram."""
    rule = Percentiles(rule="percentiles", low=0.5, high=99.5)

    def ours() -> tuple[float, float]:
        return bounds(image, 1.0, 0.0, rule)

    def theirs() -> tuple[float, float]:
        low, high = np.percentile(image, [0.5, 99.5])
        return float(low), float(high)

    assert ours() == theirs()
    return "percentiles (np.percentile)", theirs, ours, SLICES


def masks_pair(labels: np.ndarray) -> Pair:
    """Components, area, box and RLE: OpenCV and pycocotools for each label against one run-length pass."""
    planes = np.ascontiguousarray(labels.transpose(2, 1, 0))

    def theirs() -> list[tuple[int, bytes]]:
        found = []
        for plane in planes:
            for value in np.unique(plane)[1:]:
                count, regions, stats, _ = cv2.connectedComponentsWithStats((plane == value).astype(np.uint8))
                for number in range(1, count):
                    mask = np.asfortranarray((regions == number).astype(np.uint8))
                    found.append((int(stats[number, cv2.CC_STAT_AREA]), coco.encode(mask)["counts"]))
        return found

    def ours() -> list[tuple[int, bytes]]:
        table = find_masks(planes, CT_LABELS, instances=False, rule=Masks(components="2d"))
        return list(zip(table.area_px.tolist(), table.rle, strict=True))

    assert sorted(ours()) == sorted(theirs())
    return "components + RLE (OpenCV + pycocotools)", theirs, ours, SLICES


def png_pair(name: str, pictures: list[np.ndarray]) -> Pair:
    """PNG: OpenCV's default against ours."""

    def theirs() -> int:
        return sum(len(cv2.imencode(".png", picture)[1]) for picture in pictures)

    def ours() -> int:
        return sum(len(png.encode(picture)) for picture in pictures)

    for picture in pictures[:3]:
        assert np.array_equal(cv2.imdecode(np.frombuffer(png.encode(picture), np.uint8), -1), picture)
    more = ours() / theirs() - 1
    return f"PNG, {name} (cv2.imencode; {more:+.0%} bytes)", theirs, ours, len(pictures)


def real_slices() -> list[np.ndarray]:
    """Brain slices of the embedded MNI template: a real, if averaged, MR."""
    root = Path(__file__).parents[1] / "manifests" / "embedded" / "mni152-tissues"
    volume = np.asanyarray(nib.load(next(root.glob("*t1*.nii.gz"))).dataobj)
    return [np.ascontiguousarray(volume[:, :, index]) for index in range(30, 150)]


def scanned_slices(scan: Path) -> list[np.ndarray]:
    """Axial slices of a CT scan, clipped."""
    voxels = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(scan))
    return list(to_uint8(np.ascontiguousarray(voxels), 1.0, 0.0, -500.0, 1000.0))


def main() -> None:
    """Run all pairs and print Markdown."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--ct", type=Path, help="a real CT scan in HU, for one more comparison of PNG")
    options = parser.parse_args()
    runs = options.runs
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    cv2.setNumThreads(1)
    image, labels, affine = ct_phantom(0, (512, 512, SLICES), (0.8, 0.8, 3.0), lesions=10)
    with tempfile.TemporaryDirectory() as name:
        write_nifti(Path(name) / "image.nii.gz", image, affine)
        grey = to_uint8(image, 1.0, 0.0, -500.0, 1000.0)
        pictures = [plane for _, plane in each_plane(grey.transpose(2, 1, 0), range(SLICES))]
        pairs = [
            decode_pair(Path(name)),
            clip_pair(image),
            percentile_pair(image),
            masks_pair(labels),
            png_pair("generated CT", pictures),
            png_pair("real MR", real_slices()),
            *([png_pair("real CT", scanned_slices(options.ct))] if options.ct else []),
        ]
        print(f"{measure.machine()}; 512 x 512 x {SLICES} int16, one core, medians of {runs}\n")
        print(
            "| stage (the usual way) | usual, ms a slice | medcurate, ms a slice | ratio |\n|---|---|---|---|"
        )
        for title, theirs, ours, slices in pairs:
            seconds = measure.interleaved({"usual": theirs, "ours": ours}, runs)
            usual, own = (statistics.median(values) * 1e3 / slices for values in seconds.values())
            print(
                f"| {title} | {usual:.3f} | {own:.3f} | {measure.ratio(seconds['usual'], seconds['ours']):.1f} |"
            )


if __name__ == "__main__":
    main()
