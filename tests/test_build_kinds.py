"""Builds of every kind of source: channels, rasters, overlaps, axes, splits, foreign headers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import build_kit as kit
import lab
import numpy as np
import pytest
import scipy.ndimage as ndi
import SimpleITK
import tifffile
from PIL import Image

SAGITTAL = np.array([[0.0, 0, 4, -30], [-0.9, 0, 0, 20], [0, 0.8, 0, -10], [0, 0, 0, 1]])


def picture(path: Path, pixels: np.ndarray, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def colours(seed: int, height: int = 90, width: int = 120) -> np.ndarray:
    """(H, W, 3) uint8, smooth so that lossy formats would show."""
    noise = np.random.default_rng(seed).normal(size=(height, width, 3))
    smooth = ndi.gaussian_filter(noise, (6, 6, 0))
    return np.interp(smooth, (smooth.min(), smooth.max()), (0, 255)).astype(np.uint8)


def ellipse(height: int, width: int, y: float, x: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return ((rows - y * height) / (radius * height)) ** 2 + (
        (columns - x * width) / (radius * width)
    ) ** 2 <= 1


def channel_files(folder: Path) -> str:
    """BraTS-like: four sequences as files of one case, one label."""
    case = folder / "sequences" / "pat_001"
    rng = np.random.default_rng(1)
    _, label = lab.volume(1)
    for name in ("t1", "t1ce", "t2", "flair"):
        kit.nifti(case / f"pat_001_{name}.nii.gz", rng.integers(0, 900, label.shape).astype(np.int16))
    kit.nifti(case / "pat_001_seg.nii.gz", np.where(label == 300, 4, label).astype(np.uint8))
    return kit.write_source(
        folder,
        "sequences",
        modality="mr",
        channels=[{"name": name, "sequence": name} for name in ("t1", "t1ce", "t2", "flair")],
        labels={"1": "brain-tumor-necrotic", "2": "brain-tumor-edema", "4": "brain-tumor-enhancing"},
        pairings=[
            {
                "kind": "case-folder",
                "options": {"image": "{case}_{channel}.nii.gz", "label": "*_seg.nii.gz"},
            }
        ],
        **kit.NIFTI,
    )


def channel_components(folder: Path) -> str:
    """Like MSD Task01: one 4D file holds all channels."""
    rng = np.random.default_rng(2)
    _, label = lab.volume(2)
    kit.nifti(
        folder / "fourth-axis" / "imagesTr" / "a.nii.gz",
        rng.integers(0, 900, (*label.shape, 3)).astype(np.int16),
    )
    two = rng.integers(0, 900, (*label.shape, 2)).astype(np.int16)
    kit.nifti(folder / "fourth-axis" / "imagesTr" / "b.nii.gz", two)
    for case in "ab":
        target = folder / "fourth-axis" / "labelsTr" / f"{case}.nii.gz"
        kit.nifti(target, np.where(label == 300, 3, label).astype(np.uint8))
    return kit.write_source(
        folder,
        "fourth-axis",
        modality="mr",
        channels=[
            {"name": name, "sequence": name, "component": n} for n, name in enumerate(("flair", "t1", "t2"))
        ],
        labels={"1": "brain-tumor-necrotic", "2": "brain-tumor-edema", "3": "brain-tumor-enhancing"},
        pairings=[
            {
                "kind": "paired-folders",
                "options": {
                    "images": "imagesTr",
                    "labels": "labelsTr",
                    "image_suffix": ".nii.gz",
                    "label_suffix": ".nii.gz",
                },
            }
        ],
        **kit.NIFTI,
    )


def colour_map(folder: Path) -> str:
    """Retina-like: PNG pictures, a colour a structure, an undeclared colour in one case."""
    label = np.zeros((90, 120, 3), np.uint8)
    label[ellipse(90, 120, 0.4, 0.6, 0.2)] = (255, 0, 0)
    label[ellipse(90, 120, 0.4, 0.6, 0.1)] = (0, 255, 16)
    odd = label.copy()
    odd[0, 0] = (1, 2, 3)
    for name, mask in (("eye1", label), ("eye2", odd)):
        picture(folder / "retina" / f"{name}.png", colours(3))
        picture(folder / "retina" / f"{name}_label.png", mask)
    return kit.write_source(
        folder,
        "retina",
        modality="fundus",
        dimensions=2,
        image={"reader": "raster"},
        label={"reader": "raster", "decoder": "colour-map"},
        labels={"#ff0000": "optic-disc", "#00FF10": "optic-cup"},
        pairings=kit.flat_suffix(".png", "_label.png"),
    )


def threshold(folder: Path) -> str:
    """Skin-like: JPEG pictures whose masks are JPEG too, so that edges are grey."""
    mask = np.where(ellipse(90, 120, 0.5, 0.3, 0.25), 255, 0).astype(np.uint8)
    picture(folder / "skin" / "mole.jpg", colours(4), quality=95)
    picture(folder / "skin" / "mole_mask.jpg", mask, quality=60)
    return kit.write_source(
        folder,
        "skin",
        modality="dermoscopy",
        dimensions=2,
        image={"reader": "raster"},
        label={"reader": "raster", "decoder": "threshold", "options": {"above": 127}},
        labels={"*": "skin-lesion"},
        pairings=kit.flat_suffix(".jpg", "_mask.jpg"),
    )


def overlapping(folder: Path) -> str:
    """A file a class, overlapping; the second case lacks a class."""
    shape = (40, 36, 6)
    body, inside = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    body[5:30, 5:30, 1:5], inside[10:20, 10:20, 2:4] = 1, 1
    for case in ("s1", "s2"):
        seed = int(case[1])
        image = np.random.default_rng(seed).integers(-200, 300, shape).astype(np.int16)
        kit.nifti(folder / "overlap" / case / "ct.nii.gz", image)
        kit.nifti(folder / "overlap" / case / "parts" / "liver.nii.gz", body)
    kit.nifti(folder / "overlap" / "s1" / "parts" / "liver_cyst.nii.gz", inside)
    return kit.write_source(
        folder,
        "overlap",
        modality="ct",
        image={"reader": "nifti"},
        label={"reader": "nifti", "decoder": "mask-per-class"},
        labels={"liver": "liver", "liver_cyst": "liver-cyst"},
        pairings=[
            {"kind": "case-folder", "options": {"image": "ct.nii.gz", "label": "parts/{label}.nii.gz"}}
        ],
    )


def value_map(folder: Path) -> str:
    """Grey values stand for structures, in a TIFF; the picture is a 16-bit TIFF."""
    label = np.zeros((70, 50), np.uint8)
    label[ellipse(70, 50, 0.5, 0.5, 0.4)] = 85
    label[ellipse(70, 50, 0.5, 0.5, 0.2)] = 170
    (folder / "greys").mkdir()
    pixels = np.random.default_rng(6).integers(0, 60000, (70, 50)).astype(np.uint16)
    tifffile.imwrite(folder / "greys" / "a_image.tif", pixels, compression="zlib")
    tifffile.imwrite(folder / "greys" / "a_label.tif", label)
    return kit.write_source(
        folder,
        "greys",
        modality="oct",
        dimensions=2,
        image={"reader": "raster", "options": {"spacing_mm": [0.01, 0.02]}},
        label={
            "reader": "raster",
            "decoder": "value-map",
            "reader_options": {"spacing_mm": [0.01, 0.02]},
        },
        labels={"85": "retina", "160..180": "intraretinal-fluid"},
        pairings=kit.flat_suffix("_image.tif", "_label.tif"),
    )


def palette(folder: Path) -> str:
    """GIF labels: palette indices, not colours."""
    label = Image.fromarray(ellipse(60, 80, 0.5, 0.5, 0.3).astype(np.uint8), "P")
    label.putpalette([10, 20, 30, 200, 100, 50])
    picture(folder / "vessels" / "v1.png", colours(7, 60, 80))
    label.save(folder / "vessels" / "v1.gif")
    return kit.write_source(
        folder,
        "vessels",
        modality="fundus",
        dimensions=2,
        image={"reader": "raster"},
        label={"reader": "raster", "decoder": "index", "reader_options": {"palette": "indices"}},
        labels={"1": "retinal-vessel"},
        pairings=kit.flat_suffix(".png", ".gif"),
    )


IDS = {70_000: (4, 9), 65_536: (12, 17), 4_000_000_000: (20, 30)}  # id -> columns


def large_ids(folder: Path) -> str:
    """Instance ids that 16 bits would fold together or drop, in a compressed MetaImage."""
    label = np.zeros((3, 24, 32), np.uint32)
    for number, (start, stop) in IDS.items():
        label[1, 5:15, start:stop] = number
    (folder / "instances").mkdir()
    noise = np.random.default_rng(8).integers(0, 200, label.shape).astype(np.uint8)
    for name, array in (("x_image", noise), ("x_cells", label)):
        image = SimpleITK.GetImageFromArray(array)
        image.SetSpacing((1, 1, 2))
        SimpleITK.WriteImage(image, folder / "instances" / f"{name}.mha", useCompression=True)
    return kit.write_source(
        folder,
        "instances",
        modality="microscopy",
        image={"reader": "metaimage"},
        label={"reader": "metaimage", "decoder": "instance"},
        labels={"*": "cell"},
        pairings=kit.flat_suffix("_image.mha", "_cells.mha"),
    )


def sagittal(folder: Path) -> str:
    """Stored as (A-, S+, R+) with 4 mm between sagittal planes: out-of-plane is x."""
    image, label = lab.volume(9, (30, 26, 8))
    kit.nifti(folder / "knee" / "k_image.nii.gz", image, SAGITTAL)
    kit.nifti(folder / "knee" / "k_label.nii.gz", label, SAGITTAL)
    return kit.write_source(
        folder,
        "knee",
        modality="ct",
        labels={"1": "femur", "2": "tibia", "300": "patella"},
        pairings=kit.flat_suffix("_image.nii.gz", "_label.nii.gz"),
        **kit.NIFTI,
    )


def detached(folder: Path) -> str:
    """.mhd headers with their .raw: one honest, two that point out of their folder."""
    root = folder / "detached"
    root.mkdir()
    image, label = lab.volume(10, (20, 18, 5))
    names = {"good": "", "climbs": f"../{root.name}-secret.raw", "absolute": "/etc/hostname"}
    for case in names:
        for part, array in (("image", image), ("label", (label > 0).astype(np.uint8))):
            volume = SimpleITK.GetImageFromArray(array.transpose(2, 1, 0))
            volume.SetSpacing((1, 1, 4))
            SimpleITK.WriteImage(volume, root / f"{case}_{part}.mhd")
    (folder / f"{root.name}-secret.raw").write_bytes((root / "good_image.raw").read_bytes())
    for case, target in names.items():
        header = root / f"{case}_image.mhd"
        if target:
            header.write_text(header.read_text().replace(f"{case}_image.raw", target))
    return kit.write_source(
        folder,
        "detached",
        modality="ct",
        image={"reader": "metaimage"},
        label={"reader": "metaimage", "decoder": "index"},
        labels={"1": "liver"},
        pairings=kit.flat_suffix("_image.mhd", "_label.mhd", ignore=["*.raw"]),
    )


def official(folder: Path) -> str:
    """Two folders with official splits; one case is declared bad, one file has no partner."""
    for split, cases in (("training", ("c1", "c2", "c3")), ("testing", ("c4", "c5"))):
        for case in cases:
            image, label = lab.volume(int(case[1]) + 20, (20, 18, 5))
            kit.nifti(folder / "challenge" / split / f"{case}_image.nii", image)
            kit.nifti(folder / "challenge" / split / f"{case}_label.nii", label)
    (folder / "challenge" / "testing" / "c5_label.nii").unlink()
    pairings = [
        {**kit.flat_suffix("_image.nii", "_label.nii", folder=name)[0], "split": split}
        for name, split in (("training", "train"), ("testing", "test"))
    ]
    return kit.write_source(
        folder,
        "challenge",
        modality="ct",
        labels={"1": "liver", "2": "spleen", "300": "kidney"},
        pairings=pairings,
        errata=[{"case": "c2", "reason": "its label belongs to another patient"}],
        **kit.NIFTI,
    )


MAKERS = (
    channel_files, channel_components, colour_map, threshold, overlapping, value_map, palette, large_ids,
    sagittal, detached, official,
)  # fmt: skip
Built = tuple[kit.Dataset, Path]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """All kinds in one dataset."""
    folder = tmp_path_factory.mktemp("kinds")
    intensity = kit.INTENSITY | {"dermoscopy": {"rule": "rgb"}}
    split = {"train": 0, "val": 1, "test": 0}  # the hash alone would put every case here
    recipe = kit.write_recipe(folder, [make(folder) for make in MAKERS], intensity=intensity, split=split)
    return kit.built(recipe, folder / "out", code=3), folder


TUMOR = {
    1: "brain-tumor-necrotic",
    2: "brain-tumor-edema",
    3: "brain-tumor-enhancing",
    4: "brain-tumor-enhancing",
}
SEQUENCES = ("t1", "t1ce", "t2", "flair")


@pytest.mark.parametrize("channel", SEQUENCES)
def test_channels_as_files(built: Built, channel: str) -> None:
    dataset, folder = built
    case = folder / "sequences" / "pat_001"
    kit.check_whole_labels(
        dataset, "sequences", kit.ras(case / "pat_001_seg.nii.gz"), TUMOR, channel=channel, sequence=channel
    )
    voxels = kit.ras(case / f"pat_001_{channel}.nii.gz")
    row = dataset.of("sequences", channel=channel)[0]
    assert row["source_file"] == f"pat_001/pat_001_{channel}.nii.gz"
    assert (row["intensity_low"], row["intensity_high"]) == pytest.approx(np.percentile(voxels, (0.5, 99.5)))
    kit.check_pixels(dataset, row, kit.shown(voxels, "z", row["slice_index"]))


@pytest.mark.parametrize(("component", "channel"), list(enumerate(("flair", "t1", "t2"))))
def test_channels_as_components(built: Built, component: int, channel: str) -> None:
    dataset, folder = built
    label = kit.ras(folder / "fourth-axis" / "labelsTr" / "a.nii.gz")
    kit.check_whole_labels(dataset, "fourth-axis", label, TUMOR, channel=channel, sequence=channel)
    voxels = kit.ras(folder / "fourth-axis" / "imagesTr" / "a.nii.gz")[..., component]
    for rows in dataset.slices("fourth-axis", channel=channel).values():
        kit.check_pixels(dataset, rows[0], kit.shown(voxels, "z", rows[0]["slice_index"]))


def test_a_case_that_lacks_its_last_channel_leaves_nothing(built: Built) -> None:
    (row,) = built[0].refused("fourth-axis")
    assert (row["case"], row["reason"]) == ("b", "GEOMETRY")
    assert built[0].of("fourth-axis", case="b") == []


@pytest.mark.parametrize("source", ["sequences", "fourth-axis"])
def test_channels_share_their_masks_group_and_split(built: Built, source: str) -> None:
    rows = built[0].of(source)
    facts = {}
    for row in rows:
        mask = (row["slice_index"], row["label"], row["area_px"], row["x0"], row["y0"], row["x1"], row["y1"])
        facts.setdefault(row["channel"], set()).add(mask)
    assert len({frozenset(masks) for masks in facts.values()}) == 1
    assert len({(row["group"], row["split"]) for row in rows}) == 1
    assert len({row["key"] for row in rows}) == len({(row["channel"], row["slice_index"]) for row in rows})


def test_colour_map_on_a_colour_picture(built: Built) -> None:
    dataset, _ = built
    rows = dataset.of("retina", case="eye1")
    disc, cup = ellipse(90, 120, 0.4, 0.6, 0.2), ellipse(90, 120, 0.4, 0.6, 0.1)
    masks = dict(zip([row["label"] for row in rows], dataset.masks(rows[0]), strict=True))
    assert np.array_equal(masks["optic-disc"], disc & ~cup)
    assert np.array_equal(masks["optic-cup"], cup)
    assert np.array_equal(dataset.sample(rows[0])[0], colours(3))
    assert dataset.reasons("retina") == {"eye2": "BAD_LABEL"}


def test_threshold_of_a_lossy_mask(built: Built) -> None:
    dataset, folder = built
    (row,) = dataset.of("skin")
    mask = np.asarray(Image.open(folder / "skin" / "mole_mask.jpg"))
    assert len(np.unique(mask)) > 2
    assert np.array_equal(dataset.masks(row)[0], mask > 127)
    decoded = np.asarray(Image.open(folder / "skin" / "mole.jpg")).astype(int)
    assert np.abs(dataset.sample(row)[0] - decoded).max() <= 2  # two JPEG decoders may round differently


def test_overlapping_classes_keep_all_their_voxels(built: Built) -> None:
    dataset, folder = built
    for rows in dataset.slices("overlap", case="s1").values():
        parts = dict(zip([row["label"] for row in rows], dataset.masks(rows[0]), strict=True))
        for name, file in (("liver", "liver"), ("liver-cyst", "liver_cyst")):
            plane = kit.shown(
                kit.ras(folder / "overlap" / "s1" / "parts" / f"{file}.nii.gz"), "z", rows[0]["slice_index"]
            )
            assert np.array_equal(parts.get(name, np.zeros_like(plane, bool)), plane > 0)
    labels = [[row["label"] for row in rows] for rows in dataset.slices("overlap", case="s1").values()]
    assert sorted(map(len, labels)) == [1, 1, 2, 2]
    assert {row["label"] for row in dataset.of("overlap", case="s2")} == {"liver"}


def test_value_map_in_a_tiff(built: Built) -> None:
    dataset, folder = built
    label = tifffile.imread(folder / "greys" / "a_label.tif")
    rows = dataset.of("greys")
    kit.check_plane(dataset, rows, label, {85: "retina", 170: "intraretinal-fluid"})
    kit.check_pixels(dataset, rows[0], tifffile.imread(folder / "greys" / "a_image.tif"))
    assert rows[0]["area_mm2"] == pytest.approx(rows[0]["area_px"] * 0.01 * 0.02)


def test_palette_indices_of_a_gif(built: Built) -> None:
    dataset, _ = built
    (row,) = dataset.of("vessels")
    assert np.array_equal(dataset.masks(row)[0], ellipse(60, 80, 0.5, 0.5, 0.3))
    assert np.array_equal(dataset.sample(row)[0], colours(7, 60, 80))


def test_instance_ids_beyond_16_bits(built: Built) -> None:
    rows = built[0].of("instances")
    assert {row["instance"]: (row["x0"], row["x1"], row["area_px"]) for row in rows} == {
        number: (start, stop, 10 * (stop - start)) for number, (start, stop) in IDS.items()
    }


def test_sagittal_storage_is_cut_out_of_plane(built: Built) -> None:
    dataset, folder = built
    label = kit.ras(folder / "knee" / "k_label.nii.gz")
    kit.check_whole_labels(dataset, "knee", label, {1: "femur", 2: "tibia", 300: "patella"}, axis="x")
    voxels = kit.ras(folder / "knee" / "k_image.nii.gz")
    for row in dataset.of("knee"):
        assert (row["row_spacing_mm"], row["col_spacing_mm"]) == pytest.approx((0.8, 0.9))
        kit.check_pixels(dataset, row, kit.shown(voxels, "x", row["slice_index"]))


def test_detached_data_outside_their_folder_are_refused(built: Built) -> None:
    dataset, _ = built
    assert dataset.reasons("detached") == {
        "climbs": "OUTSIDE_REFERENCE",
        "absolute": "OUTSIDE_REFERENCE",
    }
    assert {row["case"] for row in dataset.of("detached")} == {"good"}


def test_official_splits_errata_and_lone_files(built: Built) -> None:
    dataset, _ = built
    splits = {row["case"]: row["split"] for row in dataset.of("challenge")}
    assert splits == {"c1": "train", "c3": "train", "c4": "test"}
    assert dataset.reasons("challenge") == {"c2": "ERRATUM", "c5": "UNPAIRED"}
    (erratum,) = dataset.refused("challenge", reason="ERRATUM")
    assert erratum["detail"] == "its label belongs to another patient"
    assert {row["split"] for row in dataset.of("retina")} == {"val"}
