"""``medcurate inspect``: guesses on trees of public sets, what is read, and drafts that load."""

from __future__ import annotations

import tomllib
import unicodedata
from pathlib import Path

import cv2
import nibabel as nib
import numpy as np
import pytest
from dicom_kit import series, written
from hypothesis import given, settings
from hypothesis import strategies as st
from trees import grow
from typer.testing import CliRunner

from medcurate.cli.main import app
from medcurate.config.source import Source
from medcurate.decoders import DECODERS
from medcurate.errors import ConfigError
from medcurate.inspection.digest import read
from medcurate.inspection.draft import QUESTION, draft
from medcurate.inspection.guess import guess
from medcurate.inspection.meaning import meaning
from medcurate.inspection.survey import survey
from medcurate.library import ontology
from medcurate.pairings import PAIRINGS
from medcurate.registry import load
from medcurate.tables import load_model

N = range(1, 7)
IDRID = "A. Segmentation/{}/a. Training Set"
TREES = {
    "msd": (
        [f"{d}/la_{i:03d}.nii.gz" for d in ("imagesTr", "labelsTr") for i in N]
        + [f"{d}/._la_{i:03d}.nii.gz" for d in ("imagesTr", "labelsTr") for i in N],
        "paired-folders",
        {"images": "imagesTr", "labels": "labelsTr", "image_suffix": ".nii.gz", "label_suffix": ".nii.gz"},
    ),
    "nnunet": (
        [f"imagesTr/c_{i:03d}_{k:04d}.nii.gz" for i in N for k in (0, 1)]
        + [f"labelsTr/c_{i:03d}.nii.gz" for i in N],
        "paired-folders",
        {"image_suffix": "_{channel}.nii.gz", "label_suffix": ".nii.gz"},
    ),
    "brats": (
        [
            f"{g}/B_{i}/B_{i}_{c}.nii.gz"
            for g in ("HGG", "LGG")
            for i in N
            for c in ("t1", "t1ce", "t2", "flair", "seg")
        ],
        "case-folder",
        {"cases": "*/*", "image": "{case}_{channel}.nii.gz", "label": "{case}_seg.nii.gz"},
    ),
    "kits": (
        [f"data/case_{i:05d}/{name}.nii.gz" for i in N for name in ("imaging", "segmentation")],
        "case-folder",
        {"cases": "data/*", "image": "imaging.nii.gz", "label": "segmentation.nii.gz"},
    ),
    "totalsegmentator": (
        [
            f"s{i:04d}/{n}.nii.gz"
            for i in N
            for n in ("ct", "segmentations/liver", "segmentations/kidney_left")
        ],
        "case-folder",
        {"image": "ct.nii.gz", "label": "segmentations/{label}.nii.gz"},
    ),
    "busi": (
        [f"{c}/{c} ({i}){end}.png" for c in ("benign", "normal") for i in N for end in ("", "_mask")]
        + ["benign/benign (1)_mask_1.png"],
        "flat-suffix",
        {"folder": "*", "image_suffix": ".png", "label_suffix": "_mask*.png"},
    ),
    "isic": (
        [f"Input/ISIC_{i:07d}.jpg" for i in N] + [f"GroundTruth/ISIC_{i:07d}_segmentation.png" for i in N],
        "paired-folders",
        {
            "images": "Input",
            "labels": "GroundTruth",
            "image_suffix": ".jpg",
            "label_suffix": "_segmentation.png",
        },
    ),
    "chaos": (
        [
            f"MR/{c}/T2/{n}"
            for c in (1, 2, 10)
            for i in N
            for n in (f"DICOM_anon/I-{i}.dcm", f"Ground/I-{i}.png")
        ],
        "case-folder",
        {"cases": "MR/*", "image": "T2/DICOM_anon/", "label": "T2/Ground/"},
    ),
    "idrid": (
        [f"{IDRID.format('1. Original Images')}/IDRiD_{i:02d}.jpg" for i in N]
        + [
            f"{IDRID.format('2. All Segmentation Groundtruths')}/{folder}/IDRiD_{i:02d}_{token}.tif"
            for i in N
            for folder, token in (("1. Microaneurysms", "MA"), ("5. Optic Disc", "OD"))
        ],
        "paired-folders",
        {"image_suffix": ".jpg", "label_suffix": "_{label}.tif"},
    ),
    "montgomery": (
        [f"CXR_png/M_{i}.png" for i in N]
        + [f"ManualMask/{s}/M_{i}.png" for s in ("leftMask", "rightMask") for i in N],
        "paired-folders",
        {"images": "CXR_png", "labels": "ManualMask/{label}"},
    ),
    "btcv": (
        [f"img/img{i:04d}.nii.gz" for i in N] + [f"label/label{i:04d}.nii.gz" for i in N],
        "paired-folders",
        {"images": "img", "labels": "label", "image_prefix": "img", "label_prefix": "label"},
    ),
    "lits": (
        [f"{word}-{i}.nii" for word in ("volume", "segmentation") for i in N],
        "flat-suffix",
        {"folder": ".", "image_prefix": "volume-", "label_prefix": "segmentation-"},
    ),
    "polypgen": (
        [f"data_C{c}/images_C{c}/{c}_{i}.jpg" for c in (1, 2) for i in N]
        + [f"data_C{c}/masks_C{c}/{c}_{i}_mask.jpg" for c in (1, 2) for i in N],
        "paired-folders",
        {"images": "data_C*/images_C*", "labels": "data_C*/masks_C*", "label_suffix": "_mask.jpg"},
    ),
    "fives": (
        [f"{s}/{d}/{i}_A.png" for s in ("train", "test") for d in ("Original", "Ground truth") for i in N],
        "paired-folders",
        {"images": "*/Original", "labels": "*/Ground truth"},
    ),
    "ph2": (
        [
            f"im/IMD{i}/IMD{i}_{d}.bmp"
            for i in N
            for d in (f"Dermoscopic_Image/IMD{i}", f"lesion/IMD{i}_lesion")
        ],
        "case-folder",
        {"image": "{case}_Dermoscopic_Image/{case}.bmp", "label": "{case}_lesion/{case}_lesion.bmp"},
    ),
    "series": (
        [f"dicom/P{p}/{i}.dcm" for p in (1, 2) for i in N] + [f"labels/P{p}.nii.gz" for p in (1, 2)],
        "paired-folders",
        {"images": "dicom", "image_suffix": "/", "labels": "labels", "label_suffix": ".nii.gz"},
    ),
    "isles": (
        [f"sub-{i:02d}/ses-1/anat/sub-{i:02d}_ses-1_FLAIR.nii.gz" for i in N]
        + [f"derivatives/sub-{i:02d}/ses-1/sub-{i:02d}_ses-1_space-orig_msk.nii.gz" for i in N],
        "bids-derivatives",
        {
            "images": ".",
            "labels": "derivatives",
            "image_suffix": "FLAIR",
            "label_suffix": "msk",
            "label_entities": {"space": "orig"},
        },
    ),
    "spine generic": (
        [f"sub-{i:02d}/anat/sub-{i:02d}_T2w.nii.gz" for i in N]
        + [f"derivatives/labels/sub-{i:02d}/anat/sub-{i:02d}_T2w_seg-manual.nii.gz" for i in N],
        "paired-folders",
        {
            "images": "sub-*/anat",
            "labels": "derivatives/labels/sub-*/anat",
            "image_suffix": ".nii.gz",
            "label_suffix": "_seg-manual.nii.gz",
        },
    ),
    "bids classes": (
        [f"sub-{i}/anat/sub-{i}_{w}.nii.gz" for i in N for w in ("T1w", "T2w")]
        + [f"derivatives/x/sub-{i}/sub-{i}_label-{c}_mask.nii.gz" for i in N for c in ("GM", "WM")],
        "bids-derivatives",
        {"image_suffix": "{channel}", "label_suffix": "mask", "label_entities": {"label": "{label}"}},
    ),
    "words after one word": (
        [f"p{i}_{end}.nii.gz" for i in N for end in ("img", "seg_r1", "seg_r2", "seg_r3")],
        "flat-suffix",
        {"image_suffix": "_img.nii.gz", "label_suffix": "_seg_{label}.nii.gz"},
    ),
    "sliver": (  # numbers of cases are no channels and classes
        [f"training-{d}/liver-{w}{i:03d}.mhd" for d, w in (("scans", "orig"), ("labels", "seg")) for i in N],
        "paired-folders",
        {"images": "training-scans", "labels": "training-labels", "image_prefix": "liver-orig"},
    ),
    "tnbc": (  # what all files lie in says nothing
        [
            f"TNBC_NucleiSegmentation/{word}_{g:02d}/{g}_{i}.png"
            for word in ("Slide", "GT")
            for g in N
            for i in N
        ],
        "paired-folders",
        {"images": "TNBC_NucleiSegmentation/Slide_*", "labels": "TNBC_NucleiSegmentation/GT_*"},
    ),
    "kvasir": (  # its images are no class
        [f"Kvasir-SEG/{folder}/a{i}b.jpg" for folder in ("images", "masks") for i in N],
        "paired-folders",
        {"images": "Kvasir-SEG/images", "labels": "Kvasir-SEG/masks"},
    ),
    "retouch": (
        [
            f"{s}/TRAIN{i:03d}/{name}.mhd"
            for s in ("Cirrus", "Topcon")
            for i in N
            for name in ("oct", "reference")
        ],
        "case-folder",
        {"cases": "*/*", "image": "oct.mhd", "label": "reference.mhd"},
    ),
    "amos": (  # a folder of volumes is no series
        [f"{d}/amos_{i:04d}.nii.gz" for d in ("imagesTr", "labelsTr") for i in N],
        "paired-folders",
        {"images": "imagesTr", "labels": "labelsTr", "image_suffix": ".nii.gz", "label_suffix": ".nii.gz"},
    ),
    "mni": (
        ["a_t1.nii.gz", "a_gm.nii.gz", "a_wm.nii.gz"],
        "flat-suffix",
        {"image_suffix": "_t1.nii.gz", "label_suffix": "_{label}.nii.gz"},
    ),
}


