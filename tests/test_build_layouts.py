"""Builds of named layouts from end to end: rows of the right case, patient, plane and mask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from build_kit import Dataset, built, write_recipe, write_source
from dicom_kit import series
from PIL import Image
from pycocotools import mask as coco

RNG = np.random.default_rng(7)
AFFINE = np.diag([-0.8, -0.7, 5.0, 1.0])
NIFTI = {"reader": "nifti"}
INDEX = {"reader": "nifti", "decoder": "index"}


def box(shape: tuple[int, ...], *sides: tuple[int, int], value: int = 1) -> np.ndarray:
    array = np.zeros(shape, np.uint8)
    array[tuple(slice(*side) for side in sides)] = value
    return array


def nifti(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)


def png(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def noise(*shape: int) -> np.ndarray:
    return RNG.integers(0, 255, shape, dtype=np.uint8)


SETS: dict[str, Any] = {}


def layout(**facts: Any):
    """Register a set: its source's facts, and a function that puts its files into a folder."""

    def register(grow):
        SETS[grow.__name__] = (facts, grow)
        return grow

    return register


@layout(
    modality="histopathology", dimensions=2,
    pairings=[{"kind": "array-pack", "options": {
        "images": "Fold */images/fold*/images.npy", "labels": "Fold */masks/fold*/masks.npy"}}],
    image={"reader": "array", "options": {"axes": "hwc", "dtype": "uint8"}},
    label={"reader": "array", "reader_options": {"axes": "hwc"}, "decoder": "instance-channels",
           "options": {"ignore": [2]}},
    labels={"0": "liver", "1": "spleen"},
)  # fmt: skip
def pannuke(root: Path) -> None:
    for fold in ("1", "2"):
        masks = np.zeros((3, 32, 32, 3))
        masks[:, 2:14, 2:14, 0], masks[:, 16:30, 2:14, 0], masks[:, 8:20, 8:20, 1] = 1, 7, 4
        masks[..., 2] = masks[..., :2].sum(-1) == 0
        for kind, array in (("images", noise(3, 32, 32, 3).astype(float)), ("masks", masks)):
            path = root / f"Fold {fold}" / kind / f"fold{fold}" / f"{kind}.npy"
            path.parent.mkdir(parents=True)
            np.save(path, array)


@layout(
    modality="histopathology", dimensions=2,
    pairings=[{"kind": "array-pack", "options": {"images": "images.npy", "labels": "labels.npy"}}],
    image={"reader": "array", "options": {"axes": "hwc"}},
    label={"reader": "array", "reader_options": {"axes": "hwc"}, "decoder": "instance-class"},
    labels={"1": "liver", "2": "spleen"},
    case={"identifiers": "keep", "table": {
        "file": "patch_info.csv", "case": "<row:06>", "group": "<image>",
        "capture": {"patch_info": "^(?P<image>.+?)-"}}},
)  # fmt: skip
def conic(root: Path) -> None:
    labels = np.zeros((3, 24, 24, 2), np.int32)
    labels[:, 2:14, 2:14], labels[:, 2:14, 15:23] = (3, 1), (9, 2)
    np.save(root / "images.npy", noise(3, 24, 24, 3))
    np.save(root / "labels.npy", labels)
    (root / "patch_info.csv").write_text("patch_info\nconsep_1-0001\nconsep_1-0002\nglas_4-0001\n")


@layout(
    modality="ct", dimensions=3,
    pairings=[{"kind": "same-file", "options": {"suffix": ".npz", "image": "imgs", "label": "gts"}}],
    image={"reader": "array", "options": {"axes": "kji", "spacing_key": "spacing"}},
    label={"reader": "array", "reader_options": {"axes": "kji", "spacing_key": "spacing"}, "decoder": "index"},
    labels={"1": "liver"},
)  # fmt: skip
def medsam(root: Path) -> None:
    gts = box((4, 20, 24), (1, 3), (3, 18), (4, 20))
    np.savez_compressed(root / "CT_a.npz", imgs=noise(4, 20, 24), gts=gts, spacing=(0.7, 0.8, 5.0))


