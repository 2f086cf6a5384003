"""Sets whose numbers look like another set's and mean something else: what each value stands for, exactly.

Values were taken from the sets' own code and papers (``evidence`` of each source), not from the sources' TOML.
"""

from __future__ import annotations

import pytest

from medcurate.library import load_source

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
    # dataset.json: PZ first; some code has it second.
    "msd-task05-prostate": ("prostate-peripheral-zone", "prostate-transition-zone"),
}  # fmt: skip


@pytest.mark.parametrize("name", ORDERS)
def test_values_mean_what_the_set_says(name: str) -> None:
    numbered = {str(value): label for value, label in enumerate(ORDERS[name], start=1)}
    assert dict(load_source(name).labels) == numbered


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
