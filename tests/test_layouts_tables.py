"""The kit of true layouts: cases and classes that tables name, and labels that name DICOM series."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from layouts.proof import built, check
from test_layouts import source
from test_layouts_more import pairs

NIFTI: dict[str, Any] = {
    "labels": {"1": "liver", "2": "spleen"},
    "image": {"reader": "nifti"},
    "label": {"reader": "nifti", "decoder": "index"},
    "case": {"identifiers": "keep"},
}
DICOM = {"image": {"reader": "dicom"}, "labels": {"liver": "liver", "lesion": "liver-lesion"}, "case": {}}
FLAT = pairs("flat-suffix", image_suffix="_ct.nii.gz", label_suffix="_seg.nii.gz")
FINDINGS = {
    "file": "findings.csv",
    "where": {"Reader": ["1"]},
    "case": "c<Scan:04>",
    "value": "<Finding>",
    "key": "<Kind>",
}

SETS: dict[str, dict[str, Any]] = {
    "files that a table names": {
        **NIFTI,
        "pairings": pairs(
            "table",
            file="cases.json",
            records="training",
            case="<id>",
            group="<patient>",
            split="<part>",
            splits={"training": "train"},
            image="images/<id>.nii.gz",
            label="**/<id>_<reader:02>.nii.gz",
        ),
    },
    "frames that a table names": {
        **NIFTI,
        "pairings": pairs(
            "table",
            file="info.csv",
            case="<Code>",
            group="<Code>",
            image="<Code>/sa.nii.gz",
            label="<Code>/gt.nii.gz",
            entries=["<ED>", "<ES>"],
            absent="skip",
        ),
    },
    "classes of objects": {
        **NIFTI,
        "pairings": FLAT,
        "label": {
            "reader": "nifti",
            "decoder": "instance-table",
            "options": {"background": ["none"]},
            "classes": FINDINGS,
        },
        "labels": {"a": "liver-lesion", "b": "liver-cyst"},
        "case": {"pattern": r"^c\d{4}$", "identifiers": "keep"},
    },
    **{
        f"labels that name their series: {kind}": {
            **DICOM,
            "pairings": pairs("dicom-tree", folder="*", modality="CT", labels=kind),
            "label": {"reader": reader, "decoder": "structures", "reader_options": options},
            **more,
        }
        for kind, reader, options, more in (
            ("seg", "dicom-seg", {}, {}),
            ("rtstruct", "rtstruct", {}, {}),
            ("lidc-xml", "lidc-xml", {"agreement": 2}, {"labels": {"nodule": "lung-nodule"}}),
        )
    },
}


@pytest.mark.parametrize("name", SETS)
def test_tables_and_series(name: str, tmp_path: Path) -> None:
    made = source(**SETS[name])
    expected, dataset = built([made], tmp_path)
    check(made, expected[made.id], dataset)
    assert len(expected[made.id].cases) >= 3
