"""The SA-Med2D-20M release as a source: from its folder, its zip and the parts of its zip."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import build_kit as kit
import lab
import layouts
import numpy as np
import pytest
import sa_med2d_kit as release_kit
from layouts.proof import built_here, check
from layouts.release_shapes import with_classes
from sa_med2d_kit import PICTURES, mask_of, release, source, write_png, zipped

from medcurate.check.run import check as check_source
from medcurate.errors import ConfigError, DataMissing
from medcurate.library import load_source, resolve
from medcurate.pairings import sa_med2d, sa_med2d_demo
from medcurate.pairings.found import Names

CT = {"modalities": ["ct_00"], "leave_out": ["*/union_*"]}
CT_LABELS = {"liver": "liver", "AbdomenCT1K/kidney": "kidney"}
ALL_LEFT_OUT = ["AbdomenCT1K", "ACDC", "CrossMoDA*", "BraTS*", "Brain_PTM", "ichallenge_adam_task2"]


def found(root: Path, labels: dict[str, str], **options: object) -> list:
    names = Names(labels=tuple(labels))
    chosen = sa_med2d.Options(folder="SAMed2Dv1", **options)
    return list(sa_med2d.find(root, chosen, names))


def names_of(entries: list) -> list[str]:
    return [entry.name for entry in entries]


def test_every_picture_of_the_chosen_part_with_its_masks(tmp_path):
    release(tmp_path)
    entries = found(tmp_path, CT_LABELS, **CT)
    assert names_of(entries) == [stem for stem, _ in PICTURES[:4] if not stem.endswith("z_0002")] + [
        PICTURES[3][0]
    ]
    first = entries[0]
    assert [label.label for label in first.labels] == ["liver", "AbdomenCT1K/kidney", "AbdomenCT1K/kidney"]
    assert [path.name for label in first.labels for path in label.paths] == [
        f"{first.name}--{end}.png" for end in ("0000_000", "0001_000", "0001_001")
    ]
    assert {entry.group for entry in entries} == {"AbdomenCT1K/Case_00011", "AbdomenCT1K/Case_00012"}
    assert not any(entry.problem for entry in entries)


def test_a_class_that_nobody_decided_on_is_told(tmp_path):
    release(tmp_path)
    with pytest.raises(ConfigError, match=r"1 classes .* neither .*: AbdomenCT1K/union_liver_kidney\."):
        found(tmp_path, CT_LABELS, modalities=["ct_00"])
    with pytest.raises(ConfigError, match="ACDC/#3, ACDC/rv"):  # 3 is in no map
        found(tmp_path, {"myo": "myocardium"}, datasets=["ACDC"])


def test_a_class_number_of_one_dataset_says_nothing_about_another(tmp_path):
    release(tmp_path)
    labels = {"ACDC/rv": "heart", "ACDC/myo": "myocardium", "liver": "liver", "AbdomenCT1K/kidney": "kidney"}
    leave_out = ["*/union_*", "ACDC/#3", *ALL_LEFT_OUT[2:]]
    entries = found(tmp_path, labels, leave_out=leave_out)
    by_name = {entry.name: [label.label for label in entry.labels] for entry in entries}
    assert by_name["mr_cmr--ACDC--patient001_frame01--z_0003"] == ["ACDC/rv", "ACDC/myo"]
    assert by_name["ct_00--AbdomenCT1K--Case_00011--y_0007"] == ["liver"]
    assert len(entries) == 4


def test_patients_are_the_same_over_axes_sequences_and_years(tmp_path):
    release(tmp_path)
    pattern = {"pattern": r"Brats\d\d_(?P<group>.+)_t\d", "namespace": "brats"}
    rules = {"BraTS2018": pattern, "BraTS2020": pattern} | {
        f"CrossMoDA2{year}": {"pattern": r"crossmoda_(?P<group>\d+)", "namespace": "crossmoda"}
        for year in (1, 2)
    }
    keep = {"whole_tumor": "brain", "cochlea": "cochlea"}
    entries = found(tmp_path, keep, modalities=["mr_t1", "mr_t2"], leave_out=["Brain_PTM"], patients=rules)
    assert [entry.group for entry in entries] == [
        "brats/TCIA_1_1",
        "crossmoda/1",
        "crossmoda/1",
        "brats/TCIA_1_1",
    ]
    with pytest.raises(
        ConfigError, match=r'patients\.BraTS2018\.pattern .* does not match the case "Brats18'
    ):
        found(tmp_path, keep, datasets=["BraTS2018"], patients={"BraTS2018": {"pattern": "(?P<group>x)"}})


@pytest.mark.parametrize(
    ("part", "stems", "patients"),
    [
        (
            "dermoscopy",
            [f"dermoscopy_00--isic20{year}_task1--ISIC_0000019--2d_none" for year in (16, 17, 18)],
            ["isic/ISIC_0000019"] * 3,
        ),
        (
            "ct",
            ["ct_00--VerSe19--sub-verse401_split-verse253--z_0001", "ct_00--VerSe20--sub-verse401--x_0002"],
            ["verse/sub-verse401"] * 2,
        ),
        (
            "ct",
            [
                "ct_00--COVID-19-20--volume-covid19-A-0003--z_0001",
                "ct_00--CTSpine1K_Full--liver_12--z_0001",
                "ct_00--CTSpine1K_Full--volume-covid19-A-0003_ct--z_0001",
                "ct_00--MSD_Liver--liver_12--y_0001",
            ],
            [f"ctspine1k/{name}" for name in ("volume-covid19-A-0003", "liver_12") * 2],
        ),
        (
            "mr",
            [
                f"mr_t2w--picai_{label}--10000_100000{study}--z_0001"
                for study, label in enumerate(("baseline", "semi"))
            ],
            ["picai/10000"] * 2,
        ),
    ],
)
def test_patients_that_the_release_names_alike_are_one_in_the_packaged_sources(
    tmp_path, part, stems, patients
):
    root = tmp_path / "SAMed2Dv1"
    classes = {}
    for stem in stems:
        classes[stem.split("--")[1]] = {"liver": 0}
        for place in (f"images/{stem}.png", f"masks/{stem}--0000_000.png"):
            write_png(root / place, np.zeros((4, 4), np.uint8))
    (root / "SAMed2D_v1_class_mapping_id.json").write_text(json.dumps(classes))
    (pairing,) = load_source(f"sa-med2d-20m-{part}").pairings
    entries = sa_med2d.find(tmp_path, sa_med2d.Options(**pairing.options), Names(labels=("liver",)))
    assert {entry.name: entry.group for entry in entries} == dict(zip(stems, patients, strict=True))


@pytest.mark.parametrize(
    ("part", "kept", "repeated"),
    [("ct", "ct_00--AbdomenCT1K", "ct_00--FLARE21"), ("mr", "mr_t1--BraTS2021", "mr_t1--BrainTumour")],
)
def test_what_the_release_holds_twice_is_read_once_in_the_packaged_sources(tmp_path, part, kept, repeated):
    root = tmp_path / "SAMed2Dv1"
    stems = [f"{start}--a_0001--z_0001" for start in (kept, repeated)]
    for stem in stems:
        for place in (f"images/{stem}.png", f"masks/{stem}--0000_000.png"):
            write_png(root / place, np.zeros((4, 4), np.uint8))
    classes = {stem.split("--")[1]: {"liver": 0} for stem in stems}
    (root / "SAMed2D_v1_class_mapping_id.json").write_text(json.dumps(classes))
    (pairing,) = load_source(f"sa-med2d-20m-{part}").pairings
    entries = sa_med2d.find(tmp_path, sa_med2d.Options(**pairing.options), Names(labels=("liver",)))
    assert [entry.name for entry in entries] == stems[:1]


def test_what_lacks_its_partner_is_told(tmp_path):
    root = release(tmp_path)
    stem = PICTURES[1][0]
    (root / "images" / f"{stem}.png").unlink()
    write_png(root / "images" / "ct_00--AbdomenCT1K--Case_00099--z_0001.png", np.zeros((9, 9), np.uint8))
    write_png(root / "images" / "ct_00--AbdomenCT1K.png", np.zeros((9, 9), np.uint8))
    write_png(root / "masks" / f"{PICTURES[0][0]}--odd.png", np.zeros((9, 9), np.uint8))
    problems = {entry.name: entry.problem for entry in found(tmp_path, CT_LABELS, **CT) if entry.problem}
    assert problems == {
        stem: "label without image",
        "ct_00--AbdomenCT1K--Case_00099--z_0001": "image without label",
        PICTURES[0][0]: "a mask's name does not end in class and instance",
        "ct_00--AbdomenCT1K": "its name has not the four parts that the release's names have",
    }


def test_an_empty_folder_and_a_damaged_map_are_told(tmp_path):
    (tmp_path / "SAMed2Dv1").mkdir()
    with pytest.raises(DataMissing, match="holds no pictures"):
        found(tmp_path, CT_LABELS)
    root = release(tmp_path)
    (root / "SAMed2D_v1_class_mapping_id.json").write_text("[1, 2")
    with pytest.raises(ConfigError, match="not a class map"):
        found(tmp_path, CT_LABELS)
    (root / "SAMed2D_v1_class_mapping_id.json").write_text("[" * 100_000)
    with pytest.raises(ConfigError, match="not a class map"):
        found(tmp_path, CT_LABELS)


def test_a_link_to_what_is_not_there_costs_its_picture_alone(tmp_path):
    root = release(tmp_path)
    path = root / "images" / f"{PICTURES[0][0]}.png"
    path.unlink()
    path.symlink_to("elsewhere.png")
    problems = {entry.name: entry.problem for entry in found(tmp_path, CT_LABELS, **CT) if entry.problem}
    assert problems == {PICTURES[0][0]: "a link leads to a file that is not there"}


IN_PLACE = {"into": "SAMed2Dv1", "strip": 1, "in_place": True}


def files_of(unpack: dict) -> list[dict]:
    return [{"path": "SA-Med2D-16M.zip", "origin": {"by_hand": "Get it."}, "unpack": unpack}]


def built_from(tmp_path: Path, way: str) -> kit.Dataset:
    """The CT part and the fundus part of the release, read in one of several ways."""
    lab_folder = tmp_path / way
    facts = {}
    for part in ("release-ct", "release-fundus"):
        data = lab_folder / part
        data.mkdir(parents=True)
        root = release(data)
        if way != "folder":
            zipped(root, data / "SA-Med2D-16M.zip")
            shutil.rmtree(root)
            facts = {"files": files_of(IN_PLACE | {"in_place": way == "in place"})}
        if way == "parts":
            facts = split(data)
    source(lab_folder, "release-ct", CT, CT_LABELS, **facts)
    inverted = {"reader": "raster", "decoder": "mask-per-class", "options": {"inverted_labels": ["disc"]}}
    options = {"datasets": ["ichallenge_adam_task2"]}
    labels = {"disc": "optic-disc"}
    source(lab_folder, "release-fundus", options, labels, label=inverted, modality="fundus", **facts)
    recipe = kit.write_recipe(lab_folder, ["release-ct", "release-fundus"])
    return kit.built(recipe, lab_folder / "out", code=3)


def split(data: Path) -> dict:
    """The zip as parts, as Info-ZIP splits it."""
    subprocess.run(["zip", "-q", "-s", "64k", "SA-Med2D-16M.zip", "--out", "s.zip"], cwd=data, check=True)
    (data / "SA-Med2D-16M.zip").unlink()
    (data / "s.zip").rename(data / "SA-Med2D-16M.zip")
    parts = sorted(path.name for path in data.glob("s.z[0-9]*"))
    by_hand = {"by_hand": "Get it."}
    unpack = IN_PLACE | {"parts": parts}
    return {"files": files_of(unpack) + [{"path": name, "origin": by_hand} for name in parts]}


@pytest.fixture(scope="module")
def from_folder(tmp_path_factory):
    return built_from(tmp_path_factory.mktemp("release"), "folder")


def test_a_build_keeps_overlaps_and_leaves_out_what_is_declared(from_folder):
    assert from_folder.reasons("release-ct") == {PICTURES[3][0]: "GEOMETRY"}  # a mask of another shape
    rows = [row for row in from_folder.of("release-ct") if row["case"] == PICTURES[0][0]]
    assert [row["label"] for row in rows] == ["liver", "kidney", "kidney"]
    masks = from_folder.masks(rows[0])
    assert {mask.tobytes() for mask in masks} == {
        mask_of(*place).tobytes() for place in ((0, 0), (1, 0), (1, 1))
    }
    assert (masks[0] & (masks[1] | masks[2])).any()
    assert {row["group"] for row in rows} == {"sa-med2d:AbdomenCT1K/Case_00011"}


BY_NAME = {"reader": "raster", "decoder": "mask-per-class", "vocabulary": "ontology"}


def test_classes_are_what_the_release_calls_them_and_the_rest_keeps_its_name(tmp_path):
    folder = tmp_path / "lab"
    (folder / "all").mkdir(parents=True)
    release(folder / "all")
    options = {"leave_out": ["*/union_*", "ACDC/#3", *ALL_LEFT_OUT[2:]]}
    source(folder, "all", options, {"ACDC/rv": "heart-ventricle-right"}, label=BY_NAME)
    dataset = kit.built(kit.write_recipe(folder, ["all"]), folder / "out", code=3)
    rows = {(row["label"], row["organ"], row["region"]) for row in dataset.of("all")}
    assert rows == {
        ("liver", "liver", "abdomen"),
        ("kidney", "kidney", "abdomen"),
        ("heart-ventricle-right", "heart", "thorax"),  # declared
        ("unmapped:myo", "", ""),
    }
    told = lab.command(folder / "recipe.toml", folder / "again")
    said = subprocess.run(told, capture_output=True, text=True, timeout=120).stderr
    assert "classes: source all, named 5, unmapped 2, lv, myo" in said


def test_classes_of_other_modalities_are_neither_told_nor_missed(tmp_path, capfd):
    """The map of the release names those of all modalities and says of none which it is of."""
    folder = tmp_path / "lab"
    (folder / "mr").mkdir(parents=True)
    release(folder / "mr")
    options = {"modalities": ["mr_cmr", "mr_t1"], "leave_out": ["ACDC/#3", "Brain_PTM"]}
    source(folder, "mr", options, {"whole_tumor": "brain-tumor"}, label=BY_NAME)
    checked = check_source(str(folder / "mr.toml"), folder, sample=0)
    assert "classes: source mr, named 6, unmapped 3, lv, myo, rv" in capfd.readouterr().err
    assert [finding.text for finding in checked.findings] == ["no case shows unmapped:lv"]


def test_the_packaged_recipe_takes_the_release_as_it_is(tmp_path):
    """All eight modalities; grey pictures and colours keep their bytes, masks their number."""
    resolved = resolve("sa-med2d-20m")
    expected = {
        each.id: layouts.make(with_classes(each), tmp_path / "data" / each.id) for each in resolved.sources
    }
    dataset = built_here("sa-med2d-20m", tmp_path)
    for each in resolved.sources:
        check(each, expected[each.id], dataset)
    (row, *_) = dataset.of("sa-med2d-20m-xray")
    assert (row["intensity_low"], row["intensity_high"]) == (None, None)


def test_another_name_in_the_release_is_another_dataset(tmp_path):
    """Labels that come from the data decide bytes as declared ones do."""
    folder = tmp_path / "lab"
    (folder / "all").mkdir(parents=True)
    root = release(folder / "all")
    options = {"datasets": ["ACDC"], "leave_out": ["ACDC/#3"]}
    source(folder, "all", options, {}, label=BY_NAME, modality="mr")
    recipe = kit.write_recipe(folder, ["all"])
    first = {row["label"] for row in kit.built(recipe, folder / "out").of("all")}
    renamed = json.loads((root / "SAMed2D_v1_class_mapping_id.json").read_text())
    renamed["ACDC"] = {"spleen": 0, "myo": 1}
    (root / "SAMed2D_v1_class_mapping_id.json").write_text(json.dumps(renamed))
    second = {row["label"] for row in kit.built(recipe, folder / "second").of("all")}
    assert (first, second) == ({"unmapped:rv", "unmapped:myo"}, {"spleen", "unmapped:myo"})


def test_only_a_pairing_with_a_table_of_classes_may_leave_labels_to_it(tmp_path):
    facts = {
        "modality": "ct",
        "pairings": [{"kind": "flat-suffix", "options": {"image_suffix": ".png", "label_suffix": "_m.png"}}],
        "image": {"reader": "raster"},
        "label": {"reader": "raster", "decoder": "index", "vocabulary": "ontology"},
        "labels": {},
    }
    kit.write_source(tmp_path, "plain", **facts)
    recipe = kit.write_recipe(tmp_path, ["plain"])
    assert (
        "knows no table in which a set names its classes" in lab.build(recipe, tmp_path / "o", code=1).stderr
    )
    kit.write_source(tmp_path, "plain", **facts | {"label": {"reader": "raster", "decoder": "index"}})
    assert "labels: name at least one" in lab.build(recipe, tmp_path / "o", code=1).stderr


def test_an_inverted_mask_is_turned_back(from_folder):
    (row,) = from_folder.of("release-fundus")
    assert (from_folder.masks(row)[0] == mask_of(0, 0)).all()


def check_equal(dataset: kit.Dataset, other: kit.Dataset) -> None:
    """All bytes but those of dataset.json, which names the files that were fetched."""
    mine, theirs = (lab.digests(each.folder) for each in (dataset, other))
    del mine["dataset.json"], theirs["dataset.json"]
    assert mine == theirs


def test_the_zip_read_in_place_gives_the_same_bytes_and_is_not_read_again(from_folder, tmp_path):
    check_equal(built_from(tmp_path, "in place"), from_folder)
    folder = tmp_path / "in place"
    inner = folder / "release-ct" / "SAMed2Dv1"
    assert sorted(path.name for path in inner.iterdir()) == [".unpacked.json", ".zip-index"]
    before = lab.digests(folder / "out")
    lab.build(folder / "recipe.toml", folder / "out", code=3)
    assert lab.digests(folder / "out") == before
    archive = folder / "release-ct" / "SA-Med2D-16M.zip"
    damaged = bytearray(archive.read_bytes())
    damaged[damaged.index(PICTURES[1][0].encode()) + 500] ^= 1
    archive.write_bytes(damaged)
    assert "SA-Med2D-16M.zip" in lab.build(folder / "recipe.toml", folder / "out", code=1).stderr


@pytest.mark.skipif(not shutil.which("zip"), reason="needs Info-ZIP")
def test_its_parts_read_in_place_give_the_same_bytes(from_folder, tmp_path):
    check_equal(built_from(tmp_path, "parts"), from_folder)


def test_a_damaged_member_costs_its_case_alone(tmp_path):
    folder = tmp_path / "lab"
    data = folder / "release-ct"
    root = release(data)
    archive = zipped(root, data / "SA-Med2D-16M.zip")
    shutil.rmtree(root)
    content = bytearray(archive.read_bytes())
    at = content.index(f"images/{PICTURES[1][0]}.png".encode())
    content[at + 300] ^= 1
    archive.write_bytes(content)
    source(folder, "release-ct", CT, CT_LABELS, files=files_of(IN_PLACE))
    dataset = kit.built(kit.write_recipe(folder, ["release-ct"]), tmp_path / "out", code=3)
    assert dataset.reasons("release-ct") == {PICTURES[1][0]: "CORRUPT", PICTURES[3][0]: "GEOMETRY"}
    assert "archive" in dataset.refused("release-ct", case=PICTURES[1][0])[0]["detail"]


def demo(folder: Path) -> Path:
    """The layout of SAM-Med2D's demo data."""
    table, inverse = {}, {}
    for number, stem in enumerate(["amos_0004_75", "s0114_111"]):
        write_png(folder / "images" / f"{stem}.png", np.full((40, 50), number, np.uint8))
        for name in ("liver_000", "liver_001", "left_kidney_000"):
            write_png(folder / "masks" / f"{stem}_{name}.png", np.eye(40, 50, dtype=np.uint8) * 255)
        masks = [
            f"data_demo/masks/{stem}_{name}.png" for name in ("liver_001", "left_kidney_000", "liver_000")
        ]
        table[f"data_demo/images/{stem}.png"] = masks
        inverse |= dict.fromkeys(masks, f"data_demo/images/{stem}.png")
    (folder / "image2label_train.json").write_text(json.dumps(table))
    (folder / "label2image_test.json").write_text(json.dumps(inverse))
    return folder