@layout(
    modality="oct", dimensions=2,
    pairings=[{"kind": "same-file", "options": {
        "folder": "Images/*", "suffix": ".png", "image": "left", "label": "right"}}],
    image={"reader": "raster"}, label={"reader": "raster", "decoder": "colour-map"},
    labels={"#FF0000": "liver", "#00ff00": "spleen"},
    case={"identifiers": "keep", "pattern": "^(?P<group>[^/]+)/"},
)  # fmt: skip
def oimhs(root: Path) -> None:
    label = np.zeros((32, 32, 3), np.uint8)
    label[2:14, 2:14, 0], label[16:30, 4:20, 1] = 255, 255
    for name in ("7/1.png", "7/2.png", "8/1.png"):
        grey = np.repeat(noise(32, 32)[..., None], 3, 2)
        png(root / "Images" / name, np.concatenate([grey, label], 1))


@layout(
    modality="mr", dimensions=3, image=NIFTI, label=INDEX, labels={"1": "liver"},
    pairings=[{"kind": "table", "options": {
        "file": "info.csv", "case": "<Code>", "group": "<Code>", "entries": ["<ED>", "<ES>"],
        "image": "**/<Code>_sa.nii.gz", "label": "**/<Code>_sa_gt.nii.gz"}}],
)  # fmt: skip
def mnms(root: Path) -> None:
    labels = np.zeros((24, 20, 3, 6), np.uint8)
    labels[4:20, 4:18, 1, 2], labels[6:19, 4:18, 2, 5] = 1, 1
    nifti(root / "Labeled/A1/A1_sa.nii.gz", noise(24, 20, 3, 6))
    nifti(root / "Labeled/A1/A1_sa_gt.nii.gz", labels)
    (root / "info.csv").write_text("Code,ED,ES\nA1,2,5\n")


@layout(
    modality="ct", dimensions=3, image={"reader": "dicom", "options": {"order": "names"}},
    label={"reader": "raster", "decoder": "value-map", "geometry": "image",
           "reader_options": {"stack": True, "spacing_mm": [1, 1, 1]}},
    labels={"55..70": "liver"},
    pairings=[{"kind": "case-folder", "options": {"image": "DICOM_anon/", "label": "Ground/"}}],
)  # fmt: skip
def chaos(root: Path) -> None:
    """Names run against the positions; ten planes, so that natural and plain order differ."""
    labels = np.stack([box((20, 24), (2, 18), (3 + n, 20), value=63) for n in range(11)])
    planes = series(noise(24, 20, 11).astype(np.int16), step=(0, 0, -2.5))
    for number, (dataset, label) in enumerate(zip(planes, labels, strict=True), start=1):
        path = root / "5/DICOM_anon" / f"IMG-{number}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        dataset.save_as(path, enforce_file_format=True)
        png(root / "5/Ground" / f"IMG-{number}.png", label)


@layout(
    modality="ct", dimensions=3, image=NIFTI, labels={"1": "liver"},
    label={**INDEX, "raters": ["1", "2", "3"], "agreement": "majority"},
    pairings=[{"kind": "case-folder", "options": {"image": "image.nii.gz", "label": "annotation_{rater}.nii.gz"}}],
)  # fmt: skip
def curvas(root: Path) -> None:
    nifti(root / "UKC1/image.nii.gz", noise(24, 24, 3))
    for rater, start in (("1", 2), ("2", 6), ("3", 8)):
        nifti(root / f"UKC1/annotation_{rater}.nii.gz", box((24, 24, 3), (start, 20), (4, 20), (1, 2)))


@layout(
    modality="ct", dimensions=3, image=NIFTI, labels={"2": "liver", "-1": "spleen"},
    label={"reader": "nifti", "decoder": "instance-table", "options": {"background": ["0"]}, "classes": {
        "file": "info.csv", "case": "<public_id>", "value": "<label_id>", "key": "<label_code>"}},
    pairings=[{"kind": "flat-suffix", "options": {
        "image_suffix": "-image.nii.gz", "label_suffix": "-label.nii.gz"}}],
)  # fmt: skip
def ribfrac(root: Path) -> None:
    labels = box((24, 24, 2), (2, 14), (2, 14), (0, 1)) + box((24, 24, 2), (2, 14), (15, 23), (0, 1), value=2)
    nifti(root / "RibFrac1-image.nii.gz", noise(24, 24, 2))
    nifti(root / "RibFrac1-label.nii.gz", labels)
    (root / "info.csv").write_text(
        "public_id,label_id,label_code\nRibFrac1,0,0\nRibFrac1,1,2\nRibFrac1,2,-1\n"
    )


