"""Pairings on trees modelled after public sets, and on random ones."""

from __future__ import annotations

import os
import random
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trees import grow

from medcurate.errors import ConfigError, DataMissing
from medcurate.pairings import PAIRINGS
from medcurate.pairings.found import OTHER_CASE, Found, Names
from medcurate.pairings.tree import files_below, folders
from medcurate.registry import load


def find(root: Path, kind: str, names: Names | None = None, **options) -> list[Found]:
    module = load(PAIRINGS, kind, "pairing")
    return list(module.find(root, module.Options(**options), names or Names()))


def shown(found: list[Found]) -> dict[str, tuple[list[str], list[str], str]]:
    """name -> (images as "channel[component]=path|path", labels as "label=path|path", problem)."""

    def line(token: str, paths: tuple[Path, ...]) -> str:
        return f"{token}={'|'.join(path.as_posix() for path in paths)}"

    return {
        entry.name: (
            [line(f"{i.channel}{'' if i.component is None else i.component}", i.paths) for i in entry.images],
            [line(label.label, label.paths) for label in entry.labels],
            entry.problem,
        )
        for entry in found
    }


# -- paired folders ------------------------------------------------------------------------------------


def test_decathlon_pairs_by_name_without_appledouble_twins(tmp_path):
    grow(
        tmp_path,
        "imagesTr/la_003.nii.gz",
        "imagesTr/._la_003.nii.gz",
        "labelsTr/la_003.nii.gz",
        "labelsTr/._la_003.nii.gz",
        "imagesTr/la_004.nii.gz",
        "labelsTr/la_005.nii.gz",
        "imagesTs/la_001.nii.gz",
        "__MACOSX/imagesTr/la_003.nii.gz",
        "dataset.json",
    )
    found = find(
        tmp_path,
        "paired-folders",
        images="imagesTr",
        labels="labelsTr",
        image_suffix=".nii.gz",
        label_suffix=".nii.gz",
    )
    assert shown(found) == {
        "la_003": (["=imagesTr/la_003.nii.gz"], ["=labelsTr/la_003.nii.gz"], ""),
        "la_004": (["=imagesTr/la_004.nii.gz"], [], "image without label"),
        "la_005": ([], ["=labelsTr/la_005.nii.gz"], "label without image"),
    }


def test_decathlon_components_share_one_file(tmp_path):
    grow(tmp_path, "imagesTr/BRATS_001.nii.gz", "labelsTr/BRATS_001.nii.gz")
    names = Names(channels=("flair", "t1w"), components=(0, 1))
    (entry,) = find(
        tmp_path, "paired-folders", names,
        images="imagesTr", labels="labelsTr", image_suffix=".nii.gz", label_suffix=".nii.gz",
    )  # fmt: skip
    assert [(i.channel, i.component, i.paths) for i in entry.images] == [
        ("flair", 0, (Path("imagesTr/BRATS_001.nii.gz"),)),
        ("t1w", 1, (Path("imagesTr/BRATS_001.nii.gz"),)),
    ]
    assert entry.problem == ""


def test_nnunet_channels_and_a_missing_one(tmp_path):
    grow(tmp_path, *(f"imagesTr/p{case}_{channel:04d}.nii.gz" for case in (1, 2) for channel in (0, 1)))
    grow(tmp_path, "imagesTr/p3_0001.nii.gz", *(f"labelsTr/p{case}.nii.gz" for case in (1, 2, 3)))
    found = shown(
        find(
            tmp_path, "paired-folders", Names(channels=("0000", "0001"), components=(None, None)),
            images="imagesTr", labels="labelsTr", image_suffix="_{channel}.nii.gz", label_suffix=".nii.gz",
        )
    )  # fmt: skip
    assert found["p1"] == (
        ["0000=imagesTr/p1_0000.nii.gz", "0001=imagesTr/p1_0001.nii.gz"],
        ["=labelsTr/p1.nii.gz"],
        "",
    )
    assert found["p3"][2] == "no image of channel 0000"


