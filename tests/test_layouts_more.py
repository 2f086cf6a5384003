"""The kit of true layouts: the rarer pairings, readers and decoders, and what sources add to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from layouts.proof import built, check
from test_layouts import source

MR = {"labels": {"1": "liver", "2": "spleen"}, "image": {"reader": "nifti"}}
INDEX = {"reader": "nifti", "decoder": "index"}
PATHOLOGY = {"modality": "histopathology", "dimensions": 2}
PACK = {"images": "*/images.npy", "labels": "*/masks.npy"}
PICTURE_ROWS = {
    **PATHOLOGY,
    "image": {"reader": "array", "options": {"axes": "hwc"}},
    "case": {"identifiers": "keep"},
}
RASTER = {**PATHOLOGY, "image": {"reader": "raster"}}


def pairs(kind: str, **options: Any) -> list[dict[str, Any]]:
    return [{"kind": kind, "options": options}]


FLAT = pairs("flat-suffix", image_suffix="_img.nii.gz", label_suffix="_seg.nii.gz")
PNG = pairs("flat-suffix", image_suffix=".png", label_suffix=".xml")

SETS: dict[str, dict[str, Any]] = {
    "bids": {
        **MR,
        "pairings": pairs(
            "bids-derivatives",
            images="rawdata",
            labels="derivatives/*",
            image_suffix="ct",
            label_suffix="msk",
            label_entities={"seg": "vert"},
        ),
        "label": INDEX,
        "case": {"identifiers": "keep"},
    },
    "pattern": {
        **MR,
        "pairings": pairs(
            "pattern",
            image=r"scans/(?P<id>p\d{3}_v\d)/ct\.nii\.gz",
            label=r"labels/seg-(?P<id>p\d{3}_v\d)\.nii\.gz",
        ),
        "label": INDEX,
    },
    "halves": {
        **RASTER,
        "modality": "oct",
        "pairings": pairs("same-file", folder="*", suffix=".png", image="left", label="right"),
        "label": {"reader": "raster", "decoder": "colour-map"},
        "labels": {"#FF0000": "liver", "#00FF00": "spleen"},
        "case": {"identifiers": "keep"},
    },
    "npz": {
        "pairings": pairs("same-file", suffix=".npz", image="imgs", label="gts"),
        "image": {"reader": "array", "options": {"axes": "kji", "spacing_key": "spacing"}},
        "label": {
            "reader": "array",
            "decoder": "index",
            "reader_options": {"axes": "kji", "spacing_key": "spacing"},
        },
        "labels": {"1": "liver", "7": "spleen"},
    },
    "packs of channels": {
        **PICTURE_ROWS,
        "pairings": pairs("array-pack", **PACK, groups="*/types.npy"),
        "label": {
            "reader": "array",
            "decoder": "instance-channels",
            "options": {"ignore": [2]},
            "reader_options": {"axes": "hwc"},
        },
        "labels": {"0": "nucleus", "1": "liver"},
    },
    "packs of objects and classes": {
        **PICTURE_ROWS,
        "pairings": pairs("array-pack", images="images.npy", labels="labels.npy"),
        "label": {"reader": "array", "decoder": "instance-class", "reader_options": {"axes": "hwc"}},
        "labels": {"1": "nucleus", "3": "liver"},
    },
    "keys of one npz": {
        **PICTURE_ROWS,
        "pairings": pairs(
            "array-pack", images="set.npz", labels="set.npz", image_key="train_images", label_key="train_label"
        ),
        "label": {"reader": "array", "decoder": "index", "reader_options": {"axes": "hw"}},
        "labels": {"1": "liver"},
    },
    "raters": {
        **MR,
        "pairings": pairs("flat-suffix", image_suffix="_img.nii.gz", label_suffix="_{rater}.nii.gz"),
        "label": {**INDEX, "raters": ["anna", "ben", "carl"], "agreement": "majority"},
    },
    "one rater of several": {
        **MR,
        "pairings": pairs("flat-suffix", image_suffix="_img.nii.gz", label_suffix="_{rater}.nii.gz"),
        "label": {**INDEX, "raters": ["anna"]},
    },
    "selected": {
        **MR,
        "pairings": [{**FLAT[0], "select": r"_v[12]$", "split": "train"}],
        "label": INDEX,
    },
    "regions": {**MR, "pairings": FLAT, "label": INDEX, "regions": {"kidney-left": ["liver", "spleen"]}},
    "labels along other axes": {
        **MR,
        "pairings": FLAT,
        "label": {**INDEX, "geometry": "image", "axes": "PRI"},
    },
    "folders of planes": {
        **MR,
        "pairings": pairs("flat-suffix", image_suffix="_img.nii.gz", label_suffix="_seg/"),
        "label": {
            "reader": "raster",
            "decoder": "value-map",
            "geometry": "image",
            "reader_options": {"stack": True, "spacing_mm": [3.0, 1.0, 1.0]},
        },
        "labels": {"55..70": "liver", "110..135": "spleen"},
    },
    "outlines as XML": {
        **RASTER,
        "pairings": PNG,
        "label": {"reader": "polygon-xml", "decoder": "structures"},
        "labels": {"Epithelial": "nucleus", "Lymph": "liver"},
    },
    "outlines as text": {
        **RASTER,
        "pairings": pairs("flat-suffix", image_suffix=".png", label_suffix="_{label}.txt"),
        "label": {"reader": "polygon-text", "decoder": "structures"},
        "labels": {"disc": "liver", "cup": "spleen"},
    },
    "colours of objects": {
        **RASTER,
        "pairings": pairs("flat-suffix", image_suffix=".png", label_suffix="_mask.png"),
        "label": {"reader": "raster", "decoder": "colour-instance"},
        "labels": {"*": "nucleus"},
    },
    "bits": {
        **RASTER,
        "modality": "xray",
        "pairings": pairs("flat-suffix", image_suffix=".png", label_suffix="_mask.tif"),
        "label": {"reader": "raster", "decoder": "bits"},
        "labels": {"0": "liver", "3..9": "spleen"},
    },
    "patients and splits from a table": {
        **MR,
        "pairings": FLAT,
        "label": INDEX,
        "case": {
            "pattern": r"^(?P<case>p\d{3}_v\d)$",
            "table": {
                "file": "about/info.csv",
                "delimiter": ";",
                "case": "p<number>_v<visit>",
                "group": "<person>",
                "split": "<part>",
                "splits": {"trainval": "train", "test": "test", "val": "val"},
                "capture": {"remark": "^(?P<person>[^-]+)-"},
            },
        },
    },
    "patients of rows": {
        **PICTURE_ROWS,
        "pairings": pairs("array-pack", images="images.npy", labels="labels.npy"),
        "label": {"reader": "array", "decoder": "instance"},
        "labels": {"*": "nucleus"},
        "case": {"table": {"file": "rows.json", "records": "all", "case": "<row:06>", "group": "<slide>"}},
    },
    "a folder a class": {
        **RASTER,
        "modality": "endoscopy",
        "pairings": pairs(
            "pattern",
            image=r"(?P<label>[a-z]+)/(?P<surgery>\d+)/image(?P<frame>\d+)\.png",
            label=r"(?P<label>[a-z]+)/(?P<surgery>\d+)/mask(?P<frame>\d+)\.png",
        ),
        "label": {"reader": "raster", "decoder": "mask-per-class"},
        "labels": {"colon": "colon", "liver": "liver", "spleen": "spleen"},
        "case": {"pattern": r"^[^/]+/(?P<group>\d+)/"},
    },
    "a file an instrument, parts in each": {
        **RASTER,
        "modality": "endoscopy",
        "pairings": pairs(
            "pattern",
            image=r"(?P<frame>f\d+)/left\.png",
            label=r"(?P<frame>f\d+)/truth/[a-z]+\.png",
            several_labels=True,
        ),
        "label": {"reader": "raster", "decoder": "value-map"},
        "labels": {"10": "instrument-shaft", "20": "instrument-wrist"},
        "case": {"identifiers": "keep"},
    },
    "pictures of MetaImage": {
        "modality": "ultrasound",
        "dimensions": 2,
        "pairings": pairs("paired-folders", images="i", labels="l", image_suffix=".mha", label_suffix=".mha"),
        "image": {"reader": "metaimage", "options": {"channels": "k"}},
        "label": {"reader": "metaimage", "decoder": "index"},
        "labels": {"1": "pubic-symphysis", "2": "fetal-head"},
        "case": {"identifiers": "keep"},
    },
}  # fmt: skip


@pytest.mark.parametrize("name", SETS)
def test_rarer_layouts(name: str, tmp_path: Path) -> None:
    made = source(**SETS[name])
    expected, dataset = built([made], tmp_path)
    check(made, expected[made.id], dataset)