@layout(
    modality="ultrasound", dimensions=3, frames="k", image=NIFTI, label=INDEX, labels={"1": "liver"},
    pairings=[{"kind": "flat-suffix", "options": {"image_suffix": ".nii.gz", "label_suffix": "_gt.nii.gz"}}],
)  # fmt: skip
def camus(root: Path) -> None:
    nifti(root / "p1.nii.gz", noise(24, 24, 5))
    nifti(root / "p1_gt.nii.gz", box((24, 24, 5), (2, 20), (4, 20), (0, 5)))


@layout(
    modality="ct", dimensions=3, image=NIFTI, labels={"1": "liver", "2": "spleen"}, label=INDEX,
    regions={"kidney": ["liver", "spleen"]},
    pairings=[{"kind": "flat-suffix", "options": {"image_suffix": "_i.nii.gz", "label_suffix": "_l.nii.gz"}}],
)  # fmt: skip
def turned(root: Path) -> None:
    """The label holds the same grid from another corner; and a region unites both terms."""
    image = noise(20, 24, 3)
    labels = box((20, 24, 3), (2, 12), (4, 20), (0, 2)) + box((20, 24, 3), (12, 19), (4, 9), (0, 2), value=2)
    nifti(root / "a_i.nii.gz", image)
    turned = nib.as_closest_canonical(nib.Nifti1Image(labels, AFFINE))
    nib.save(turned, root / "a_l.nii.gz")


@layout(
    modality="ct", dimensions=3, image=NIFTI, labels={"1": "liver"}, label={**INDEX, "geometry": "nearest"},
    pairings=[{"kind": "flat-suffix", "options": {"image_suffix": "_i.nii.gz", "label_suffix": "_l.nii.gz"}}],
)  # fmt: skip
def cropped(root: Path) -> None:
    nifti(root / "a_i.nii.gz", noise(20, 24, 4))
    moved = AFFINE.copy()
    moved[:3, 3] = (AFFINE @ [3, 5, 1, 1])[:3]
    nifti(root / "a_l.nii.gz", np.ones((12, 14, 2), np.uint8), moved)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    folder = tmp_path_factory.mktemp("layouts")
    for name, (facts, grow) in SETS.items():
        (folder / name).mkdir()
        grow(folder / name)
        write_source(folder, name, **facts)
    intensity = {name: {"rule": "rgb"} for name in ("histopathology", "oct")} | {
        "default": {"rule": "minmax"}
    }
    recipe = write_recipe(
        folder, SETS, intensity=intensity, slices={"axes": ["z", "x"], "min_aspect": 0.5},
        masks={"components": "3d", "min_area": {"pixels": 0, "at": 256}},
    )  # fmt: skip
    return built(recipe, folder / "out", "--data", str(folder))


def masks(dataset: Dataset, source: str, **where: Any) -> dict[tuple[Any, ...], np.ndarray]:
    """(case, slice, label, instance) -> mask on canonical planes as stored in the sample."""
    found = {}
    for row in dataset.of(source, **where):
        annotation = dataset.sample(row)[1][row["annotation"]]
        key = (row["case"], row["slice_index"], row["label"], row["instance"])
        assert key not in found
        found[key] = coco.decode(annotation["segmentation"]).astype(bool)
    return found


def test_nothing_is_refused_but_flat_planes(dataset):
    assert {row["reason"] for name in SETS for row in dataset.refused(name)} <= {"ASPECT"}
    assert {row["source"] for row in dataset.rows.to_pylist()} == set(SETS)


def test_pannuke_channels(dataset):
    found = masks(dataset, "pannuke")
    case = "Fold 2/fold2/000002"
    expected = {("liver", 1): (slice(2, 14), slice(2, 14)), ("liver", 7): (slice(16, 30), slice(2, 14)),
                ("spleen", 4): (slice(8, 20), slice(8, 20))}  # fmt: skip
    assert {key[2:] for key in found if key[0] == case} == set(expected)
    for (label, instance), place in expected.items():
        assert found[case, 0, label, instance][place].all()
    assert len({key[0] for key in found}) == 6
    pack = np.load(Path(dataset.folder).parent / "pannuke/Fold 2/images/fold2/images.npy")
    row = dataset.of("pannuke", case=case)[0]
    np.testing.assert_array_equal(dataset.sample(row)[0], pack[2].astype(np.uint8))