def test_abdomenct_pools_folders_where_one_side_has_wildcards(tmp_path):
    grow(tmp_path, "Part1/Case_1_0000.nii.gz", "Part2/Case_2_0000.nii.gz", "Mask/Case_1.nii.gz")
    options = {"images": "Part*", "labels": "Mask", "image_suffix": "_0000.nii.gz", "label_suffix": ".nii.gz"}
    found = find(tmp_path, "paired-folders", **options)
    assert [(f.name, f.problem) for f in found] == [("Case_1", ""), ("Case_2", "image without label")]
    grow(tmp_path, "Part2/Case_1_0000.nii.gz")
    found = find(tmp_path, "paired-folders", **options)
    assert found[0].problem == "2 image files where one is expected"
    assert len(found[0].images) == 2


def test_wildcards_on_both_sides_stand_for_the_same_text(tmp_path):
    grow(tmp_path, "a/images/1.png", "a/masks/1.png", "b/images/1.png", "b/masks/2.png", "c/masks/1.png")
    found = shown(
        find(
            tmp_path,
            "paired-folders",
            images="*/images",
            labels="*/masks",
            image_suffix=".png",
            label_suffix=".png",
        )
    )
    assert {name: entry[2] for name, entry in found.items()} == {
        "a/1": "",
        "b/1": "image without label",
        "b/2": "label without image",
        "c/1": "label without image",
    }


def test_tnbc_names_cases_after_the_image_folder(tmp_path):
    grow(tmp_path, "Slide_01/01_1.png", "GT_01/01_1.png")
    (entry,) = find(
        tmp_path,
        "paired-folders",
        images="Slide_*",
        labels="GT_*",
        image_suffix=".png",
        label_suffix=".png",
    )
    assert (entry.name, entry.problem) == ("Slide_01/01_1", "")


def test_btcv_prefixes_differ(tmp_path):
    grow(tmp_path, "img/img0001.nii.gz", "label/label0001.nii.gz")
    (entry,) = find(
        tmp_path, "paired-folders", images="img", labels="label", image_prefix="img", label_prefix="label",
        image_suffix=".nii.gz", label_suffix=".nii.gz",
    )  # fmt: skip
    assert (entry.name, entry.problem) == ("0001", "")


def test_isic_and_refuge_suffixes(tmp_path):
    grow(
        tmp_path,
        "Input/ISIC_1.jpg",
        "GT/ISIC_1_segmentation.png",
        "Input/ISIC_2.JPG",
        "GT/ISIC_2_segmentation.bmp",
    )
    options = {"images": "Input", "labels": "GT", "label_suffix": ["_segmentation.png", "_segmentation.bmp"]}
    assert [
        f.name for f in find(tmp_path, "paired-folders", image_suffix=".jpg", **options) if not f.problem
    ] == ["ISIC_1"]
    found = find(tmp_path, "paired-folders", image_suffix=[".jpg", ".JPG"], **options)
    assert [(f.name, f.problem) for f in found] == [("ISIC_1", ""), ("ISIC_2", "")]


def test_idrid_one_folder_a_class_and_absent_classes(tmp_path):
    grow(
        tmp_path,
        "images/IDRiD_01.jpg",
        "images/IDRiD_02.jpg",
        "truth/1. Microaneurysms/IDRiD_01_MA.tif",
        "truth/5. Optic Disc/IDRiD_01_OD.tif",
        "truth/5. Optic Disc/IDRiD_02_OD.tif",
    )
    found = shown(
        find(
            tmp_path, "paired-folders", Names(labels=("MA", "HE", "OD")),
            images="images", labels="truth/*", image_suffix=".jpg", label_suffix="_{label}.tif",
        )
    )  # fmt: skip
    assert found["IDRiD_01"][1:] == (
        [
            "MA=truth/1. Microaneurysms/IDRiD_01_MA.tif",
            "OD=truth/5. Optic Disc/IDRiD_01_OD.tif",
        ],
        "",
    )
    assert found["IDRiD_02"][1:] == (["OD=truth/5. Optic Disc/IDRiD_02_OD.tif"], "")


def test_montgomery_class_is_the_folder(tmp_path):
    grow(tmp_path, "CXR_png/M_1.png", "ManualMask/leftMask/M_1.png", "ManualMask/rightMask/M_1.png")
    (entry,) = find(
        tmp_path, "paired-folders", Names(labels=("leftMask", "rightMask")),
        images="CXR_png", labels="ManualMask/{label}", image_suffix=".png", label_suffix=".png",
    )  # fmt: skip
    assert [label.label for label in entry.labels] == ["leftMask", "rightMask"]
    assert entry.problem == ""