@pytest.mark.parametrize("table", ["image2label_train.json", "label2image_test.json"])
def test_the_training_layout_by_either_of_its_tables(table, tmp_path):
    demo(tmp_path)
    names = Names(labels=("liver", "left_kidney"))
    entries = list(sa_med2d_demo.find(tmp_path, sa_med2d_demo.Options(table=table), names))
    assert names_of(entries) == ["amos_0004_75", "s0114_111"]
    assert [label.label for label in entries[0].labels] == ["liver", "liver", "left_kidney"]
    assert entries[0].labels[0].paths == (Path("masks/amos_0004_75_liver_000.png"),)
    assert not entries[0].problem


def test_the_training_layout_tells_of_classes_and_missing_files(tmp_path):
    demo(tmp_path)
    options = sa_med2d_demo.Options(leave_out=("left_*",))
    names = Names(labels=("liver",))
    (tmp_path / "masks" / "s0114_111_liver_000.png").unlink()
    entries = list(sa_med2d_demo.find(tmp_path, options, names))
    assert [len(entry.labels) for entry in entries] == [2, 2]
    assert [entry.problem for entry in entries] == ["", "a file that the table names is not there"]
    with pytest.raises(ConfigError, match=r"neither in \[labels\] nor in leave_out: left_kidney"):
        list(sa_med2d_demo.find(tmp_path, sa_med2d_demo.Options(), names))


@pytest.mark.parametrize("table", ['{"images/a.png": ["images/../../x"]}', '{"a": 3}', "[]", "{"])
def test_a_bad_table_is_told(table, tmp_path):
    (tmp_path / "image2label_train.json").write_text(table)
    with pytest.raises(ConfigError):
        list(sa_med2d_demo.find(tmp_path, sa_med2d_demo.Options(), Names(labels=("x",))))


def test_only_a_source_without_channels_can_be_the_release(tmp_path):
    with pytest.raises(ConfigError, match="channels"):
        next(sa_med2d.find(tmp_path, sa_med2d.Options(), Names(channels=("t1",), components=(None,))))
    assert release_kit.LABELS
