"""Sets whose numbers look like another set's and mean something else: what each value stands for, exactly.

Values were taken from the sets' own code and papers (``evidence`` of each source), not from the sources' TOML.
"""

from __future__ import annotations

import pytest

from medcurate.library import load_source, source_ids

ORDERS: dict[str, tuple[str, ...]] = {  # in the order of their values, from 1 on
    # Abdomen: five orders for the same dozen organs.
    "amos22-ct": (
        "spleen", "kidney-right", "kidney-left", "gallbladder", "esophagus", "liver", "stomach", "aorta",
        "inferior-vena-cava", "pancreas", "adrenal-gland-right", "adrenal-gland-left", "duodenum",
        "urinary-bladder", "prostate-or-uterus",
    ),
    "btcv-abdomen": (
        "spleen", "kidney-right", "kidney-left", "gallbladder", "esophagus", "liver", "stomach", "aorta",
        "inferior-vena-cava", "portal-vein-and-splenic-vein", "pancreas", "adrenal-gland-right",
        "adrenal-gland-left",
    ),
    "flare22": (
        "liver", "kidney-right", "spleen", "pancreas", "aorta", "inferior-vena-cava", "adrenal-gland-right",
        "adrenal-gland-left", "gallbladder", "esophagus", "stomach", "duodenum", "kidney-left",
    ),
    "flare23": (
        "liver", "kidney-right", "spleen", "pancreas", "aorta", "inferior-vena-cava", "adrenal-gland-right",
        "adrenal-gland-left", "gallbladder", "esophagus", "stomach", "duodenum", "kidney-left",
        "abdominal-tumor",
    ),
    "word": (
        "liver", "spleen", "kidney-left", "kidney-right", "stomach", "gallbladder", "esophagus", "pancreas",
        "duodenum", "colon", "intestine", "adrenal-gland", "rectum", "urinary-bladder", "femoral-head-left",
        "femoral-head-right",
    ),
    "abdomenct-1k": ("liver", "kidney", "spleen", "pancreas"),
    "flare21": ("liver", "kidney", "spleen", "pancreas"),
    "ct-org": ("liver", "urinary-bladder", "lung", "kidney", "bone", "brain"),
    "curvas": ("pancreas", "kidney", "liver"),
    "abdomenatlas-1-1-mini": (
        "aorta", "gallbladder", "kidney-left", "kidney-right", "liver", "pancreas", "inferior-vena-cava",
        "spleen", "stomach", "adrenal-gland-left", "adrenal-gland-right", "urinary-bladder", "celiac-trunk",
        "colon", "duodenum", "esophagus", "femur-left", "femur-right", "hepatic-vessel", "intestine",
        "lung-left", "lung-right", "portal-vein-and-splenic-vein", "prostate", "rectum",
    ),
    # An organ and what grows in it.
    "msd-task03-liver": ("liver", "liver-tumor"),
    "lits": ("liver", "liver-tumor"),
    "atlas-liver-mr": ("liver", "liver-tumor"),
    "kits19": ("kidney", "kidney-tumor"),
    "kits23": ("kidney", "kidney-tumor", "kidney-cyst"),
    "msd-task07-pancreas": ("pancreas", "pancreas-tumor"),
    "msd-task08-hepaticvessel": ("hepatic-vessel", "liver-tumor"),
    "panorama": (
        "pancreas-lesion", "abdominal-vein", "abdominal-artery", "pancreas", "pancreatic-duct",
        "common-bile-duct",
    ),
    # BraTS 2016 and 2017 under other numbers than BraTS itself.
    "msd-task01-braintumour": ("brain-tumor-edema", "brain-tumor-nonenhancing", "brain-tumor-enhancing"),
    # From 2023 on enhancing tumor is 3; before, 4 (below).
    "crossmoda-2023": (
        "vestibular-schwannoma-extrameatal", "vestibular-schwannoma-intrameatal", "cochlea",
    ),
    "brats-2023-gli": ("brain-tumor-necrotic", "brain-tumor-edema", "brain-tumor-enhancing"),
    # Heart: two challenges of cine MR that number the same three structures the other way round, and others.
    "acdc": ("heart-ventricle-right", "myocardium-left-ventricle", "heart-ventricle-left"),
    "mnms-1": ("heart-ventricle-left", "myocardium-left-ventricle", "heart-ventricle-right"),
    "camus": ("heart-ventricle-left", "myocardium-left-ventricle", "heart-atrium-left"),
    "emidec": ("heart-ventricle-left", "myocardium-normal", "myocardial-infarct", "no-reflow"),
    "hvsmr-2-0": (
        "heart-ventricle-left", "heart-ventricle-right", "heart-atrium-left", "heart-atrium-right", "aorta",
        "pulmonary-artery", "superior-vena-cava", "inferior-vena-cava",
    ),
    # Hips: the usual listing has right before left; the files have 2 on the patient's left.
    "ctpelvic1k": ("sacrum", "hip-bone-left", "hip-bone-right", "vertebra-lumbar"),
    "segthor": ("esophagus", "heart", "trachea", "aorta"),
    "covid19-ct-seg": ("lung-left", "lung-right", "covid-lesion"),
    "bhsd": (
        "epidural-hemorrhage", "intraparenchymal-hemorrhage", "intraventricular-hemorrhage",
        "subarachnoid-hemorrhage", "subdural-hemorrhage",
    ),
    "feta": (
        "cerebrospinal-fluid", "gray-matter", "white-matter", "brain-ventricle", "cerebellum",
        "deep-gray-matter", "brainstem",
    ),
    "oasis-neurite": ("cerebral-cortex", "deep-gray-matter", "white-matter", "cerebrospinal-fluid"),
    # dataset.json: PZ first; some code has it second.
    "msd-task05-prostate": ("prostate-peripheral-zone", "prostate-transition-zone"),
}  # fmt: skip