def test_series_folder_as_image(tmp_path):
    grow(tmp_path, "dicom/P1/a10.dcm", "dicom/P1/a2.dcm", "dicom/P1/.DS_Store", "labels/P1.nii.gz")
    (tmp_path / "dicom" / "P2").mkdir()
    found = shown(
        find(
            tmp_path,
            "paired-folders",
            images="dicom",
            labels="labels",
            image_suffix="/",
            label_suffix=".nii.gz",
        )
    )
    assert found == {"P1": (["=dicom/P1/a2.dcm|dicom/P1/a10.dcm"], ["=labels/P1.nii.gz"], "")}


# -- flat suffix ---------------------------------------------------------------------------------------


def test_busi_several_masks_of_one_image(tmp_path):
    grow(
        tmp_path,
        "benign/benign (1).png",
        "benign/benign (1)_mask.png",
        "benign/benign (1)_mask_1.png",
        "normal/normal (1).png",
        "normal/normal (1)_mask.png",
    )
    found = shown(find(tmp_path, "flat-suffix", folder="*", image_suffix=".png", label_suffix="_mask*.png"))
    assert found == {
        "benign/benign (1)": (
            ["=benign/benign (1).png"],
            ["=benign/benign (1)_mask.png", "=benign/benign (1)_mask_1.png"],
            "",
        ),
        "normal/normal (1)": (["=normal/normal (1).png"], ["=normal/normal (1)_mask.png"], ""),
    }
    strict = shown(find(tmp_path, "flat-suffix", folder="*", image_suffix=".png", label_suffix="_mask.png"))
    assert strict["benign/benign (1)_mask_1"][2] == "image without label"


def test_stare_second_rater_is_ignored_only_when_told(tmp_path):
    grow(tmp_path, "im0001.ppm", "im0001.ah.ppm", "im0001.vk.ppm")
    options = {"image_suffix": ".ppm", "label_suffix": ".ah.ppm"}
    assert {f.name: f.problem for f in find(tmp_path, "flat-suffix", **options)} == {
        "im0001": "",
        "im0001.vk": "image without label",
    }
    assert [f.name for f in find(tmp_path, "flat-suffix", ignore=["*.vk.ppm"], **options)] == ["im0001"]


def test_lits_prefixes_and_cholec_nested_folders(tmp_path):
    grow(tmp_path / "lits", "volume-0.nii", "segmentation-0.nii")
    (entry,) = find(
        tmp_path / "lits", "flat-suffix",
        image_prefix="volume-", label_prefix="segmentation-", image_suffix=".nii", label_suffix=".nii",
    )  # fmt: skip
    assert (entry.name, entry.problem) == ("0", "")
    grow(
        tmp_path / "c", *(f"v1/v1_{n}/frame_{n}_endo{end}" for n in (80, 81) for end in (".png", "_mask.png"))
    )
    for folder in ("*/*", "**"):
        found = find(
            tmp_path / "c",
            "flat-suffix",
            folder=folder,
            image_suffix="_endo.png",
            label_suffix="_endo_mask.png",
        )
        assert [(f.name, f.problem) for f in found] == [("v1/v1_80/frame_80", ""), ("v1/v1_81/frame_81", "")]


# -- case folder ---------------------------------------------------------------------------------------

BRATS = Names(channels=("flair", "t1", "t1ce", "t2"), components=(None,) * 4)


def test_brats_four_channels(tmp_path):
    for name in ("BraTS_1", "BraTS_2"):
        grow(tmp_path / "HGG" / name, *(f"{name}_{end}.nii.gz" for end in (*BRATS.channels, "seg")))
    (tmp_path / "HGG/BraTS_2/BraTS_2_t1.nii.gz").unlink()
    (tmp_path / "LGG").mkdir()
    options = {"cases": "*/*", "image": "{case}_{channel}.nii.gz", "label": "{case}_seg.nii.gz"}
    found = shown(find(tmp_path, "case-folder", BRATS, **options))
    assert found["HGG/BraTS_1"] == (
        [f"{c}=HGG/BraTS_1/BraTS_1_{c}.nii.gz" for c in BRATS.channels],
        ["=HGG/BraTS_1/BraTS_1_seg.nii.gz"],
        "",
    )
    assert found["HGG/BraTS_2"][2] == "no image of channel t1"


