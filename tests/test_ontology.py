"""The packaged ontology: consistent in itself, true to published code tables, wide enough for known sets."""

from __future__ import annotations

import re

import pytest
from pydicom.sr._concepts_dict import concepts

from medcurate.config.ontology import Ontology
from medcurate.errors import ConfigError
from medcurate.library import ontology
from medcurate.tables import check_model

TERMS = ontology()
KINDS = {
    "modalities": TERMS.modalities,
    "sequences": TERMS.sequences,
    "regions": TERMS.regions,
    "organs": TERMS.organs,
    "labels": TERMS.labels,
}
CODED = [
    (f"{kind}.{name}", term.title, term.snomed)
    for kind, terms in (("organs", TERMS.organs), ("labels", TERMS.labels))
    for name, term in terms.items()
    if term.snomed
]

# Codes that DICOM PS3.16 does not list, with the name that was read beside them (tables: docs/ontology.md).
ELSEWHERE = {
    "15926001": "Brainstem structure",
    "385296007": "Submandibular salivary gland structure",
    "80169004": "Cochlear structure",
    "77578007": "Arytenoid cartilage structure",
    "8600008": "Cricoid cartilage structure",
    "113276009": "Intestinal structure",
    "73903008": "Bone structure of lumbar vertebra",
    "35769007": "Bone structure of thoracic vertebra",
    "65985001": "Structure of first sacral vertebra",
    "48535007": "Bone structure of first rib",
    "78247007": "Bone structure of second rib",
    "25888004": "Bone structure of third rib",
    "25523003": "Bone structure of fourth rib",
    "15339008": "Bone structure of fifth rib",
    "59558009": "Bone structure of sixth rib",
    "24915002": "Bone structure of seventh rib",
    "5953002": "Bone structure of eighth rib",
    "22565002": "Bone structure of ninth rib",
    "77644006": "Bone structure of tenth rib",
    "58830002": "Bone structure of eleventh rib",
    "43993008": "Bone structure of twelfth rib",
    "110765007": "Portal vein and splenic vein",
    "244849004": "Deep muscle of back",
    "68455001": "Iliopsoas muscle",
    "74281007": "Myocardium structure",
    "55641003": "Infarct",
    "206007": "Gluteus maximus muscle",
    "78333006": "Structure of gluteus medius muscle",
    "75297007": "Gluteus minimus muscle",
}
# Lesions carry the code of their morphology, which their titles need not repeat.
MORPHOLOGY = {
    "52988006": "lesion",
    "108369006": "tumor",
    "367643001": "cyst",
    "50960005": "hemorrhage",
    "79654002": "edema",
    "6574001": "necrotic",
    "27925004": "nodule",
    "4147007": "mass",
    "41699000": "effusion",
    "12402003": "scar",
}
VAGUE = {"of", "the", "a", "and", "or", "structure", "region", "system", "entire", "part", "left", "right"}

_VERHOEFF_TURN = [
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
    [1, 2, 3, 4, 0, 6, 7, 8, 9, 5],
    [2, 3, 4, 0, 1, 7, 8, 9, 5, 6],
    [3, 4, 0, 1, 2, 8, 9, 5, 6, 7],
    [4, 0, 1, 2, 3, 9, 5, 6, 7, 8],
    [5, 9, 8, 7, 6, 0, 4, 3, 2, 1],
    [6, 5, 9, 8, 7, 1, 0, 4, 3, 2],
    [7, 6, 5, 9, 8, 2, 1, 0, 4, 3],
    [8, 7, 6, 5, 9, 3, 2, 1, 0, 4],
    [9, 8, 7, 6, 5, 4, 3, 2, 1, 0],
]
_VERHOEFF_PLACE = [
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
    [1, 5, 7, 6, 2, 8, 3, 0, 9, 4],
    [5, 8, 0, 3, 7, 9, 6, 1, 4, 2],
    [8, 9, 1, 6, 0, 4, 3, 5, 2, 7],
    [9, 4, 5, 3, 1, 2, 6, 8, 7, 0],
    [4, 2, 8, 6, 5, 7, 3, 9, 0, 1],
    [2, 7, 9, 3, 8, 0, 6, 4, 1, 5],
    [7, 0, 4, 6, 9, 1, 3, 2, 5, 8],
]


def check_digit_fits(code: str) -> bool:
    """Whether the last digit is the Verhoeff check digit of the others, as in every SNOMED CT identifier."""
    remainder = 0
    for place, digit in enumerate(reversed(code)):
        remainder = _VERHOEFF_TURN[remainder][_VERHOEFF_PLACE[place % 8][int(digit)]]
    return remainder == 0


def dicom_meanings(scheme: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for entries in concepts[scheme].values():
        for code, (meaning, _) in entries.items():
            found.setdefault(code, set()).add(meaning)
    return found


def words(text: str) -> set[str]:
    return {word[:5] for word in re.findall(r"[a-z0-9]+", text.lower()) if word not in VAGUE}


def test_ids_are_kebab_case():
    for kind, terms in KINDS.items():
        assert terms
        for name in terms:
            assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name), f"{kind}.{name}"