def test_conic_rows_know_their_slide(dataset):
    groups = {row["case"]: row["group"] for row in dataset.of("conic")}
    assert groups == {"000000": "conic:consep_1", "000001": "conic:consep_1", "000002": "conic:glas_4"}
    assert {(row["label"], row["instance"]) for row in dataset.of("conic")} == {("liver", 3), ("spleen", 9)}


def test_medsam_volumes_have_spacing(dataset):
    rows = dataset.of("medsam", axis="z")
    assert {(r["slice_index"], r["row_spacing_mm"], r["col_spacing_mm"], r["area_px"]) for r in rows} == {
        (1, 0.8, 0.7, 15 * 16), (2, 0.8, 0.7, 15 * 16),
    }  # fmt: skip


def test_halves_are_image_and_label(dataset):
    rows = dataset.of("oimhs")
    assert {row["group"] for row in rows} == {"oimhs:7", "oimhs:8"}
    picture = dataset.sample(rows[0])[0]
    original = np.asarray(Image.open(Path(dataset.folder).parent / "oimhs/Images" / f"{rows[0]['case']}.png"))
    np.testing.assert_array_equal(picture, original[:, :32])
    assert {(row["label"], row["area_px"]) for row in rows} == {("liver", 144), ("spleen", 14 * 16)}


def test_frames_are_cases(dataset):
    rows = dataset.of("mnms", axis="z")
    assert {(row["case"], row["group"], row["slice_index"]) for row in rows} == {
        ("A1/2", "mnms:A1", 1), ("A1/5", "mnms:A1", 2),
    }  # fmt: skip


def test_pictures_without_geometry_lie_on_their_planes(dataset):
    """Plane 1 by name is the topmost: slice 10 of 11 from below, and its box is the widest."""
    areas = {row["slice_index"]: row["area_px"] for row in dataset.of("chaos", axis="z")}
    assert areas == {10 - n: 16 * (17 - n) for n in range(11)}


def test_raters_vote(dataset):
    assert {(row["slice_index"], row["area_px"]) for row in dataset.of("curvas", axis="z")} == {(1, 14 * 16)}


def test_the_table_names_fractures(dataset):
    found = {(row["label"], row["instance"], row["area_px"]) for row in dataset.of("ribfrac", axis="z")}
    assert found == {("liver", 1, 144), ("spleen", 2, 12 * 8)}


def test_frames_are_cut_across_only(dataset):
    rows = dataset.of("camus")
    assert {(row["axis"], row["slice_index"]) for row in rows} == {("z", n) for n in range(5)}


def test_a_turned_label_fits_and_regions_unite(dataset):
    rows = dataset.of("turned", axis="z", slice_index=0)
    areas = {row["label"]: row["area_px"] for row in rows}
    assert areas == {"liver": 10 * 16, "spleen": 7 * 5, "kidney": 10 * 16 + 7 * 5}
    folder = Path(dataset.folder).parent / "turned"
    image, label = (nib.as_closest_canonical(nib.load(folder / f"a_{n}.nii.gz")).get_fdata() for n in "il")
    grey = (image - image.min()) * 255 / (image.max() - image.min())
    liver = next(row for row in rows if row["label"] == "liver")
    pixels, annotations, _ = dataset.sample(liver)
    drawn = coco.decode(annotations[liver["annotation"]]["segmentation"]).astype(bool)
    under = grey[:, :, 0][label[:, :, 0] == 1]  # image and mask moved alike
    np.testing.assert_allclose(np.sort(pixels[drawn]), np.sort(under), atol=1)


def test_a_cropped_label_is_put_in_its_place(dataset):
    rows = dataset.of("cropped", axis="z")
    assert {(row["slice_index"], row["area_px"]) for row in rows} == {(1, 12 * 14), (2, 12 * 14)}
    box_px = {(row["x1"] - row["x0"], row["y1"] - row["y0"]) for row in rows}
    assert box_px == {(12, 14)}