def test_totalsegmentator_one_file_a_class(tmp_path):
    grow(tmp_path, "s0000/ct.nii.gz", "s0000/segmentations/liver.nii.gz", "s0000/segmentations/spleen.nii.gz")
    grow(tmp_path, "s0001/ct.nii.gz", "s0002/segmentations/liver.nii.gz", "s0003/readme.txt")
    found = find(
        tmp_path,
        "case-folder",
        Names(labels=("spleen", "liver", "aorta")),
        image="ct.nii.gz",
        label="segmentations/{label}.nii.gz",
    )
    assert [label.label for label in found[0].labels] == ["spleen", "liver"]
    assert [f.problem for f in found] == [
        "",
        "image without label",
        "label without image",
        "neither image nor label",
    ]


def test_chaos_series_of_slices(tmp_path):
    for case in ("1", "10"):
        grow(tmp_path / "MR" / case / "T2SPIR", *(f"DICOM_anon/IMG-{n}.dcm" for n in range(1, 12)))
        grow(tmp_path / "MR" / case / "T2SPIR", *(f"Ground/IMG-{n}.png" for n in range(1, 12)))
    found = find(tmp_path, "case-folder", cases="MR/*", image="T2SPIR/DICOM_anon/", label="T2SPIR/Ground/")
    assert [f.name for f in found] == ["1", "10"]
    assert [path.name for path in found[0].labels[0].paths] == [f"IMG-{n}.png" for n in range(1, 12)]
    assert len(found[0].images) == 1
    assert len(found[0].images[0].paths) == 11


def test_ircadb_one_series_a_class(tmp_path):
    grow(tmp_path, "3Dircadb1.1/PATIENT_DICOM/image_0", "3Dircadb1.1/MASKS_DICOM/liver/image_0")
    (entry,) = find(
        tmp_path,
        "case-folder",
        Names(labels=("liver", "bone")),
        image="PATIENT_DICOM/",
        label="MASKS_DICOM/{label}/",
    )
    assert [(part.label, len(part.paths)) for part in entry.labels] == [("liver", 1)]


def test_wildcard_inside_a_case_must_match_once(tmp_path):
    grow(tmp_path, "a/x_image.nrrd", "a/y.seg.nrrd", "b/x_image.nrrd", "b/y.seg.nrrd", "b/z.seg.nrrd")
    options = {"image": "*_image.nrrd", "label": "*.seg.nrrd"}
    assert [f.problem for f in find(tmp_path, "case-folder", **options)] == [
        "",
        "2 label files where one is expected",
    ]
    found = find(tmp_path, "case-folder", several_labels=True, **options)
    assert [len(f.labels) for f in found] == [1, 2]
    assert not any(f.problem for f in found)


# -- what is offered -----------------------------------------------------------------------------------


def test_upper_for_lower_case_loses_no_file_in_silence(tmp_path):
    """As cameras and Windows write names: HRF has .jpg and .JPG in one folder."""
    grow(tmp_path, "i/a.png", "l/a.png", "i/b.PNG", "l/b.PNG", "i/c.PNG", "l/c.png", "i/a.PNG", "i/Thumbs.db")
    grow(tmp_path, "i/x_OLD.png", "l/x_old.PNG")
    suffixes = {"image_suffix": ".png", "label_suffix": ".png", "ignore": ["x_OLD.png", "x_old.PNG"]}
    found = shown(find(tmp_path, "paired-folders", images="i", labels="l", **suffixes))
    other = ([], [], "its name differs from what is declared only in upper and lower case")
    assert found == {
        "a": (["=i/a.png"], ["=l/a.png"], ""),
        "c": ([], ["=l/c.png"], "label without image"),
        "i/b.PNG": other,
        "i/c.PNG": other,
        "l/b.PNG": other,
    }


def test_a_class_whose_mask_is_written_in_other_letters_is_told(tmp_path):
    """The case would be built without the class, as if it had none of it."""
    grow(
        tmp_path,
        "a/ct.nii",
        "a/liver.nii",
        "a/Spleen.nii",
        "b/ct.nii",
        "b/CT.nii",
        "b/spleen.nii",
        "b/Notes.txt",
    )
    found = shown(
        find(
            tmp_path,
            "case-folder",
            names=Names(labels=("liver", "spleen")),
            image="ct.nii",
            label="{label}.nii",
        )
    )
    assert found.pop("a/Spleen.nii") == (
        [],
        [],
        "its name differs from what is declared only in upper and lower case",
    )
    assert set(found) == {"a", "b"}
    assert not any(problem for *_, problem in found.values())