def test_an_undefined_reference_is_refused():
    content = TERMS.model_dump()
    content["labels"]["liver"]["organ"] = "livre"
    with pytest.raises(ConfigError, match=r"labels\.liver\.organ: 'livre' is not defined"):
        check_model(content, Ontology, "ontology.toml")


def test_modalities_are_those_of_sa_med2d_and_oct_with_dicom_acquisition_codes():
    ten = ["ct", "mr", "pet", "dermoscopy", "endoscopy", "fundus", "histopathology", "microscopy"]
    assert sorted(TERMS.modalities) == sorted([*ten, "ultrasound", "xray", "oct"])
    cid_29 = {
        code
        for entries in concepts["DCM"].values()
        for code, (_, contexts) in entries.items()
        if 29 in contexts
    }
    codes = [modality.dicom for modality in TERMS.modalities.values()]
    assert set(codes) <= cid_29
    assert len(set(codes)) == len(codes)
    assert (TERMS.modalities["mr"].dicom, TERMS.modalities["pet"].dicom) == ("MR", "PT")


def test_the_four_structure_groups_are_filled():
    groups = [TERMS.regions[TERMS.region_of(label)].group for label in TERMS.labels]
    for group in ("head-neck", "thorax", "abdomen", "pelvis"):
        assert groups.count(group) >= 20
    assert TERMS.region_of("kidney-left") == "abdomen"


def test_at_least_31_organs_have_codes():
    assert sum(bool(organ.snomed) for organ in TERMS.organs.values()) >= 31


def test_left_and_right_come_in_pairs():
    other = {"left": "right", "right": "left"}
    sided = {name: label for name, label in TERMS.labels.items() if label.laterality}
    assert len(sided) > 100
    for name, label in sided.items():
        assert name.endswith(f"-{label.laterality}"), name
        twin = sided[name.removesuffix(label.laterality) + other[label.laterality]]
        assert (twin.organ, twin.lesion, bool(twin.snomed)) == (label.organ, label.lesion, bool(label.snomed))
    for name, label in TERMS.labels.items():
        assert bool(label.laterality) == bool(re.search(r"-(left|right)$", name)), name


def test_no_name_means_two_labels():
    owners: dict[str, str] = {}
    for name, label in TERMS.labels.items():
        for text in {name, label.title.lower(), *label.synonyms}:
            plain = re.sub(r"[^a-z0-9/]+", " ", text.lower()).strip()
            assert owners.setdefault(plain, name) == name, f"{plain!r}: {owners[plain]} and {name}"


def test_lesions_are_marked():
    for name, label in TERMS.labels.items():
        if re.search(r"tumor|lesion|cyst\b|hemorrhage|polyp|nodule|edema|effusion|infarct", name):
            assert label.lesion, name
    assert not any(
        TERMS.labels[name].lesion for name in ("liver", "optic-disc", "nucleus", "clip", "vertebra-l1")
    )


def test_codes_pass_their_check_digit():
    assert not check_digit_fits("10200005")
    for key, _, code in CODED:
        assert check_digit_fits(code), f"{key}: {code}"


def test_codes_mean_what_the_titles_say():
    meanings = dicom_meanings("SCT")
    for key, title, code in CODED:
        known = meanings.get(code) or {ELSEWHERE[code]}
        if code in MORPHOLOGY and key.startswith("labels."):
            assert MORPHOLOGY[code] in title.lower(), key
            continue
        if {title, *known} & {"Bone", "Body"}:
            assert title in {meaning.replace("Entire body", "Body") for meaning in known}, key
            continue
        stems = {word[:3] for word in words(title)}
        assert stems & {word[:3] for meaning in known for word in words(meaning)}, f"{key}: {code} is {known}"


def test_codes_from_elsewhere_are_used_and_not_in_dicom():
    used = {code for _, _, code in CODED}
    meanings = dicom_meanings("SCT")
    for code in ELSEWHERE:
        assert code in used
        assert code not in meanings


def test_morphologies_are_those_of_dicom():
    meanings = dicom_meanings("SCT")
    for code, word in MORPHOLOGY.items():
        assert any(word[:5] in meaning.lower() for meaning in meanings[code]), code


@pytest.mark.parametrize(
    ("label", "code"),
    [
        ("liver", "10200004"),
        ("spleen", "78961009"),
        ("kidney-left", "64033007"),
        ("kidney-right", "64033007"),
        ("pancreas", "15776009"),
        ("aorta", "15825003"),
        ("inferior-vena-cava", "64131007"),
        ("gallbladder", "28231008"),
        ("urinary-bladder", "89837001"),
        ("prostate", "41216001"),
        ("lung", "39607008"),
        ("heart-atrium-left", "82471001"),
        ("heart-ventricle-right", "53085002"),
        ("brain", "12738006"),
        ("thyroid", "69748006"),
        ("vertebra-t12", "23215003"),
        ("rib-7-left", "24915002"),
        ("subclavian-artery-left", "36765005"),
        ("hip-bone-left", ""),
    ],
)
def test_known_codes(label, code):
    assert TERMS.labels[label].snomed == code


