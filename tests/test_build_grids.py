"""Files of a case that lie on different grids, and volumes of one plane: what is refused and what is cut how."""

from __future__ import annotations

from pathlib import Path

import build_kit as kit
import nibabel as nib
import numpy as np
import pytest

Built = tuple[kit.Dataset, Path]

SHAPE = (40, 36, 6)
AFFINE = np.diag([-1.0, -1.0, 3.0, 1.0])
LABELS = {"liver": "liver", "liver_cyst": "liver-cyst"}


def moved(axis: int, voxels: float) -> np.ndarray:
    """The affine of a grid that lies so many voxels further along one of its axes."""
    affine = AFFINE.copy()
    affine[:3, 3] += voxels * AFFINE[:3, axis]
    return affine


def from_another_corner(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same voxels at the same places, stored with the first axis the other way round."""
    affine = moved(0, array.shape[0] - 1)
    affine[:3, 0] *= -1
    return array[::-1], affine


BODY, INSIDE = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
BODY[5:30, 5:33, 1:5] = 1
INSIDE[10:20, 8:20, 2:4] = 1
# The liver's file and the cyst's, as (voxels, affine); the image lies on AFFINE.
CASES = {
    "alike": ((BODY, AFFINE), (INSIDE, AFFINE)),
    "turned": ((BODY, AFFINE), from_another_corner(INSIDE)),
    "noise": ((BODY, AFFINE), (INSIDE, moved(0, 0.001))),
    "both-moved": ((BODY, moved(0, 1)), (INSIDE, moved(0, 1))),
    "thicker": ((BODY, np.diag([-1, -1, 3.3, 1])), (INSIDE, np.diag([-1, -1, 3.3, 1]))),
    "both-cut": ((BODY[:, :, :-1], AFFINE), (INSIDE[:, :, :-1], AFFINE)),
    "one-moved": ((BODY, AFFINE), (INSIDE, moved(1, 1))),
    "one-cut": ((BODY, AFFINE), (INSIDE[:-1], AFFINE)),
}
IMAGE_DIFFERS, FILES_DIFFER = "label and image differ", "two label files of the case differ"
REFUSED = {
    "both-moved": f"{IMAGE_DIFFERS}: affine",
    "thicker": f"{IMAGE_DIFFERS}: affine",
    "both-cut": f"{IMAGE_DIFFERS}: shape",
    "one-moved": f"{FILES_DIFFER}: affine",
    "one-cut": f"{FILES_DIFFER}: shape",
}
# Canonical shape of a volume and the axes that it is cut along, whatever the recipe says.
SINGLE = {(40, 36, 1): "z", (40, 1, 36): "y", (1, 40, 36): "x", (40, 1, 1): "z", (1, 1, 40): "y"}


def write(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)


def texture(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).integers(-200, 300, shape).astype(np.int16)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("grids")
    for case, files in CASES.items():
        write(folder / "parts" / case / "ct.nii.gz", texture(SHAPE) + list(CASES).index(case))
        for label, (array, affine) in zip(LABELS, files, strict=True):
            write(folder / "parts" / case / "parts" / f"{label}.nii.gz", array, affine)
    for shape in SINGLE:
        case = folder / "single" / "x".join(map(str, shape))
        write(case / "ct.nii.gz", texture(shape))
        write(case / "parts" / "liver.nii.gz", np.ones(shape, np.uint8))
    for name in ("parts", "single"):
        kit.write_source(
            folder,
            name,
            modality="ct",
            image={"reader": "nifti"},
            label={"reader": "nifti", "decoder": "mask-per-class"},
            labels=LABELS,
            pairings=[
                {"kind": "case-folder", "options": {"image": "ct.nii.gz", "label": "parts/{label}.nii.gz"}}
            ],
        )
    slices = {"axes": ["x", "y", "z"], "min_aspect": 0}
    recipe = kit.write_recipe(folder, ["parts", "single"], slices=slices)
    return kit.built(recipe, folder / "out", code=3), folder


def test_files_on_different_grids_are_refused_with_what_differs(built: Built) -> None:
    refused = built[0].refused("parts", reason="GEOMETRY")
    details = {row["case"]: row["detail"] for row in refused}
    assert details.keys() == REFUSED.keys()
    for case, words in REFUSED.items():
        assert details[case].startswith(words)
    assert {row["case"] for row in built[0].of("parts")} == CASES.keys() - REFUSED.keys()


@pytest.mark.parametrize("case", sorted(CASES.keys() - REFUSED.keys()))
def test_one_grid_stored_from_another_corner_or_with_rounding_is_one_grid(built: Built, case: str) -> None:
    dataset, _ = built
    canonical = {name: array[::-1, ::-1] for name, array in (("liver", BODY), ("liver-cyst", INSIDE))}
    samples = dataset.slices("parts", case=case, axis="z")
    assert len(samples) == 4
    for rows in samples.values():
        masks = dict(zip([row["label"] for row in rows], dataset.masks(rows[0]), strict=True))
        for label, array in canonical.items():
            plane = kit.shown(array, "z", rows[0]["slice_index"]) > 0
            assert np.array_equal(masks.get(label, np.zeros_like(plane)), plane)


@pytest.mark.parametrize(("shape", "axis"), list(SINGLE.items()), ids=lambda value: str(value))
def test_a_volume_of_one_plane_is_cut_into_that_plane(
    built: Built, shape: tuple[int, int, int], axis: str
) -> None:
    rows = built[0].of("single", case="x".join(map(str, shape)))
    assert {row["axis"] for row in rows} == {axis}
    assert len(rows) == shape["xyz".index(axis)]
    assert rows[0]["slice_count"] == shape["xyz".index(axis)]
