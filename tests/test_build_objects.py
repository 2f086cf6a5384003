"""Builds that cut labels into objects: bounds, one number an object on all planes, and what is refused, measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import build_kit as kit
import lab
import numpy as np
import pytest
import scipy.ndimage as ndi
import tifffile

Built = tuple[kit.Dataset, Path]
MIN_VOXELS, MIN_PIXELS, AT = 30, 200, 256


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Blobs of all sizes, cut along every axis into 3D objects, with every bound set."""
    folder = tmp_path_factory.mktemp("objects")
    noise = ndi.gaussian_filter(np.random.default_rng(5).normal(size=(60, 48, 20)), 2)
    label = np.where(noise > 0.035, 1, np.where(noise < -0.04, 2, 0)).astype(np.uint8)
    image, _ = lab.volume(30, label.shape)
    kit.nifti(folder / "blobs" / "b_image.nii.gz", image, np.diag([-1.0, 1.0, 2.0, 1.0]))
    kit.nifti(folder / "blobs" / "b_label.nii.gz", label, np.diag([-1.0, 1.0, 2.0, 1.0]))
    speck = np.zeros_like(label)
    speck[30:32, 30:32, 10] = 1
    for case, array in (("empty", 0 * label), ("specks", speck)):
        kit.nifti(folder / "bare" / f"{case}_image.nii.gz", lab.volume(31, label.shape)[0])
        kit.nifti(folder / "bare" / f"{case}_label.nii.gz", array)
    for name in ("blobs", "bare"):
        kit.write_source(
            folder,
            name,
            modality="ct",
            labels={"1": "lung-nodule", "2": "lung-vessel"},
            pairings=kit.flat_suffix("_image.nii.gz", "_label.nii.gz"),
            **kit.NIFTI,
        )
    masks = {
        "components": "3d",
        "connectivity": "face",
        "min_voxels": MIN_VOXELS,
        "min_area": {"pixels": MIN_PIXELS, "at": AT},
    }
    slices = {"axes": ["x", "y", "z"], "min_aspect": 0.4}
    recipe = kit.write_recipe(folder, ["blobs", "bare"], masks=masks, slices=slices)
    return kit.built(recipe, folder / "out"), folder


def test_planes_below_the_aspect_are_refused(objects: Built) -> None:
    """Coronal planes are 60 x 20: aspect 1/3; sagittal 48 x 20 and axial 60 x 48 pass."""
    dataset, folder = objects
    refused = dataset.refused("blobs", reason="ASPECT")
    label = kit.ras(folder / "blobs" / "b_label.nii.gz")
    assert {row["slice_index"] for row in refused} == {n for n in range(48) if label[:, n].any()}
    assert {(row["axis"], round(row["measure"], 6), row["bound"]) for row in refused} == {
        ("y", 0.333333, 0.4)
    }
    assert {row["axis"] for row in dataset.of("blobs")} == {"x", "z"}