@pytest.mark.parametrize("name", ORDERS)
def test_values_mean_what_the_set_says(name: str) -> None:
    numbered = {str(value): label for value, label in enumerate(ORDERS[name], start=1)}
    assert dict(load_source(name).labels) == numbered


NAMED = {  # what regions and segments are called, where a name alone could mislead
    "lctsc": {"Lung_L": "lung-left", "Lung_R": "lung-right", "SpinalCord": "spinal-cord"},
    "nsclc-radiomics": {"GTV-1": "lung-tumor", "Lung-Left": "lung-left", "Lungs-Total": "lung"},
    "pediatric-ct-seg": {
        "Femoral Head Lef": "femoral-head-left",
        "Femoral Head Rig": "femoral-head-right",
        "Lt Adrenal": "adrenal-gland-left",
        "Rt Adrenal": "adrenal-gland-right",
        "Spinal Canal": "spinal-canal",  # and not the cord
    },
    "colorectal-liver-metastases": {
        "Hepatic": "hepatic-vein",
        "Portal": "portal-vein",
        "Tumor_7": "liver-tumor",
    },
    "hcc-tace-seg": {"Mass": "liver-tumor", "Portal vein": "portal-vein"},
}


@pytest.mark.parametrize("name", NAMED)
def test_names_mean_what_the_set_says(name: str) -> None:
    labels = load_source(name).labels
    assert {key: labels[key] for key in NAMED[name]} == NAMED[name]


def test_the_two_halves_of_amos_have_one_order() -> None:
    assert load_source("amos22-ct").labels == load_source("amos22-mr").labels


@pytest.mark.parametrize("name", ["chaos-mr-t1", "chaos-mr-t2"])
def test_grey_values_of_chaos(name: str) -> None:
    assert dict(load_source(name).labels) == {
        "55..70": "liver",
        "110..135": "kidney-right",
        "175..200": "kidney-left",
        "240..255": "spleen",
    }


def test_channels_of_four_dimensional_files_are_in_the_order_of_dataset_json() -> None:
    brain, prostate = load_source("msd-task01-braintumour"), load_source("msd-task05-prostate")
    assert [(c.component, c.sequence) for c in brain.channels] == [
        (0, "flair"),
        (1, "t1"),
        (2, "t1ce"),
        (3, "t2"),
    ]
    assert [(c.component, c.sequence) for c in prostate.channels] == [(0, "t2"), (1, "adc")]


