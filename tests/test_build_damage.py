"""Real files with random damage: a case is refused with its reason, or gives what the undamaged one gives."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import build_kit as kit
import lab
import numpy as np
import pytest
import realdata
from test_build_real import BRAIN_LABELS

WHOLE = "whole"
HEADER_BYTES = 600
UNEXPECTED = {"DECODER_CRASH", "TIMEOUT", "MEMORY", "UNPAIRED", "DUPLICATE_KEY"}
NRRD = {"image": {"reader": "nrrd"}, "label": {"reader": "nrrd", "decoder": "index"}}
NIFTI = {"image": {"reader": "nifti"}, "label": {"reader": "nifti", "decoder": "index"}}
STACK = {"stack": True, "spacing_mm": [0.002, 0.001, 0.001]}
STACKS = {
    "image": {"reader": "raster", "options": STACK},
    "label": {"reader": "raster", "decoder": "instance", "reader_options": STACK},
}
ATLAS = {str(value): BRAIN_LABELS[value % len(BRAIN_LABELS)] for value in range(1, 117)}


class Pair(NamedTuple):
    """A real image with its label, and how a source says so."""

    files: dict[str, str]  # by part
    count: int  # damaged cases
    modality: str
    labels: dict[str, str]
    readers: dict[str, Any]

    @property
    def ending(self) -> str:
        return "".join(Path(self.files["image"]).suffixes)


def radiomics(name: str, count: int, modality: str, label: str) -> Pair:
    files = {part: f"pyradiomics/data/{name}_{part}.nrrd" for part in ("image", "label")}
    return Pair(files, count, modality, {"1": label}, NRRD)


PAIRS = {
    "lung": radiomics("lung1", 15, "ct", "lung-nodule"),
    "brain": radiomics("brain2", 40, "mr", "brain-tumor"),
    "breast": radiomics("breast1", 60, "mr", "breast-lesion"),
    "aal": Pair(
        {"image": "mricron/templates/ch2.nii.gz", "label": "mricron/templates/aal.nii.gz"},
        20,
        "mr",
        ATLAS,
        NIFTI,
    ),
    "cells": Pair(
        {"image": "stardist/data/images/img3d.tif", "label": "stardist/data/images/mask3d.tif"},
        60,
        "microscopy",
        {"*": "nucleus"},
        STACKS,
    ),
}


def damaged(content: bytes, rng: random.Random) -> bytes:
    """One flipped bit, one overwritten run, one lost run, or a cut; half of the flips hit the header."""
    size = len(content)
    place = rng.randrange(min(size, HEADER_BYTES) if rng.random() < 0.5 else size)
    stop = min(size, place + rng.randrange(1, 64))
    kind = rng.choice(["bit", "bit", "run", "lost", "cut"])
    if kind == "bit":
        return content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :]
    if kind == "run":
        return content[:place] + rng.randbytes(stop - place) + content[stop:]
    return content[:place] + (content[stop:] if kind == "lost" else b"")


def write_pair(folder: Path, name: str) -> str:
    """The source ``name``: the whole pair, and cases of which one file is damaged, the other the same."""
    real = PAIRS[name]
    root = folder / name
    root.mkdir()
    for part, path in real.files.items():
        shutil.copyfile(realdata.path(path), root / f"{WHOLE}_{part}{real.ending}")
    rng = random.Random(f"damage {name}")
    for number in range(real.count):
        hit = rng.choice(["image", "label"])
        for part in real.files:
            source, target = (root / f"{case}_{part}{real.ending}" for case in (WHOLE, number))
            if part == hit:
                target.write_bytes(damaged(source.read_bytes(), rng))
            else:
                os.link(source, target)
    return kit.write_source(
        folder,
        name,
        modality=real.modality,
        labels=real.labels,
        pairings=kit.flat_suffix(f"_image{real.ending}", f"_label{real.ending}"),
        **real.readers,
    )


def content(dataset: kit.Dataset, source: str, case: str) -> list[Any]:
    """Everything a case gave but its name and spacing: pictures, masks, places."""
    found = []
    for rows in dataset.slices(source, case=case).values():
        pixels, annotations, _ = dataset.sample(rows[0])
        row = rows[0]
        bounds = (row["intensity_low"], row["intensity_high"])
        found.append((row["slice_index"], row["axis"], bounds, pixels.tobytes(), annotations))
    return found


def spacing(dataset: kit.Dataset, source: str, case: str) -> np.ndarray:
    """(rows, 2) of row and column spacing."""
    return np.array([[r["row_spacing_mm"], r["col_spacing_mm"]] for r in dataset.of(source, case=case)])


@pytest.mark.parametrize("name", PAIRS)
def test_damage_is_refused_or_harmless(name: str, tmp_path: Path) -> None:
    recipe = kit.write_recipe(tmp_path, [write_pair(tmp_path, name)])
    lab.build(recipe, tmp_path / "out", code=3)
    dataset = kit.Dataset(tmp_path / "out")
    kit.check_counts(dataset)
    reasons = dataset.reasons(name)
    assert WHOLE not in reasons
    assert not UNEXPECTED & set(reasons.values()), reasons
    count = PAIRS[name].count
    harmless = [case for case in map(str, range(count)) if case not in reasons]
    assert len(harmless) < count / 2
    expected = content(dataset, name, WHOLE)
    assert expected
    for case in harmless:
        assert content(dataset, name, case) == expected, case
        # A digit of a text header has no checksum; what moves a corner by less than 0.1 voxel may pass.
        np.testing.assert_allclose(
            spacing(dataset, name, case), spacing(dataset, name, WHOLE), rtol=1e-3, err_msg=case
        )