ENDINGS = {"image_suffix": ".png", "label_suffix": ".png"}


@pytest.mark.parametrize(
    ("files", "kind", "options", "unseen"),
    [
        (["a/i/1.png", "a/m/1.png", "b/I/1.png", "b/M/1.png"], "paired-folders",
         {"images": "*/i", "labels": "*/m", **ENDINGS}, {"b/I", "b/M"}),
        (["Tr/i/1.png", "Tr/m/1.png", "TR/I/1.png", "TR/m/1.png"], "paired-folders",
         {"images": "Tr/i", "labels": "Tr/m", **ENDINGS}, {"TR/I", "TR/m"}),
        (["a/i/1.png", "a/m/1.png", "x/y/I/2.png"], "paired-folders",
         {"images": "**/i", "labels": "**/m", **ENDINGS}, {"x/y/I"}),
        (["i/1.png", "m/liver/1.png", "m/Spleen/1.png", "m/Notes/x"], "paired-folders",
         {"images": "i", "labels": "m/{label}", **ENDINGS}, {"m/Spleen"}),
        (["i/1.png", "I/1.png", "m/1.png"], "paired-folders", {"images": "i", "labels": "m", **ENDINGS}, {"I"}),
        (["P1/i.png", "P1/m.png", "p2/i.png", "p2/m.png"], "case-folder",
         {"cases": "P*", "image": "i.png", "label": "m.png"}, {"p2"}),
        (["1/i.png", "1/s/liver.png", "2/i.png", "2/S/liver.png"], "case-folder",
         {"image": "i.png", "label": "s/{label}.png"}, {"2/S"}),
        (["a/d/1.png", "a/d/1_m.png", "b/D/2.png", "b/D/2_m.png"], "pattern",
         {"folder": "*/d", "image": r"(?P<n>\d)\.png", "label": r"(?P<n>\d)_m\.png"}, {"b/D"}),
        (["d/1.mat", "d/2.MAT", "D/3.mat", "d/4.txt"], "same-file",
         {"folder": "d", "suffix": ".mat", "image": "i", "label": "m"}, {"d/2.MAT", "D/3.mat"}),
        (["a/d/1.mat", "b/D/3.mat"], "same-file",
         {"folder": "*/d", "suffix": ".mat", "image": "i", "label": "m"}, {"b/D/3.mat"}),
        (["rawdata/sub-1/sub-1_T1w.nii", "d/sub-1/sub-1_mask.nii", "d/Sub-2/sub-2_mask.nii"], "bids-derivatives",
         {"images": "rawdata", "labels": "d", "image_suffix": "T1w", "label_suffix": "mask", "extension": ".nii"},
         {"d/Sub-2"}),
    ],
)  # fmt: skip
def test_a_folder_that_is_not_looked_into_only_for_upper_or_lower_case_is_told(
    tmp_path, files, kind, options, unseen
):
    grow(tmp_path, *files)
    found = shown(find(tmp_path, kind, Names(labels=("liver", "spleen")), **options))
    assert {name for name, entry in found.items() if entry == ([], [], OTHER_CASE)} == unseen
    assert any(not problem for *_, problem in found.values())


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("paired-folders", {"images": "imagesTr", "labels": "labelsTr", **ENDINGS}),
        ("flat-suffix", {"folder": "imagesTr", "image_suffix": ".png", "label_suffix": "_m.png"}),
        ("case-folder", {"cases": "imagesTr", "image": "a.png", "label": "b.png"}),
        ("same-file", {"folder": "imagesTr", "suffix": ".png", "image": "i", "label": "m"}),
        ("pattern", {"folder": "imagesTr", "image": r"(?P<n>.)\.png", "label": r"(?P<n>.)_m\.png"}),
        ("dicom-tree", {"folder": "imagesTr", "modality": "CT", "labels": "seg"}),
        ("array-pack", {"images": "imagesTr/*.png", "labels": "labelsTr/*.png"}),
    ],
)
def test_a_folder_that_is_there_in_other_letters_is_named(tmp_path, kind, options):
    grow(tmp_path, "ImagesTr/a.png", "labelsTr/a.png")
    with pytest.raises(
        DataMissing, match=r'There is "ImagesTr[^"]*", whose name differs only in upper and lower'
    ):
        find(tmp_path, kind, **options)