TOTALSEGMENTATOR_IRREGULAR = {
    "thyroid_gland": "thyroid",
    "hip_left": "hip-bone-left",
    "hip_right": "hip-bone-right",
    "clavicula_left": "clavicle-left",
    "clavicula_right": "clavicle-right",
    "iliac_vena_left": "iliac-vein-left",
    "iliac_vena_right": "iliac-vein-right",
    "lung_middle_lobe_right": "lung-middle-lobe",
    "costal_cartilages": "costal-cartilage",
}


TOTALSEGMENTATOR_SIDED = """
adrenal_gland autochthon brachiocephalic_vein clavicula common_carotid_artery femur gluteus_maximus
gluteus_medius gluteus_minimus hip humerus iliac_artery iliac_vena iliopsoas kidney kidney_cyst
lung_lower_lobe lung_upper_lobe scapula subclavian_artery
"""
TOTALSEGMENTATOR_MIDDLE = """
aorta atrial_appendage_left brachiocephalic_trunk brain colon costal_cartilages duodenum esophagus
gallbladder heart inferior_vena_cava liver lung_middle_lobe_right pancreas portal_vein_and_splenic_vein
prostate pulmonary_vein sacrum skull small_bowel spinal_cord spleen sternum stomach superior_vena_cava
thyroid_gland trachea urinary_bladder
"""


def totalsegmentator_classes() -> list[str]:
    """The 117 classes of the task "total" of TotalSegmentator 2 (map_to_binary.py)."""
    levels = ["S1", *(f"L{n}" for n in range(1, 6)), *(f"T{n}" for n in range(1, 13))]
    levels += [f"C{n}" for n in range(1, 8)]
    return [
        *(f"{name}_{side}" for name in TOTALSEGMENTATOR_SIDED.split() for side in ("left", "right")),
        *TOTALSEGMENTATOR_MIDDLE.split(),
        *(f"vertebrae_{level}" for level in levels),
        *(f"rib_{side}_{number}" for side in ("left", "right") for number in range(1, 13)),
    ]


def test_all_classes_of_totalsegmentator_have_a_label():
    classes = totalsegmentator_classes()
    assert len(set(classes)) == len(classes) == 117
    for name in classes:
        rib = re.fullmatch(r"rib_(left|right)_(\d+)", name)
        label = TOTALSEGMENTATOR_IRREGULAR.get(name) or (
            f"rib-{rib[2]}-{rib[1]}"
            if rib
            else name.lower().replace("vertebrae", "vertebra").replace("_", "-")
        )
        assert label in TERMS.labels, name
        sides = {"left", "right"} & set(name.split("_"))
        if label != "lung-middle-lobe":
            assert TERMS.labels[label].laterality == next(iter(sides), ""), name


FAMILIES = {
    "BTCV, AMOS, FLARE, WORD": """
        spleen kidney-left kidney-right gallbladder esophagus liver stomach aorta inferior-vena-cava
        portal-vein-and-splenic-vein pancreas adrenal-gland adrenal-gland-left duodenum urinary-bladder
        prostate-or-uterus colon intestine rectum femoral-head-left""",
    "BraTS": """
        brain-tumor brain-tumor-core brain-tumor-enhancing brain-tumor-necrotic brain-tumor-edema""",
    "ACDC, M&Ms, EMIDEC": """
        heart-ventricle-right myocardium heart-ventricle-left myocardial-infarct no-reflow""",
    "prostate": "prostate prostate-peripheral-zone prostate-transition-zone prostate-cancer",
    "lung": """
        lung-nodule lung-tumor covid-lesion ground-glass-opacity airway pneumothorax pleural-effusion""",
    "endoscopy": "polyp polyp-neoplastic grasper instrument-shaft suture needle",
    "skin, breast, thyroid": "skin-lesion breast-lesion breast-tumor thyroid-nodule",
    "fundus, OCT": """
        optic-disc optic-cup retinal-vessel microaneurysm retinal-hemorrhage hard-exudate soft-exudate
        intraretinal-fluid subretinal-fluid pigment-epithelial-detachment""",
    "microscopy": "nucleus cell gland",
    "brain": "gray-matter white-matter cerebrospinal-fluid stroke-lesion white-matter-hyperintensity",
}


@pytest.mark.parametrize("family", FAMILIES)
def test_labels_of_known_families(family):
    assert set(FAMILIES[family].split()) <= set(TERMS.labels)


def test_instruments_are_no_anatomy():
    assert TERMS.regions[TERMS.region_of("grasper")].group == "other"
