"""Names that would fit if letters had no case are told, whatever kind of pairing passes them over."""

from __future__ import annotations

import pytest
from trees import find, grow, shown

from medcurate.errors import DataMissing
from medcurate.pairings.found import OTHER_CASE, Names


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


@pytest.mark.parametrize(
    ("kind", "options", "files", "told"),
    [
        ("paired-folders", {"images": "i", "labels": "Maß*", **ENDINGS}, ["i/1.png", "MASS1/1.png", "Maß2/1.png"],
         "MASS1"),
        ("flat-suffix", {"image_suffix": "_i.png", "label_suffix": "_maß.png"},
         ["1_i.png", "1_maß.png", "2_MASS.png"], "2_MASS.png"),
        ("case-folder", {"cases": "c", "image": "i.png", "label": "{label}.png"},
         ["c/i.png", "c/liver.png", "c/MASS.png"], "c/MASS.png"),
        ("same-file", {"prefix": "Maß", "suffix": ".mat", "image": "i", "label": "m"}, ["MASS.mat", "Maß1.mat"],
         "MASS.mat"),
        ("bids-derivatives", {"labels": ".", "image_suffix": "ct", "label_suffix": "maß", "extension": ".nii"},
         ["sub-1/sub-1_ct.nii", "sub-1/sub-1_MASS.nii"], "sub-1/sub-1_MASS.nii"),
        ("table", {"file": "t.csv", "case": "<A>", "image": "<A>_i.png", "label": "none*"}, ["MASS_i.png"],
         "MASS_i.png"),
    ],
)  # fmt: skip
def test_one_rule_of_every_kind_says_which_names_are_alike(tmp_path, kind, options, files, told):
    """The capitals of "Maß" are "MASS", as two letters."""
    grow(tmp_path, *files)
    (tmp_path / "t.csv").write_text("A\nMaß\n", encoding="utf-8")
    found = find(tmp_path, kind, Names(labels=("liver", "maß")), **options)
    assert [entry.name for entry in found if entry.problem == OTHER_CASE] == [told]


def test_a_letter_that_is_written_otherwise_at_the_end_of_a_word_is_that_letter(tmp_path):
    """What stands before a wildcard is alike to the same in a name, where it may be no end."""
    grow(tmp_path, "i/1.png", "μασκα/1.png")
    with pytest.raises(DataMissing, match='There is "μασκα"'):
        find(tmp_path, "paired-folders", images="i", labels="ΜΑΣ*", **ENDINGS)