@pytest.mark.parametrize("name", TREES)
def test_the_pairing_of_public_sets_is_recognised(tmp_path, name):
    files, kind, options = TREES[name]
    found = survey(grow(tmp_path, *files))
    best = guess(found)
    assert best is not None
    assert (best.candidate.kind, best.problems) == (kind, ())
    assert options.items() <= best.candidate.options.items()
    visible = [file for file in files if "/._" not in file]
    assert best.explained == found.data_count == len(visible)


def test_files_that_pair_with_nothing_are_counted(tmp_path):
    files = (
        TREES["msd"][0] + [f"imagesTs/la_{i}.nii.gz" for i in N] + ["imagesTr/la_777.nii.gz", "dataset.json"]
    )
    found = survey(grow(tmp_path, *files))
    best = guess(found)
    assert (len(best.usable), len(best.problems), best.explained, found.data_count) == (6, 1, 12, 19)
    assert found.extensions == {".nii.gz": 19, ".json": 1}


def test_cases_of_different_depths(tmp_path):
    """At the top and below; what one pairing cannot reach is counted."""
    files = [
        f"{place}{n}_{kind}.png" for place in ("", "x/") for n in ("p1", "p2") for kind in ("img", "seg")
    ]
    root = grow(tmp_path, *files, "p3_img.png", "p3_seg.png", "a/b/c/p4_img.png", "a/b/c/p4_seg.png")
    best = guess(survey(root))
    assert (best.candidate.kind, len(best.usable), best.explained) == ("flat-suffix", 3, 6)


