"""Pairings by entities, expressions, tables and parts of files; what sources add to what pairings find."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trees import find, grow, shown

from medcurate.build.cases import Discovery, discover
from medcurate.checks import source_problems
from medcurate.config.source import Source
from medcurate.errors import ConfigError, DataMissing
from medcurate.library import ontology
from medcurate.pairings.found import Names
from medcurate.tables import check_model

FACTS: dict[str, Any] = {
    "id": "lab", "title": "t", "homepage": "", "citation": "", "modality": "ct", "dimensions": 3,
    "licence": {"id": "CC-BY-4.0", "commercial": "yes"},
    "image": {"reader": "nifti"}, "label": {"reader": "nifti", "decoder": "index"}, "labels": {"1": "liver"},
    "pairings": [{"kind": "flat-suffix", "options": {"image_suffix": "_i.nii", "label_suffix": "_l.nii"}}],
    "case": {"identifiers": "keep"},
}  # fmt: skip


def source(**facts: Any) -> Source:
    return check_model({**FACTS, **facts}, Source, "lab.toml")


def cases(found: Discovery) -> list[tuple[str, str, str]]:
    return [(case.id, case.group, case.split) for case in found.cases]


# -- BIDS ----------------------------------------------------------------------------------------------

VERSE = {"images": "rawdata", "labels": "derivatives", "image_suffix": "ct", "label_suffix": "msk",
         "label_entities": {"seg": "vert"}}  # fmt: skip


def test_verse_pairs_scans_by_entities_and_keeps_subjects(tmp_path):
    grow(
        tmp_path,
        "rawdata/sub-verse500/sub-verse500_dir-ax_ct.nii.gz",
        "rawdata/sub-verse500/sub-verse500_dir-sag_ct.nii.gz",
        "rawdata/sub-verse500/sub-verse500_dir-ax_ct.json",
        "derivatives/sub-verse500/sub-verse500_dir-ax_seg-vert_msk.nii.gz",
        "derivatives/sub-verse500/sub-verse500_dir-sag_seg-vert_msk.nii.gz",
        "derivatives/sub-verse500/sub-verse500_dir-sag_seg-subreg_msk.nii.gz",
        "derivatives/sub-verse500/sub-verse500_dir-sag_seg-vert_snp.png",
        "rawdata/sub-verse501/sub-verse501_ct.nii.gz",
    )
    found = find(tmp_path, "bids-derivatives", **VERSE)
    assert [(entry.name, entry.group, entry.problem) for entry in found] == [
        ("sub-verse500_dir-ax", "sub-verse500", ""),
        ("sub-verse500_dir-sag", "sub-verse500", ""),
        ("sub-verse501", "sub-verse501", "image without label"),
    ]
    assert found[1].labels[0].paths == (
        Path("derivatives/sub-verse500/sub-verse500_dir-sag_seg-vert_msk.nii.gz"),
    )


def test_isles_channels_are_suffixes_and_the_session_is_part_of_the_case(tmp_path):
    stem = "sub-strokecase0001/ses-0001"
    name = "sub-strokecase0001_ses-0001"
    grow(
        tmp_path,
        f"{stem}/dwi/{name}_dwi.nii.gz",
        f"{stem}/dwi/{name}_adc.nii.gz",
        f"{stem}/anat/{name}_FLAIR.nii.gz",
        f"derivatives/{stem}/{name}_msk.nii.gz",
    )
    names = Names(channels=("dwi", "adc"), components=(None, None))
    found = find(
        tmp_path, "bids-derivatives", names,
        images=".", labels="derivatives", image_suffix="{channel}", label_suffix="msk",
    )  # fmt: skip
    (line,) = shown(found).items()
    assert line[0] == name
    assert [text.split("=")[0] for text in line[1][0]] == ["dwi", "adc"]
    assert line[1][2] == ""


@settings(max_examples=25, deadline=None)
@given(
    st.sets(st.tuples(st.integers(1, 4), st.integers(0, 2), st.sampled_from(["mial", "nmic"])), min_size=1)
)
def test_feta_names_give_back_their_entities(tmp_path_factory, scans):
    root = tmp_path_factory.mktemp("feta")
    expected = {}
    for subject, session, rec in scans:
        session_text = f"_ses-{session}" if session else ""
        name = f"sub-{subject:03}{session_text}_rec-{rec}"
        grow(root, f"sub-{subject:03}/anat/{name}_T2w.nii.gz", f"sub-{subject:03}/anat/{name}_dseg.nii.gz")
        expected[name] = f"sub-{subject:03}"
    found = find(root, "bids-derivatives", labels=".", image_suffix="T2w", label_suffix="dseg")
    assert {entry.name: entry.group for entry in found} == expected
    assert not any(entry.problem for entry in found)


def test_bids_names_in_other_letters_are_told(tmp_path):
    grow(tmp_path, "sub-1/sub-1_T2w.nii.gz", "sub-1/sub-1_dseg.nii.gz", "sub-1/sub-1_DSEG.nii.gz")
    grow(tmp_path, "sub-2/sub-2_T2W.nii.gz", "sub-2/sub-2_dseg.NII.GZ", "sub-2/sub-2_T1w.nii.gz")
    found = find(tmp_path, "bids-derivatives", labels=".", image_suffix="T2w", label_suffix="dseg")
    other = "its name differs from what is declared only in upper and lower case"
    assert [(entry.name, entry.problem) for entry in found] == [
        ("sub-1", ""),
        ("sub-2/sub-2_T2W.nii.gz", other),
        ("sub-2/sub-2_dseg.NII.GZ", other),
    ]


def test_bids_sides_must_differ_and_exist(tmp_path):
    with pytest.raises(ValueError, match="told apart"):
        find(tmp_path, "bids-derivatives", labels=".", image_suffix="x", label_suffix="x")
    with pytest.raises(DataMissing, match="sub-"):
        find(tmp_path, "bids-derivatives", labels="derivatives", image_suffix="T2w", label_suffix="dseg")


# -- expressions ---------------------------------------------------------------------------------------


def test_pattern_pairs_what_no_stem_does(tmp_path):
    grow(
        tmp_path,
        "d6/dataset6_CLINIC_0001_data.nii.gz",
        "masks/CLINIC_0001_mask_4label.nii.gz",
        "d7/CLINIC_metal_0003_data.nii.gz",
        "masks/dataset7_CLINIC_metal_0003_mask_4label.nii.gz",
        "masks/readme.nii.gz",
    )
    clinic = r".*?(?P<case>CLINIC(_metal)?_\d+)"
    found = find(
        tmp_path, "pattern",
        image=rf"{clinic}_data\.nii\.gz", label=rf"{clinic}_mask_4label\.nii\.gz",
    )  # fmt: skip
    assert [(entry.name, entry.problem) for entry in found] == [
        ("CLINIC_0001", ""),
        ("CLINIC_metal_0003", ""),
    ]


def test_a_folder_a_class_with_images_of_its_own(tmp_path):
    for organ in ("liver", "colon", "multilabel"):
        grow(tmp_path, f"{organ}/07/image00.png", f"{organ}/07/mask00.png")
    found = find(
        tmp_path, "pattern", Names(labels=("liver", "colon")),
        image=r"(?P<label>[a-z]+)/(?P<surgery>\d+)/image(?P<image>\d+)\.png",
        label=r"(?P<label>[a-z]+)/(?P<surgery>\d+)/mask(?P<image>\d+)\.png",
    )  # fmt: skip
    assert shown(found) == {
        "colon/07/00": (["=colon/07/image00.png"], ["colon=colon/07/mask00.png"], ""),
        "liver/07/00": (["=liver/07/image00.png"], ["liver=liver/07/mask00.png"], ""),
    }


@pytest.mark.parametrize(
    ("image", "label"),
    [("(?P<a>x)", "(?P<b>x)"), ("x", "y"), ("(", "(?P<a>x)"), ("(?P<a>x)", "(?P<a>x)(?P<b>y)")],
)
def test_patterns_need_the_same_groups(tmp_path, image, label):
    with pytest.raises(ValueError, match=r"group|regular expression"):
        find(tmp_path, "pattern", image=image, label=label)


# -- tables --------------------------------------------------------------------------------------------


def mnms(root: Path) -> None:
    grow(root, "Labeled/A1/A1_sa.nii.gz", "Labeled/A1/A1_sa_gt.nii.gz", "Labeled/B2/B2_sa.nii.gz")
    (root / "info.csv").write_text("\ufeffCode,ED,ES\nA1,0,9\nB2,1,8\nC3,0,7\n", encoding="utf-8")


def test_two_frames_of_a_4d_file_are_two_cases_of_one_patient(tmp_path):
    mnms(tmp_path)
    options = {
        "file": "info.csv", "case": "<Code>", "group": "<Code>", "entries": ["<ED>", "<ES>"],
        "image": "**/<Code>_sa.nii.gz", "label": "**/<Code>_sa_gt.nii.gz", "absent": "skip",
    }  # fmt: skip
    found = find(tmp_path, "table", **options)
    assert [(entry.name, entry.group, entry.problem) for entry in found] == [
        ("A1/0", "A1", ""), ("A1/9", "A1", ""),
        ("B2/1", "B2", "image without label"), ("B2/8", "B2", "image without label"),
    ]  # fmt: skip
    assert (found[1].images[0].entry, found[1].labels[0].entry) == ("9", "9")
    refused = find(tmp_path, "table", **options | {"absent": "refuse"})
    assert [entry.name for entry in refused if entry.problem] == ["B2/1", "B2/8", "C3/0", "C3/7"]


@pytest.mark.parametrize(
    ("image", "label", "alike"),
    [
        ("Scans/<A>.png", "Scans/<A>_m.png", {"scans/Ä1.png", "scans/Ä1_m.png"}),
        ("*/<A>.PNG", "**/<A>_M*", {"scans/Ä1.png", "scans/Ä1_m.png"}),
        ("Series/<A>/", "none/<A>.png", {"series/Ä1"}),
    ],
)
@pytest.mark.parametrize("absent", ["skip", "refuse"])
def test_files_that_differ_from_a_row_in_the_case_of_letters_are_told_and_not_passed_over(
    tmp_path, image, label, alike, absent
):
    grow(tmp_path, "scans/Ä1.png", "scans/Ä1_m.png", "series/Ä1/1.dcm", "series/Ä3.txt")
    (tmp_path / "Series" / "Ä2").mkdir(parents=True)  # empty: nothing of the row is there
    (tmp_path / "t.csv").write_text("A\nä1\nÄ2\nÄ3\n", encoding="utf-8")
    found = find(tmp_path, "table", file="t.csv", case="<A>", image=image, label=label, absent=absent)
    told = {entry.name: entry.problem for entry in found}
    for path in alike:
        assert told.pop(path) == "its name differs from what is declared only in upper and lower case"
    assert told == ({} if absent == "skip" else dict.fromkeys(("Ä2", "Ä3"), "neither image nor label"))


def test_a_folder_is_not_listed_again_for_every_row(tmp_path, monkeypatch):
    """12,000 rows of as many files took five minutes."""
    grow(tmp_path, *(f"{kind}/{number}.png" for kind in ("images", "labels") for number in range(40)))
    (tmp_path / "t.csv").write_text("A\n" + "".join(f"{number}\n" for number in range(50)))
    listings, scandir = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: [listings.append(folder), scandir(folder)][1])
    found = find(tmp_path, "table", file="t.csv", case="<A>", image="images/<A>.png", label="*/<A>.p*g")
    assert len(found) == 50
    assert len(listings) < 10


def test_series_by_the_manifest_of_their_archive(tmp_path):
    grow(tmp_path, "1.2.3/a.dcm", "1.2.3/b.dcm", "labels/label0007.nii.gz")
    (tmp_path / "metadata.csv").write_text("Series UID;Subject ID\n1.2.3;PANCREAS_7\n")
    (entry,) = find(
        tmp_path, "table",
        file="metadata.csv", delimiter=";", capture={"Subject ID": r"PANCREAS_(?P<number>\d+)"},
        case="<Subject ID>", image="<Series UID>/", label="labels/label<number:04>.nii.gz",
    )  # fmt: skip
    assert (entry.name, len(entry.images[0].paths), entry.problem) == ("PANCREAS_7", 2, "")


def test_decathlon_list_of_files(tmp_path):
    grow(tmp_path, "imagesTr/la_007.nii.gz", "labelsTr/la_007.nii.gz")
    listed = {"training": [{"image": "./imagesTr/la_007.nii.gz", "label": "./labelsTr/la_007.nii.gz"}]}
    (tmp_path / "dataset.json").write_text(json.dumps(listed))
    (entry,) = find(
        tmp_path,
        "table",
        file="dataset.json",
        records="training",
        case="<image>",
        image="<image>",
        label="<label>",
    )
    assert (entry.labels[0].paths[0].as_posix(), entry.problem) == ("labelsTr/la_007.nii.gz", "")


@pytest.mark.parametrize(
    ("table", "options", "said"),
    [
        ("A\nx\n", {"case": "<B>"}, 'no column "B"'),
        ("A\n../../etc/passwd\n", {"image": "<A>"}, "leads to"),
        ("A\nx\n", {"split": "<A>"}, "no split"),
        ("A\nx\n", {"capture": {"A": r"(?P<n>\d+)"}}, "does not match"),
    ],
)
def test_a_table_that_does_not_fit_is_an_error(tmp_path, table, options, said):
    (tmp_path / "t.csv").write_text(table)
    with pytest.raises(ConfigError, match=said):
        find(tmp_path, "table", **{"file": "t.csv", "case": "<A>", "image": "i", "label": "l", **options})


# -- one file, and packs -------------------------------------------------------------------------------


def test_halves_of_one_picture(tmp_path):
    grow(tmp_path, "Images/eye1/2.png", "Images/eye1/10.png", "Images/eye2/1.png", "Images/eye2/1.txt")
    found = find(tmp_path, "same-file", folder="Images/*", suffix=".png", image="left", label="right")
    assert [(e.name, e.images[0].entry, e.labels[0].entry, e.problem) for e in found] == [
        ("eye1/10", "left", "right", ""), ("eye1/2", "left", "right", ""), ("eye2/1", "left", "right", ""),
    ]  # fmt: skip


def pannuke(root: Path, counts: tuple[int, ...], labelled: tuple[int, ...] | None = None) -> None:
    for fold, (images, labels) in enumerate(zip(counts, labelled or counts, strict=True), start=1):
        for kind, count in (("images", images), ("masks", labels)):
            path = root / f"Fold {fold}" / kind / f"fold{fold}" / f"{kind}.npy"
            path.parent.mkdir(parents=True)
            np.save(path, np.zeros((count, 4, 4), np.uint8))


PANNUKE = {"images": "Fold */images/fold*/images.npy", "labels": "Fold */masks/fold*/masks.npy"}


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=3))
def test_every_row_of_every_pack_is_a_case(tmp_path_factory, counts):
    root = tmp_path_factory.mktemp("pannuke")
    pannuke(root, tuple(counts))
    found = find(root, "array-pack", **PANNUKE)
    expected = [
        f"Fold {n}/fold{n}/{row:06}" for n, count in enumerate(counts, start=1) for row in range(count)
    ]
    assert [entry.name for entry in found] == expected
    assert all(
        entry.images[0].entry == entry.labels[0].entry == f"[{int(entry.name[-6:])}]" for entry in found
    )


def test_packs_that_cannot_be_counted_are_one_refused_case(tmp_path):
    pannuke(tmp_path, (2, 3), labelled=(2, 4))
    (tmp_path / "Fold 1/masks/fold1/masks.npy").write_bytes(b"no array")
    found = find(tmp_path, "array-pack", **PANNUKE)
    assert [(entry.name, entry.problem) for entry in found] == [
        ("Fold 1/fold1", "not a .npy array of a known version"),
        ("Fold 2/fold2", "3 images and 4 labels in the packs"),
    ]


def test_rows_of_an_npz_with_patients(tmp_path):
    pack = {
        "train_images": np.zeros((3, 4, 4)),
        "train_label": np.zeros((3, 4, 4)),
        "who": np.array(["a", "b", "a"]),
    }
    np.savez_compressed(tmp_path / "s.npz", **pack)
    found = find(
        tmp_path, "array-pack",
        images="s.npz", labels="s.npz", image_key="train_images", label_key="train_label",
        groups="s.npz", group_key="who",
    )  # fmt: skip
    assert [(e.name, e.group, e.labels[0].entry) for e in found] == [
        ("train_images/000000", "a", "train_label[0]"),
        ("train_images/000001", "b", "train_label[1]"),
        ("train_images/000002", "a", "train_label[2]"),
    ]


# -- what a source adds --------------------------------------------------------------------------------


def test_select_takes_some_of_the_cases(tmp_path):
    root = grow(tmp_path, "1_i.nii", "1_l.nii", "600_i.nii", "600_l.nii", "601_i.nii")
    pairing = FACTS["pairings"][0]
    chosen = source(
        pairings=[{**pairing, "select": r"^\d$", "split": "train"}, {**pairing, "select": "^600$"}]
    )
    found = discover(chosen, root)
    assert cases(found) == [("1", "lab:1", "train"), ("600", "lab:600", "")]
    assert not found.rejects  # the image without label is nobody's


def test_patients_and_splits_of_a_table(tmp_path):
    root = grow(tmp_path, "a_i.nii", "a_l.nii", "b_i.nii", "b_l.nii")
    (root / "meta.csv").write_text("name, patient ID ,part\na,7,training\nb,7,hold\nz,9,hold\n")
    table = {"file": "meta.csv", "case": "<name>", "group": "<patient ID>", "split": "<part>",
             "splits": {"training": "train", "hold": "test"}}  # fmt: skip
    found = discover(source(case={"identifiers": "keep", "table": table}), root)
    assert cases(found) == [("a", "lab:7", "train"), ("b", "lab:7", "test")]
    (root / "meta.csv").write_text("name,patient ID,part\na,7,hold\n")
    with pytest.raises(ConfigError, match='no row for case "b"'):
        discover(source(case={"identifiers": "keep", "table": table}), root)


def test_a_table_need_not_name_what_is_refused_anyway(tmp_path):
    """A stray file beside the cases stopped the whole source, with a remedy that did not help."""
    root = grow(tmp_path, "a_i.nii", "a_l.nii", "b_l.nii", "extra_l.nii", "x_I.NII")
    (root / "meta.csv").write_text("name,who\na,7\nb,7\n")
    table = {"file": "meta.csv", "case": "<name>", "group": "<who>"}
    found = discover(source(case={"identifiers": "keep", "table": table}), root)
    assert cases(found) == [("a", "lab:7", "")]
    assert [(case, group) for case, group, _ in found.rejects] == [
        ("b", "lab:7"),
        ("extra", "lab:extra"),
        ("x_I.NII", "lab:x_I.NII"),
    ]


def test_every_rater_must_have_labelled(tmp_path):
    root = grow(tmp_path, "a/i.nii", "a/l_1.nii", "a/l_2.nii", "b/i.nii", "b/l_1.nii")
    raters = source(
        pairings=[{"kind": "case-folder", "options": {"image": "i.nii", "label": "l_{rater}.nii"}}],
        label={"reader": "nifti", "decoder": "index", "raters": ["1", "2"], "agreement": "union"},
    )
    assert not list(source_problems(raters, ontology()))
    found = discover(raters, root)
    assert [(label.rater, label.paths[0].name) for label in found.cases[0].labels] == [
        ("1", "l_1.nii"), ("2", "l_2.nii"),
    ]  # fmt: skip
    assert [(case, reject.detail) for case, _, reject in found.rejects] == [("b", "no label of rater 2")]


def test_values_of_objects_by_a_table(tmp_path):
    root = grow(tmp_path, "R1_i.nii", "R1_l.nii")
    (root / "info.csv").write_text("id,label,code\nR1,0,0\nR1,1,2\nR1,2,-1\nR9,1,1\n")
    classes = {"file": "info.csv", "case": "<id>", "value": "<label>", "key": "<code>"}
    label = {"reader": "nifti", "decoder": "instance-table", "classes": classes}
    (case,) = discover(source(label=label, labels={"2": "liver", "-1": "spleen"}), root).cases
    assert case.labels[0].classes == ((0, "0"), (1, "2"), (2, "-1"))
    (root / "info.csv").write_text("id,label,code\nR1,1,2\nR1,1,3\n")
    with pytest.raises(ConfigError, match="two meanings"):
        discover(source(label=label), root)


def test_a_pack_weighs_its_share(tmp_path):
    np.save(tmp_path / "i.npy", np.zeros((10, 8, 8), np.uint8))
    np.save(tmp_path / "l.npy", np.zeros((10, 8, 8), np.uint8))
    packs = source(
        dimensions=2,
        pairings=[{"kind": "array-pack", "options": {"images": "i.npy", "labels": "l.npy"}}],
        image={"reader": "array"}, label={"reader": "array", "decoder": "index"},
    )  # fmt: skip
    found = discover(packs, tmp_path)
    assert len(found.cases) == 10
    assert sum(case.size_bytes for case in found.cases) <= 2 * (tmp_path / "i.npy").stat().st_size


RULES = [
    ({"label": {**FACTS["label"], "raters": ["1"]}}, "{rater}"),
    (
        {
            "pairings": [
                {"kind": "same-file", "options": {"suffix": ".nii", "image": "left", "label": "right"}}
            ]
        },
        "left",
    ),
    ({"regions": {"spleen": ["kidney"]}}, "regions.spleen"),
    ({"regions": {"liver": ["liver"]}}, "unites other labels"),
    ({"label": {**FACTS["label"], "decoder": "instance-table"}}, "table of classes"),
    ({"dimensions": 2, "frames": "k"}, "frames"),
    ({"dimensions": 2, "label": {**FACTS["label"], "geometry": "nearest"}}, "nearest"),
    (
        {
            "label": {**FACTS["label"], "decoder": "instance", "raters": ["1", "2"], "agreement": "union"},
            "labels": {"*": "liver"},
            "pairings": [{"kind": "case-folder", "options": {"image": "i", "label": "{rater}"}}],
        },
        "gives objects",
    ),
]


@pytest.mark.parametrize(("facts", "said"), RULES)
def test_rules_that_do_not_fit_each_other(facts, said):
    assert any(said in line for line in source_problems(source(**facts), ontology()))


@pytest.mark.parametrize(
    "label",
    [
        {"raters": ["1", "2"]}, {"agreement": "union"}, {"raters": ["1", "1"], "agreement": "union"},
        {"axes": "LPS"}, {"geometry": "image", "axes": "LPA"},
    ],
)  # fmt: skip
def test_label_rules_that_say_nothing(label):
    with pytest.raises(ConfigError):
        source(label={**FACTS["label"], **label})


def test_what_one_pairing_passes_over_for_its_letters_another_may_name(tmp_path):
    """Two tables' folders that differ only in letters: every case is one case, and a stray file is told."""
    grow(
        tmp_path,
        *(f"{place}_{kind}.png" for place in ("Train/a", "train/b", "train/A") for kind in ("i", "l")),
    )
    (tmp_path / "t.csv").write_text("id,who\na,P1\nb,P2\n")
    facts = {"file": "t.csv", "case": "<id>", "group": "<who>", "absent": "skip"}
    pairings = [
        {"kind": "table", "options": facts | {"image": f"{place}/<id>_i.png", "label": f"{place}/<id>_l.png"}}
        for place in ("Train", "train")
    ]
    found = discover(source(case={"identifiers": "keep"}, pairings=pairings), tmp_path)
    assert [(case.id, case.group) for case in found.cases] == [("a", "lab:P1"), ("b", "lab:P2")]
    assert sorted((case, group) for case, group, _ in found.rejects) == [
        ("train/A_i.png", "lab:P1"),
        ("train/A_l.png", "lab:P1"),
    ]