def test_fifos_are_never_offered_and_links_are(tmp_path):
    root, store = tmp_path / "root", tmp_path / "store"
    grow(store, "abc")
    grow(root, "images/2.png", "labels/2.png", "labels/1.png", "labels/3.png")
    os.mkfifo(root / "images/3.png")
    (root / "images/1.png").symlink_to(store / "abc")
    (root / "labels/2.png").unlink()
    (root / "labels/2.png").symlink_to(store / "not-fetched")
    options = {"images": "images", "labels": "labels", "image_suffix": ".png", "label_suffix": ".png"}
    assert [f.problem for f in find(root, "paired-folders", **options)] == [
        "",
        "a link leads to a file that is not there",
        "label without image",
    ]
    os.mkfifo(root / "pipe")
    (root / "c").mkdir()
    (root / "c/ct.png").symlink_to(root / "pipe")
    (entry,) = find(root, "case-folder", cases="c", image="ct.png", label="seg.png")
    assert entry.images == ()


def test_links_in_a_circle_end(tmp_path):
    grow(tmp_path, "a/1.png", "a/1_mask.png")
    (tmp_path / "a/again").symlink_to(tmp_path, target_is_directory=True)
    assert [
        f.name
        for f in find(tmp_path, "flat-suffix", folder="**", image_suffix=".png", label_suffix="_mask.png")
    ] == ["a/1"]
    assert len(files_below(tmp_path, Path())) == 2


def test_only_stars_are_wildcards(tmp_path):
    grow(tmp_path, "set[1]/x.png", "set1/x.png")
    assert [folder.path.as_posix() for folder in folders(tmp_path, "set[1]")] == ["set[1]"]
    assert [(f.path.as_posix(), f.wildcards, f.name) for f in folders(tmp_path, "s*t[*]")] == [
        ("set[1]", ("e", "1"), "set[1]")
    ]


# -- what is refused -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("paired-folders", {"images": "../x", "labels": "y", "image_suffix": ".p", "label_suffix": ".p"}),
        ("paired-folders", {"images": "/x", "labels": "y", "image_suffix": ".p", "label_suffix": ".p"}),
        ("paired-folders", {"images": "*/*", "labels": "*/m", "image_suffix": ".p", "label_suffix": ".p"}),
        ("paired-folders", {"images": "x", "labels": "x", "image_suffix": ".p", "label_suffix": ".p"}),
        ("paired-folders", {"images": "x", "labels": "y", "image_suffix": "", "label_suffix": ".p"}),
        ("paired-folders", {"images": "x**", "labels": "y", "image_suffix": ".p", "label_suffix": ".p"}),
        ("flat-suffix", {"image_suffix": ".png", "label_suffix": [".png", "_mask.png"]}),
        ("flat-suffix", {"image_suffix": ".png", "label_suffix": "_m.png", "labels": "typo"}),
        ("case-folder", {"image": "../ct.nii", "label": "seg.nii"}),
    ],
)
def test_options_that_cannot_work(kind, options):
    with pytest.raises(ValueError, match="validation error"):
        load(PAIRINGS, kind, "pairing").Options(**options)


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (Names(), {"image_suffix": "_{channel}.p"}, "declares no"),
        (Names(channels=("a",), components=(None,)), {"image_suffix": ".p"}, "write {channel}"),
        (Names(channels=("a",), components=(0,)), {"image_suffix": "_{channel}.p"}, "cannot be both"),
        (Names(labels=("a",)), {"image_suffix": "_{label}.p"}, "may not stand"),
        (Names(), {"image_suffix": ".p", "label_suffix": "_{label}.p"}, "declares no"),
    ],
)
def test_tokens_that_do_not_fit_the_source(tmp_path, names, options, message):
    grow(tmp_path, "i/1.p", "l/1.p")
    with pytest.raises(ConfigError, match=message):
        find(
            tmp_path,
            "paired-folders",
            names,
            **({"images": "i", "labels": "l", "label_suffix": ".p"} | options),
        )


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("paired-folders", {"images": "i", "labels": "none", "image_suffix": ".p", "label_suffix": ".p"}),
        ("flat-suffix", {"folder": "none", "image_suffix": ".p", "label_suffix": "_m.p"}),
        ("case-folder", {"cases": "none-*", "image": "a", "label": "b"}),
    ],
)
def test_absent_folders_are_named(tmp_path, kind, options):
    grow(tmp_path, "i/1.p")
    with pytest.raises(DataMissing, match='no folder matches "none'):
        find(tmp_path, kind, **options)