@pytest.mark.parametrize(
    ("name", "classes"),
    [
        ("totalsegmentator-ct-v1", 104),
        ("totalsegmentator-ct-v2", 117),
        ("totalsegmentator-ct-v3", 117),
        ("totalsegmentator-mri", 50),
    ],
)
def test_classes_of_totalsegmentator_keep_their_side(name: str, classes: int) -> None:
    labels = load_source(name).labels
    assert len(labels) == classes == len(set(labels.values()))
    for key, label in labels.items():
        for side in ("left", "right"):
            if side in key and key != "lung_middle_lobe_right":  # there is but one
                assert side in label, key


def test_versions_of_totalsegmentator_differ_in_one_vertebra() -> None:
    second, third = (load_source(f"totalsegmentator-ct-{version}").labels for version in ("v2", "v3"))
    assert second.items() - third.items() == {("vertebrae_S1", "vertebra-s1")}
    assert third.items() - second.items() == {("vertebrae_L6", "vertebra-l6")}


@pytest.mark.parametrize("name", ["brats-2018", "brats-2021"])
def test_brats_up_to_2021_skips_3(name: str) -> None:
    assert dict(load_source(name).labels) == {
        "1": "brain-tumor-necrotic",
        "2": "brain-tumor-edema",
        "4": "brain-tumor-enhancing",
    }


@pytest.mark.parametrize("name", ["brats-2018", "brats-2021", "brats-2023-gli"])
def test_nested_regions_of_brats(name: str) -> None:
    """Whole tumor is all three parts, the core all but edema."""
    necrotic, edema, enhancing = load_source(name).labels.values()
    assert dict(load_source(name).regions) == {
        "brain-tumor": (necrotic, edema, enhancing),
        "brain-tumor-core": (necrotic, enhancing),
    }


@pytest.mark.parametrize(("name", "left_atrium"), [("mm-whs-ct", "420"), ("mm-whs-mr", "420..421")])
def test_grey_values_of_mm_whs(name: str, left_atrium: str) -> None:
    assert dict(load_source(name).labels) == {
        "205": "myocardium-left-ventricle",
        left_atrium: "heart-atrium-left",
        "500": "heart-ventricle-left",
        "550": "heart-atrium-right",
        "600": "heart-ventricle-right",
        "820": "aorta-ascending",
        "850": "pulmonary-artery",
    }


@pytest.mark.parametrize(
    ("name", "more"),
    [("ctspine1k", {}), ("verse19", {"28": "vertebra-t13"}), ("verse20", {"28": "vertebra-t13"})],
)
def test_vertebrae_are_counted_from_the_head(name: str, more: dict[str, str]) -> None:
    levels = [
        *(f"c{n}" for n in range(1, 8)),
        *(f"t{n}" for n in range(1, 13)),
        *(f"l{n}" for n in range(1, 7)),
    ]
    numbered = {str(value): f"vertebra-{level}" for value, level in enumerate(levels, start=1)}
    assert dict(load_source(name).labels) == numbered | more


def test_vertebrae_of_spider_are_counted_from_below_and_have_no_level() -> None:
    assert dict(load_source("spider").labels) == {
        "1..25": "vertebra",
        "100": "spinal-canal",
        "101..125": "vertebra",
        "201..225": "intervertebral-disc",
    }


def test_luna16_has_the_left_lung_first() -> None:
    assert dict(load_source("luna16").labels) == {"3": "lung-left", "4": "lung-right", "5": "trachea"}


def test_sides_of_han_seg_are_those_of_its_file_names() -> None:
    for key, label in load_source("han-seg").labels.items():
        side = {"L": "left", "R": "right"}.get(key[-1]) if key[-2] in "_AP" else None
        assert label.endswith(side) if side else not label.endswith(("left", "right")), key