@pytest.mark.parametrize(("axis", "side"), [("x", 0), ("z", 2)])
def test_objects_and_bounds(objects: Built, axis: str, side: int) -> None:
    """Each object's cut by each plane is one mask or one ledger row, judged by area, then by voxels."""
    dataset, folder = objects
    label = kit.ras(folder / "blobs" / "b_label.nii.gz")
    kept, small, thin = set(), set(), set()
    for value, name in ((1, "lung-nodule"), (2, "lung-vessel")):
        components, _ = ndi.label(label == value)
        voxels = np.bincount(components.ravel())
        for plane in range(label.shape[side]):
            cut = kit.shown(components, axis, plane)
            for number in np.unique(cut[cut > 0]):
                ys, xs = np.nonzero(cut == number)
                mask = (plane, name, len(ys), xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
                is_small = len(ys) < MIN_PIXELS * cut.size / AT**2
                (small if is_small else thin if voxels[number] < MIN_VOXELS else kept).add(mask)
    assert min(len(kept), len(small), len(thin)) > 0
    assert facts(dataset.of("blobs", axis=axis)) == kept
    assert facts(dataset.refused("blobs", axis=axis, reason="AREA")) == small
    assert facts(dataset.refused("blobs", axis=axis, reason="VOLUME")) == thin
    bare = {mask[0] for mask in small | thin} - {mask[0] for mask in kept}
    left = dataset.refused("blobs", axis=axis, reason="NO_MASK_LEFT")
    assert {row["slice_index"] for row in left} == bare


def facts(rows: list[dict[str, Any]]) -> set[tuple[Any, ...]]:
    names = ("slice_index", "label", "area_px", "x0", "y0", "x1", "y1")
    return {tuple(row[name] for name in names) for row in rows}


def test_an_object_has_one_number_on_all_its_planes(objects: Built) -> None:
    dataset, folder = objects
    label = kit.ras(folder / "blobs" / "b_label.nii.gz")
    components, _ = ndi.label(label == 1)
    numbers: dict[int, set[int]] = {}
    for rows in dataset.slices("blobs", axis="z").values():
        plane = kit.shown(components, "z", rows[0]["slice_index"])
        for row, mask in zip(rows, dataset.masks(rows[0]), strict=True):
            if row["label"] == "lung-nodule":
                (component,) = np.unique(plane[mask])
                numbers.setdefault(row["instance"], set()).add(int(component))
    assert all(len(found) == 1 for found in numbers.values())
    assert len({next(iter(found)) for found in numbers.values()}) == len(numbers) > 1


def test_a_bound_at_another_size_is_a_share_of_the_plane(objects: Built) -> None:
    refused = objects[0].refused("blobs", axis="z", reason="AREA")
    (bound,) = {row["bound"] for row in refused}
    assert bound == pytest.approx(MIN_PIXELS * 60 * 48 / AT**2)


def test_cases_without_a_kept_mask_are_no_failure(objects: Built) -> None:
    """An empty label, and one whose every mask is below the bounds: no sample, but every mask accounted for."""
    dataset, _ = objects
    assert dataset.of("bare") == []
    assert dataset.record["sources"]["bare"]["counts"]["cases"] == {
        "discovered": 2,
        "written": 1,
        "rejected": 1,
    }
    reasons = sorted((row["case"], row["axis"], row["reason"]) for row in dataset.refused("bare"))
    assert reasons == [
        ("empty", "", "NO_ANNOTATION"),
        ("specks", "x", "AREA"),
        ("specks", "x", "AREA"),
        ("specks", "x", "NO_MASK_LEFT"),
        ("specks", "x", "NO_MASK_LEFT"),
        ("specks", "y", "ASPECT"),
        ("specks", "y", "ASPECT"),
        ("specks", "z", "AREA"),
        ("specks", "z", "NO_MASK_LEFT"),
    ]


def test_refused_masks_are_as_large_as_the_image_states(tmp_path: Path) -> None:
    """The label file knows no spacing; the manifest has the image's, and so has the ledger."""
    label = np.zeros((70, 50), np.uint8)
    label[10:40, 10:40], label[60:62, 5:7] = 1, 2
    (tmp_path / "greys").mkdir()
    pixels = np.random.default_rng(6).integers(0, 60000, (70, 50)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "greys" / "a_image.tif", pixels)
    tifffile.imwrite(tmp_path / "greys" / "a_label.tif", label)
    source = kit.write_source(
        tmp_path,
        "greys",
        modality="oct",
        dimensions=2,
        image={"reader": "raster", "options": {"spacing_mm": [0.01, 0.02]}},
        label={"reader": "raster", "decoder": "index"},
        labels={"1": "retina", "2": "intraretinal-fluid"},
        pairings=kit.flat_suffix("_image.tif", "_label.tif"),
    )
    masks = {"components": "none", "min_area": {"pixels": 100, "at": 256}}
    dataset = kit.built(kit.write_recipe(tmp_path, [source], masks=masks), tmp_path / "out")
    (kept,), (refused,) = dataset.of("greys"), dataset.refused("greys")
    assert kept["area_mm2"] == pytest.approx(900 * 0.01 * 0.02)
    assert refused["area_mm2"] == pytest.approx(4 * 0.01 * 0.02)