def test_problems_name_no_file(tmp_path):
    grow(tmp_path, "i/JANE_DOE.p", "l/JOHN_DOE.p", "l2/JANE_DOE.p")
    found = find(tmp_path, "paired-folders", images="i", labels="l*", image_suffix=".p", label_suffix=".p")
    grow(tmp_path, "l3/JANE_DOE.p")
    found += find(tmp_path, "paired-folders", images="i", labels="l*", image_suffix=".p", label_suffix=".p")
    problems = [f.problem for f in found if f.problem]
    assert len(problems) == 3
    assert not any("DOE" in problem for problem in problems)


# -- properties ----------------------------------------------------------------------------------------

STEM = st.text("ab1_ -.", min_size=1, max_size=4).filter(lambda s: not s.startswith("."))
FILE = st.tuples(
    st.sampled_from(["a/images", "b/images", "a/masks", "b/masks"]),
    STEM,
    st.sampled_from([".png", "_m.png", "_m2.png"]),
)
SUFFIXES = {"image_suffix": ".png", "label_suffix": "_m*.png"}
KINDS = [
    (
        "paired-folders",
        {"images": "*/images", "labels": "*/masks"} | SUFFIXES | {"label_suffix": ["_m.png", ".png"]},
    ),
    ("paired-folders", {"images": "a/images", "labels": "*/masks"} | SUFFIXES),
    ("flat-suffix", {"folder": "**"} | SUFFIXES),
]


@settings(max_examples=60, deadline=None)
@given(
    files=st.sets(FILE, min_size=1, max_size=12), seed=st.integers(0, 1 << 16), kind=st.sampled_from(KINDS)
)
def test_every_file_is_accounted_for_once_in_any_order_of_creation(tmp_path_factory, files, seed, kind):
    names = sorted("".join((folder, "/", *rest)) for folder, *rest in files)
    trees = [tmp_path_factory.mktemp("tree") for _ in range(2)]
    for tree in trees:
        for folder in ("a/images", "a/masks", "b/images", "b/masks"):
            (tree / folder).mkdir(parents=True)
    grow(trees[0], *names)
    grow(trees[1], *random.Random(seed).sample(names, len(names)))
    first, second = (find(tree, kind[0], **kind[1]) for tree in trees)
    assert first == second
    assert [entry.name for entry in first] == sorted({entry.name for entry in first})
    paths = [p.as_posix() for entry in first for part in (*entry.images, *entry.labels) for p in part.paths]
    looked_at = [name for name in names if _explained(name, kind)]
    assert sorted(paths) == looked_at


def _explained(name: str, kind) -> bool:
    """An independent statement of which files the options of ``KINDS`` speak about."""
    folder, file = name.rsplit("/", 1)
    if kind[0] == "flat-suffix":
        return file != ".png"
    is_image = folder.endswith("images")
    if "a/images" in kind[1]["images"]:
        return folder == "a/images" if is_image else "_m" in file[1:]
    return True


@pytest.mark.parametrize("reverse", [False, True])
def test_the_order_of_the_file_system_does_not_matter(tmp_path, monkeypatch, reverse):
    real = os.scandir

    @contextmanager
    def scandir(path):
        with real(path) as listing:
            yield iter(sorted(listing, key=lambda entry: entry.name, reverse=reverse))

    monkeypatch.setattr("medcurate.pairings.tree.os.scandir", scandir)
    grow(tmp_path, *(f"{folder}/a{end}.png" for folder in "yx" for end in ("", "_m_2", "_m", "_m_1")))
    found = find(tmp_path, "flat-suffix", folder="*", image_suffix=".png", label_suffix="_m*.png")
    assert [f.name for f in found] == ["x/a", "y/a"]
    assert [label.paths[0].name for label in found[0].labels] == ["a_m.png", "a_m_1.png", "a_m_2.png"]
    found = find(tmp_path, "case-folder", image="a.png", label="a_m*.png", several_labels=True)
    assert [f.name for f in found] == ["x", "y"]
    assert [label.paths[0].name for label in found[0].labels] == ["a_m.png", "a_m_1.png", "a_m_2.png"]
