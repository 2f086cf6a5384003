"""Pairings on trees modelled after public sets, and options and trees that they refuse."""

from __future__ import annotations

from pathlib import Path

import pytest
from trees import find, grow, shown

from medcurate.errors import ConfigError, DataMissing
from medcurate.pairings import PAIRINGS
from medcurate.pairings.found import Names
from medcurate.registry import load

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