KEYS: dict[str, dict[str, str]] = {  # of pictures
    "psfhs": {"1": "pubic-symphysis", "2": "fetal-head"},
    "jnu-ifm": {"1": "pubic-symphysis", "2": "fetal-head"},
    "jsrt": {"255": "lung", "85": "heart"},
    "retouch": {"1": "intraretinal-fluid", "2": "subretinal-fluid", "3": "pigment-epithelial-detachment"},
    "refuge": {"0": "optic-cup", "128": "optic-disc-rim"},  # inverted: 255 is background
    "fundus-avseg": {"#FF0000": "retinal-artery", "#0000FF": "retinal-vein", "#00FF00": "retinal-vessel-crossing"},
    "oimhs": {"#FFFF00": "choroid", "#00FF00": "retina", "#0000FF": "intraretinal-cyst", "#FF0000": "macular-hole"},
    "bkai-igh-neopolyp": {"#FF0000": "polyp-neoplastic", "#00FF00": "polyp-nonneoplastic"},
    "endovis-2017-ris": {"10": "instrument-shaft", "20": "instrument-wrist", "30": "instrument-clasper"},
    "endovis-2018-rss": {
        "#00FF00": "instrument-shaft", "#00FFFF": "instrument-clasper", "#7DFF0C": "instrument-wrist",
        "#FF3700": "kidney", "#18377D": "kidney-covered", "#BB9B19": "suture", "#00FF7D": "clamp",
        "#FFFF7D": "needle", "#7B0FAF": "irrigator", "#7C9B05": "small-bowel", "#0CFF8D": "ultrasound-probe",
    },
    "cholecseg8k": {
        "11": "abdominal-wall", "21": "liver", "13": "gastrointestinal-tract", "12": "fat", "31": "grasper",
        "23": "connective-tissue", "24": "blood", "25": "cystic-duct", "32": "hook-electrocautery",
        "22": "gallbladder", "33": "hepatic-vein", "5": "liver-ligament",
    },
    "pengwin-ct": {"1..10": "sacrum", "11..20": "hip-bone-left", "21..30": "hip-bone-right"},
    "pengwin-xray": {"1..10": "sacrum", "11..20": "hip-bone-left", "21..30": "hip-bone-right"},
    "pannuke": {
        "0": "nucleus-neoplastic", "1": "nucleus-inflammatory", "2": "nucleus-connective", "3": "nucleus-dead",
        "4": "nucleus-epithelial",
    },
    "conic-lizard": {
        "1": "nucleus-neutrophil", "2": "nucleus-epithelial", "3": "nucleus-lymphocyte", "4": "nucleus-plasma",
        "5": "nucleus-eosinophil", "6": "nucleus-connective",
    },
}  # fmt: skip


@pytest.mark.parametrize("name", KEYS)
def test_keys_mean_what_the_set_says(name: str) -> None:
    assert dict(load_source(name).labels) == KEYS[name]


def test_what_is_left_out_of_pictures_is_named() -> None:
    assert load_source("jsrt").label.options["ignore"] == [170]  # the body around lungs and heart
    assert load_source("refuge").label.options["background"] == ["255"]
    assert load_source("cholecseg8k").label.options["ignore"] == [50, 255]
    assert load_source("pannuke").label.options["ignore"] == [5]  # the channel of the background
    assert load_source("palm").label.options["inverted"] is True


SAID = {  # what titles of the sets say of every picture
    "TOF MR angiography": ("sequence", "mra"),
    "CT angiography": ("sequence", "ct-angiography"),
    "cone-beam CT": ("sequence", "ct-cone-beam"),
    "contrast-enhanced MR": ("sequence", "t1ce"),
    "in T2-weighted MR": ("sequence", "t2"),
    "breast ultrasound": ("sequence", "b-mode"),
    "delayed-enhancement MR": ("sequence", "lge"),
    "simulated": ("synthetic", True),
}


def test_what_a_title_says_of_every_picture_is_in_its_rows() -> None:
    told = {said: [] for said in SAID}
    for source in map(load_source, source_ids()):
        for said, (fact, value) in SAID.items():
            if said in source.title:
                told[said].append(source.id)
                assert getattr(source, fact) == value, source.id
    assert all(told.values())