@settings(max_examples=30, deadline=None)
@given(
    st.sets(
        st.tuples(
            st.lists(st.sampled_from(["a", "b1", "b2", "masks"]), max_size=3).map(tuple),
            st.sampled_from(["1.png", "1_mask.png", "2.png", "2_mask.png", "3.nii.gz"]),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_no_tree_is_too_odd(tmp_path_factory, files):
    root = grow(tmp_path_factory.mktemp("t"), *("/".join((*folders, name)) for folders, name in files))
    best = guess(survey(root))
    assert best is None or 0 < best.explained <= len(files)


def test_a_folder_of_volumes_is_no_label_of_one_case(tmp_path):
    """With a second pair of folders it explained more files than the first pair, and could not be read."""
    sides = ("imagesTr", "labelsTr", "imagesVa", "labelsVa")
    root = grow(tmp_path, *(f"x/{d}/a_{10 * (d[-2:] == 'Va') + i}.nii.gz" for d in sides for i in N))
    best = guess(survey(root))
    assert (best.candidate.kind, len(best.usable)) == ("paired-folders", 6)


def test_halves_of_layouts_are_not_taken_for_one_case(tmp_path):
    """What pairs by a rule that no draft has (an image folder, a folder a label) stays for its author to write."""
    files = [
        f"{n}/case_{i:05d}{end}" for n, end in (("imaging", ".nii.gz"), ("labels", "/seg.nii.gz")) for i in N
    ]
    assert guess(survey(grow(tmp_path, *files))) is None


def test_nothing_to_pair(tmp_path):
    assert guess(survey(grow(tmp_path, "a/1.png", "a/2.png", "notes.txt"))) is None
    with pytest.raises(ConfigError, match="no such folder"):
        survey(tmp_path / "absent")
    with pytest.raises(ConfigError, match=r"notes\.txt: is a file"):
        survey(tmp_path / "notes.txt")


@settings(max_examples=15, deadline=None)
@given(seed=st.randoms(use_true_random=False), name=st.sampled_from(["msd", "busi", "brats", "idrid"]))
def test_the_order_of_creation_does_not_matter(tmp_path_factory, seed, name):
    files = list(TREES[name][0])
    first = guess(survey(grow(tmp_path_factory.mktemp("a"), *files)))
    seed.shuffle(files)
    assert guess(survey(grow(tmp_path_factory.mktemp("b"), *files))) == first


# -- what files hold -----------------------------------------------------------------------------------

CANARY = "CANARY-JANE-DOE"


def volumes(root: Path, count: int = 6, *, shift_last: float = 0.0) -> Path:
    """CT-like pairs whose headers carry a name."""
    rng = np.random.default_rng(0)
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True)
    label = np.zeros((20, 18, 6), np.uint8)
    label[2:8, 2:8, 1:3] = 1
    label[10:12, 10:12, 2] = 4
    for number in range(count):
        affine = np.diag([0.7, 0.7, 5.0, 1.0])
        image = nib.Nifti1Image(rng.integers(-1024, 900, label.shape).astype(np.int16), affine)
        image.header["descrip"] = CANARY
        nib.save(image, root / f"imagesTr/c{number}.nii.gz")
        affine[0, 3] += shift_last if number == count - 1 else 0
        nib.save(nib.Nifti1Image(label, affine), root / f"labelsTr/c{number}.nii.gz")
    return root


def pictures(root: Path, label: np.ndarray, extension: str = ".png", count: int = 3) -> Path:
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for number in range(count):
        cv2.imwrite(str(root / f"images/{number}.png"), np.full((*label.shape[:2], 3), number, np.uint8))
        cv2.imwrite(str(root / f"masks/{number}{extension}"), label)
    return root


def drafted(root: Path) -> tuple[Source, str]:
    """The draft as a source, checked as far as its kinds can."""
    found = survey(root)
    best = guess(found)
    text = draft(found, best, read(root, best), ontology())
    path = root.parent / "draft.toml"
    path.write_text(text, encoding="utf-8")
    source = load_model(path, Source)
    decoder = load(DECODERS, source.label.decoder, "decoder")
    decoder.check(source.labels)
    decoder.Options(**source.label.options)
    for pairing in source.pairings:
        load(PAIRINGS, pairing.kind, "pairing").Options(**pairing.options)
    return source, text


def test_a_draft_of_volumes_loads_and_asks(tmp_path):
    root = volumes(tmp_path / "Liver Study (2024)")
    source, text = drafted(root)
    assert (source.id, source.dimensions) == ("liver-study-2024", 3)
    assert (source.image.reader, source.label.reader, source.label.decoder) == ("nifti", "nifti", "index")
    assert list(source.labels) == ["1", "4"]
    assert '"1" = "unresolved"  # 288 voxels in 4 of 6 cases' in text
    assert "Hounsfield" in text
    questions = [line for line in text.splitlines() if line.startswith(QUESTION)]
    for subject in ("modality", "licence", "label of the ontology", "patient"):
        assert any(subject in line for line in questions), subject
    assert CANARY not in text
    assert tomllib.loads(text)["licence"]["id"] == "unresolved"


def test_facts_agree_with_nibabel(tmp_path):
    root = volumes(tmp_path / "x", shift_last=9.0)
    looks = read(root, guess(survey(root))).shown
    assert [entry.name for entry in looks] == ["c0", "c1", "c3", "c5"]
    image = nib.load(root / "imagesTr/c1.nii.gz")
    facts = looks[1].images[0]
    data = image.get_fdata()
    assert (facts.shape, facts.low, facts.high) == (image.shape, data.min(), data.max())
    assert facts.spacing_mm == pytest.approx(image.header.get_zooms(), rel=1e-6)
    assert facts.values is None
    label = np.asarray(nib.load(root / "labelsTr/c1.nii.gz").dataobj)
    values, counts = np.unique(label, return_counts=True)
    assert looks[1].labels[0].values == dict(zip(values.tolist(), counts.tolist(), strict=True))
    assert looks[0].problems == []
    assert looks[3].problems == ["label: affine differs from the image's by up to 9"]


@pytest.mark.parametrize("name", ["isles", "bids classes"])
def test_entities_are_drafted(tmp_path, name):
    files, _, options = TREES[name]
    source, _ = drafted(grow(tmp_path / "x", *files))
    assert options.items() <= source.pairings[0].options.items()
    assert list(source.labels) == (["GM", "WM"] if name == "bids classes" else ["1"])


def test_damaged_files_and_other_shapes_are_questions(tmp_path):
    root = volumes(tmp_path / "x", 2)
    nib.save(nib.Nifti1Image(np.zeros((3, 3, 3), np.uint8), np.eye(4)), root / "labelsTr/c0.nii.gz")
    path = root / "imagesTr/c1.nii.gz"
    path.write_bytes(path.read_bytes()[:-200])
    _, text = drafted(root)
    assert "shape (3, 3, 3), image (20, 18, 6)" in text
    assert "CORRUPT" in text


def test_components_of_a_volume_become_channels(tmp_path):
    root = volumes(tmp_path / "x", 2)
    for number in range(2):
        nib.save(
            nib.Nifti1Image(np.zeros((20, 18, 6, 4), np.int16), np.eye(4)),
            root / f"imagesTr/c{number}.nii.gz",
        )
    source, _ = drafted(root)
    assert [(channel.name, channel.component) for channel in source.channels] == [
        (f"c{i}", i) for i in range(4)
    ]


GREY = np.zeros((16, 16), np.uint8)


@pytest.mark.parametrize(
    ("values", "extension", "decoder", "keys", "options"),
    [
        ({0: 255}, ".png", "threshold", ["*"], {"above": 127.0}),
        ({0: 255}, ".jpg", "threshold", ["*"], {"above": 127.0}),
        ({0: 1}, ".png", "index", ["1"], {}),
        ({0: 128, 1: 255}, ".png", "index", ["128", "255"], {}),
        ({i: i + 1 for i in range(80)}, ".png", "instance", ["*"], {}),
        ({0: (0, 0, 255), 1: (255, 0, 0)}, ".png", "colour-map", ["#0000ff", "#ff0000"], {}),
    ],
)
def test_decoders_are_guessed_from_values(tmp_path, values, extension, decoder, keys, options):
    colours = isinstance(values[0], tuple)
    label = np.zeros((16, 16, 3) if colours else (16, 16), np.uint8)
    for place, value in values.items():
        label[place // 8 * 1, (place % 8) * 2 : (place % 8) * 2 + 2] = value
    if extension == ".jpg":
        label[4:12, 4:12] = 255
    source, _ = drafted(pictures(tmp_path / "x", label, extension))
    assert (source.label.decoder, list(source.labels), source.label.options) == (decoder, keys, options)
    assert source.dimensions == 2


def named_masks(root: Path, **masks: np.ndarray) -> Path:
    """Pictures, and for each a mask that is called after its keyword."""
    for number in range(3):
        (root / "images").mkdir(parents=True, exist_ok=True)
        (root / "masks").mkdir(exist_ok=True)
        cv2.imwrite(str(root / f"images/p{number}.png"), np.full((16, 16, 3), number, np.uint8))
        for name, mask in masks.items():
            cv2.imwrite(str(root / f"masks/p{number}_{name}.png"), mask)
    return root


def holding(*values: int) -> np.ndarray:
    """A mask with a bar of each value on 0."""
    mask = np.zeros((16, 16), np.uint8)
    for place, value in enumerate(values):
        mask[2:9, 2 * place : 2 * place + 2] = value
    return mask


BLURRED = cv2.blur(holding(255, 255), (9, 9))


def test_one_word_for_all_labels_is_no_class(tmp_path):
    """Of a label map called "organs" every value is asked for, never the word."""
    source, _ = drafted(named_masks(tmp_path / "x", organs=holding(1, 2)))
    assert source.pairings[0].options["label_suffix"] == "_organs.png"
    assert (source.label.decoder, list(source.labels)) == ("index", ["1", "2"])


@pytest.mark.parametrize(
    ("masks", "options", "asked"),
    [
        ({"liver": holding(255), "spleen": holding(1)}, {}, ""),  # no bound fits both
        ({"liver": holding(255), "spleen": holding()}, {}, ""),
        ({"liver": holding(1, 2), "spleen": holding(1)}, {}, "several values, which a build refuses (liver: 1, 2)"),
        ({"liver": BLURRED, "spleen": holding(255)}, {"above": 127.0}, "blurred"),
        ({"liver": BLURRED, "spleen": holding(1)}, {"above": 127.0}, "spleen would be lost"),
        ({"a": holding(1), "b": holding(1)}, {}, "are their words raters"),
    ],
)  # fmt: skip
def test_a_file_a_class_is_doubted_by_its_values(tmp_path, masks, options, asked):
    source, text = drafted(named_masks(tmp_path / "x", **masks))
    assert (source.label.decoder, list(source.labels)) == ("mask-per-class", sorted(masks))
    assert source.label.options == options
    doubts = text.split("[label]")[1].split("decoder =")[0]
    assert asked in doubts
    assert (QUESTION in doubts) == bool(asked)


def test_raters_are_drafted_as_raters(tmp_path):
    source, text = drafted(named_masks(tmp_path / "x", **{f"rater{i}": holding(1, 2) for i in (1, 2, 3)}))
    assert source.pairings[0].options["label_suffix"] == "_{rater}.png"
    assert (source.label.raters, source.label.agreement) == (("rater1", "rater2", "rater3"), "majority")
    assert (source.label.decoder, list(source.labels)) == ("index", ["1", "2"])
    assert "# QUESTION: are these raters" in text


@pytest.mark.parametrize(
    "pair",
    [
        "images labs", "img lab", "scans lbl", "Bilder Masken", "Bilder Konturen", "x étiquettes", "irm masques",
        "imágenes máscaras", "imagens rótulos", "immagini maschere", "obrazy etykiety", "снимки разметка",
        "图像 标签", "画像 マスク", "画像 ラベル",
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", ["NFC", "NFD"])  # as Linux and macOS write accents
@pytest.mark.parametrize("flat", [False, True])
def test_usual_words_for_labels(tmp_path, pair, form, flat):
    words = [unicodedata.normalize(form, word) for word in pair.split()]
    places = ["p{}_{}.png" if flat else "{1}/p{0}.png"] * 2
    root = grow(
        tmp_path / "x", *(place.format(i, word) for place, word in zip(places, words, strict=True) for i in N)
    )
    options = guess(survey(root)).candidate.options
    ends = ("_{}.png",) * 2 if flat else ("{}",) * 2
    keys = ("image_suffix", "label_suffix") if flat else ("images", "labels")
    assert [options[key] for key in keys] == [end.format(word) for end, word in zip(ends, words, strict=True)]


def test_probabilities_are_a_question(tmp_path):
    root = volumes(tmp_path / "x", 2)
    for number in range(2):
        ramp = np.linspace(0, 1, 20 * 18 * 6, dtype=np.float32).reshape(20, 18, 6)
        nib.save(nib.Nifti1Image(ramp, np.diag([0.7, 0.7, 5.0, 1.0])), root / f"labelsTr/c{number}.nii.gz")
    best = guess(survey(root))
    found = meaning(best, read(root, best).labels)
    assert (found.decoder, found.options) == ("threshold", {"above": 0.5})
    assert "probability" in found.doubt


# -- the verb ------------------------------------------------------------------------------------------


def run(*arguments: object):
    return CliRunner().invoke(app, ["inspect", *map(str, arguments)])


def test_the_verb_shows_and_drafts_and_never_overwrites(tmp_path):
    root, path = volumes(tmp_path / "lab", shift_last=9.0), tmp_path / "lab.toml"
    result = run(root, "-o", path)
    assert result.exit_code == 0, result.output
    for text in (
        "12 .nii.gz",
        "paired-folders",
        "6 cases",
        "20 x 18 x 6",
        "0.7 x 0.7 x 5",
        "1 (72)",
        "affine differs",
    ):
        assert text in result.output
    assert CANARY not in result.output
    assert load_model(path, Source).id == "lab"
    before = path.read_bytes()
    refused = run(root, "-o", path)
    assert isinstance(refused.exception, ConfigError)
    assert path.read_bytes() == before


def test_the_verb_names_what_it_cannot_pair(tmp_path):
    result = run(grow(tmp_path, "a/1.png", "notes.txt"))
    assert isinstance(result.exception, ConfigError)
    assert all(kind in str(result.exception) for kind in PAIRINGS)
    assert "2 files" in result.output
    assert "a/1.png: UNREADABLE" in result.output


def test_archives_are_to_be_unpacked_first(tmp_path):
    told = str(run(grow(tmp_path, "images.zip", "masks.tar.gz", "readme.txt")).exception)
    assert "It holds archives (.gz, .zip), which are not looked into: unpack them first. Write" in told


def test_parts_of_a_split_archive_are_archives_and_no_dicom(tmp_path):
    root = grow(tmp_path, *(f"data.{end}.{part:03d}" for end in ("zip", "tar.GZ") for part in (1, 2, 3)))
    refused = run(root)
    assert "6 files: 3 .gz, 3 .zip" in refused.output
    assert "UNREADABLE" not in refused.output
    assert "It holds archives (.gz, .zip), which are not looked into" in str(refused.exception)


def test_files_that_do_not_pair_are_shown(tmp_path):
    """One of each kind of name, with its values where they are as few as those of labels."""
    root = tmp_path / "x"
    root.mkdir()
    for number in range(30):
        image = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
        nib.save(nib.Nifti1Image(image, np.diag([1.5, 1.5, 4, 1])), root / f"c{number}.nii.gz")
        nib.save(
            nib.Nifti1Image((image > 90).astype(np.uint8) * 3, np.eye(4)), root / f"c{number}_organs.nii.gz"
        )
    cv2.imwrite(str(root / "overview.png"), np.arange(300, dtype=np.uint16).reshape(10, 10, 3))
    (root / "damaged.nii.gz").write_bytes(b"x")
    (root / "dicom/7").mkdir(parents=True)
    written(root / "dicom/7", series(np.arange(100, dtype=np.int16).reshape(5, 5, 4)))
    output = run(root).output
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in output.splitlines() if "│" in line]
    assert rows == [
        ["c0.nii.gz", "4 x 5 x 6", "int16", "1.5 x 1.5 x 4", "0 to 119"],
        ["c0_organs.nii.gz", "4 x 5 x 6", "uint8", "1 x 1 x 1", "0 (91), 3 (29)"],
        ["dicom/7", "5 x 5 x 4", "int16", "0.6 x 0.8 x 2.5", "0 to 99"],
        ["overview.png", "10 x 10 x 3", "uint16", "not stated", "0 to 299"],
    ]
    assert "damaged.nii.gz: UNREADABLE" in output


def test_odd_names_give_valid_toml(tmp_path):
    root = tmp_path / 'a"b\\c\x7f\n é'
    pictures(root, GREY + 255)
    (root / "images/[bold]x\n.png").write_bytes((root / "images/0.png").read_bytes())
    (root / "masks/[bold]x\n.png").write_bytes((root / "masks/0.png").read_bytes())
    source, _ = drafted(root)
    assert source.title == root.name
    assert run(root).exit_code == 0
