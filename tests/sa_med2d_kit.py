"""A small release in the layout of SA-Med2D-20M, with every one of its known defects."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import build_kit as kit
import numpy as np
from PIL import Image

HEIGHT, WIDTH = 60, 80
CLASSES = {
    "AbdomenCT1K": {"liver": 0, "kidney": 1, "union_liver_kidney": 2},
    "ACDC": {"rv": 0, "myo": 1, "lv": 2},  # its masks of class 3 are not in the map
    "CrossMoDA21": {"cochlea": 0},
    "CrossMoDA22": {"cochlea": 0},
    "BraTS2018": {"whole_tumor": 0},
    "BraTS2020": {"whole_tumor": 0},
    "Brain_PTM": {"tract": 0},
    "ichallenge_adam_task2": {"disc": 0},
}
LABELS = {"liver": "liver", "AbdomenCT1K/kidney": "kidney", "ACDC/rv": "heart", "ACDC/myo": "myocardium"}
# (stem, [(class, instance)])
PICTURES = [
    ("ct_00--AbdomenCT1K--Case_00011--x_0040", [(0, 0), (1, 0), (1, 1), (2, 0)]),
    ("ct_00--AbdomenCT1K--Case_00011--y_0007", [(0, 0)]),
    ("ct_00--AbdomenCT1K--Case_00011--z_0002", [(2, 0)]),  # a union alone
    ("ct_00--AbdomenCT1K--Case_00012--z_0002", [(0, 0), (0, 1)]),
    ("mr_cmr--ACDC--patient001_frame01--z_0003", [(0, 0), (1, 0), (3, 0)]),
    ("mr_t1--Brain_PTM--case_1--z_0010", [(0, 0)]),
    ("mr_t1--BraTS2018--Brats18_TCIA_1_1_t1--z_0010", [(0, 0)]),
    ("mr_t2--BraTS2018--Brats18_TCIA_1_1_t2--x_0010", [(0, 0)]),
    ("mr_t1--CrossMoDA21--crossmoda_1--z_0010", [(0, 0)]),
    ("mr_t1--CrossMoDA22--crossmoda_1--z_0011", [(0, 0)]),
    ("fundus_photography--ichallenge_adam_task2--A0001--2d_none", [(0, 0)]),
]


def mask_of(number: int, instance: int) -> np.ndarray:
    """(H, W) bool: an ellipse that other classes' overlap."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    centre = (20 + 5 * number, 20 + 9 * number + 25 * instance)
    return (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < 150


def release(folder: Path) -> Path:
    """``folder``/SAMed2Dv1; one mask of Case_00012 has another shape than its picture."""
    root = folder / "SAMed2Dv1"
    rng = np.random.default_rng(0)
    index = {}
    for stem, masks in PICTURES:
        shape = (HEIGHT, WIDTH, 3) if stem.startswith("fundus") else (HEIGHT, WIDTH)
        write_png(root / "images" / f"{stem}.png", rng.integers(0, 256, shape, np.uint8))
        names = [f"{stem}--{number:04d}_{instance:03d}.png" for number, instance in masks]
        for name, (number, instance) in zip(names, masks, strict=True):
            mask = mask_of(number, instance)
            if "adam" in stem:
                mask = ~mask
            if "Case_00012" in stem and instance:
                mask = mask[:, :-1]
            write_png(root / "masks" / name, mask.astype(np.uint8) * 255)
        index[f"images/{stem}.png"] = [f"masks/{name}" for name in names]
    (root / "SAMed2D_v1.json").write_text(json.dumps(index))
    (root / "SAMed2D_v1_class_mapping_id.json").write_text(json.dumps(CLASSES))
    return root


def write_png(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def zipped(root: Path, path: Path) -> Path:
    """``root`` and what is below it as one zip, in an order that is not sorted."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(root.rglob("*"), key=lambda file: file.name[::-1]):
            if file.is_file():
                archive.write(file, file.relative_to(root.parent))
    return path


def source(folder: Path, name: str, options: dict[str, Any], labels: dict[str, str], **facts: Any) -> str:
    """The TOML of a part of the release."""
    defaults = {
        "dimensions": 2,
        "modality": "ct",
        "image": {"reader": "raster"},
        "label": {"reader": "raster", "decoder": "mask-per-class"},
        "pairings": [{"kind": "sa-med2d-release", "options": {"folder": "SAMed2Dv1", **options}}],
        "labels": labels,
        "case": {"identifiers": "keep", "namespace": "sa-med2d"},
    }
    return kit.write_source(folder, name, **(defaults | facts))
