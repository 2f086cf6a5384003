"""From ``medcurate inspect`` to a dataset: what is asked, what is refused until answered, what comes next."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from dicom_kit import series, written
from pydicom.uid import generate_uid
from test_readers_seg import PATIENT, segmentation, store
from typer.testing import CliRunner

from medcurate.cli.main import app
from medcurate.config.source import Source
from medcurate.errors import ConfigError
from medcurate.inspection.digest import PROBLEMS_KEPT, read
from medcurate.inspection.guess import guess
from medcurate.inspection.look import VALUES_LISTED
from medcurate.inspection.patients import groupings, single
from medcurate.inspection.survey import survey
from medcurate.library import ontology, resolve
from medcurate.tables import load_model

NAMES = ("p-01_20240101", "p-01_20240301", "p-02_20240101", "p-03_20240101", "p-03_20240202", "p-04_20240101")


def volumes(root: Path, names: tuple[str, ...] = NAMES, *, last_value: int = 1) -> Path:
    """CT-like pairs; the label 1 is a box, in the second case ``last_value``."""
    rng = np.random.default_rng(0)
    for number, name in enumerate(names):
        label = np.zeros((48, 48, 5), np.uint8)
        label[8:40, 8:40, 1:3] = last_value if number == 1 else 1
        image = rng.integers(-1024, 900, label.shape).astype(np.int16)
        for folder, voxels in (("images", image), ("labels", label)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(voxels, np.diag([0.7, 0.7, 5.0, 1.0])), root / folder / f"{name}.nii.gz")
    return root


def run(*arguments: object):
    return CliRunner().invoke(app, ["inspect", *map(str, arguments)])


# -- patients ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "patients"),
    [
        (NAMES, 4),
        (("a1_L", "a1_R", "a2_L", "a2_R"), 2),
        (("x/1", "x/2", "y/1"), 2),
        (("lab1_a", "lab1_b", "other"), 2),  # one of no such name
        (("c0", "c1", "c2"), None),  # nothing to join
        (("la_001", "la_002"), None),  # all one patient
    ],
)
def test_patterns_that_join_cases_are_proposed(names, patients):
    found = groupings(names)
    assert (len(found[0].patients) if found else None) == patients
    for grouping in found:
        assert re.compile(grouping.pattern).groupindex == {"group": 1}
        assert all(re.search(grouping.pattern, name) for name in names), (
            "a build refuses a pattern that misses one"
        )
        assert sorted(name for cases in grouping.patients.values() for name in cases) == sorted(names)


@pytest.mark.parametrize(("name", "patient"), [("p-01_left", "p-01"), ("a", "a"), ("_x", "_x")])
def test_what_a_pattern_is_shows_on_one_name(name, patient):
    assert single(name).endswith(f"' the patient of {name} is {patient}")
    assert re.search(single(name).split("'")[1], name)


def test_patients_are_asked_with_the_real_names_and_never_assumed(tmp_path):
    root, path = volumes(tmp_path / "lab"), tmp_path / "lab.toml"
    result = run(root, "-o", path)
    assert "these 6 cases are 4 patients: p-01 (p-01_20240101, p-01_20240301), p-03 (" in result.output
    text = path.read_text(encoding="utf-8")
    assert "these 6 cases are 4 patients" in text
    assert "p-01" not in text
    assert load_model(path, Source).case.pattern == "unresolved"
    recipe = tmp_path / "r.toml"
    recipe.write_text(
        'name = "r"\ntitle = "r"\nsources = ["lab.toml"]\n[intensity.default]\nrule = "minmax"\n'
    )
    with pytest.raises(ConfigError) as refused:
        resolve(str(recipe))
    said = str(refused.value).splitlines()
    keys = [line.split(": ")[1] for line in said]
    assert keys == ["modality", "labels.1", "case.pattern"]
    assert said[2].endswith(
        'say which part of a case\'s name is the patient, or "" if every case is another patient'
    )


def test_where_nothing_joins_an_example_is_shown_on_a_real_name(tmp_path):
    told = run(volumes(tmp_path / "lab", ("p-01_a", "p-02_b"))).output
    assert "the patient of p-01_a is p-01\n" in told
    assert 'with "" every case is another patient: 2 patients' in told


def test_questions_name_the_ids_of_the_ontology(tmp_path):
    path = tmp_path / "lab.toml"
    run(volumes(tmp_path / "lab"), "-o", path)
    asked = next(line for line in path.read_text(encoding="utf-8").splitlines() if "which modality" in line)
    assert all(re.search(rf"\b{name}\b", asked) for name in ontology().modalities)


# -- how much was read ---------------------------------------------------------------------------------


def test_a_rare_value_is_found_by_reading_all(tmp_path):
    names = tuple(f"c{number:02d}" for number in range(12))
    root = volumes(tmp_path / "lab", names, last_value=7)
    part, whole = run(root, "-o", tmp_path / "part.toml"), run(root, "--all", "-o", tmp_path / "whole.toml")
    assert "4 of 12 cases read; others may hold more values" in part.output
    assert "12 of 12 cases read\n" in whole.output
    assert "7 (2,048)" in whole.output
    assert "12/12 cases" in whole.output  # progress
    assert list(load_model(tmp_path / "part.toml", Source).labels) == ["1"]
    assert list(load_model(tmp_path / "whole.toml", Source).labels) == ["1", "7"]
    assert f"{11 * 2048} voxels in 12 of 12 cases" in (tmp_path / "whole.toml").read_text(encoding="utf-8")


def test_what_is_kept_of_all_cases_is_bounded(tmp_path):
    """Every case has a problem and label values of its own."""
    names = tuple(f"c{number:02d}" for number in range(30))
    root = volumes(tmp_path / "lab", names)
    for number, name in enumerate(names):
        label = np.full((4, 4, 4), 3 * number, np.int16)
        label[:2], label[2:3] = 3 * number + 1, 3 * number + 2
        nib.save(nib.Nifti1Image(label, np.eye(4)), root / f"labels/{name}.nii.gz")
    digest = read(root, guess(survey(root)), every=True)
    assert (digest.read_count, digest.doubtful_count) == (30, 30)
    assert (len(digest.shown), len(digest.problems)) == (4, PROBLEMS_KEPT)
    assert 3 * len(names) > VALUES_LISTED
    (facts,) = digest.labels
    assert (facts.values, facts.low, facts.high) == (None, 0, 89)
    assert "and 10 more cases with problems" in run(root, "--all").output


# -- what is shown -------------------------------------------------------------------------------------


def test_names_are_whole_in_80_columns(tmp_path, monkeypatch):
    monkeypatch.setattr("medcurate.cli.inspect.PIPE_WIDTH", 80)
    names = tuple(f"a-hospital_patient-{number:04d}_2024" for number in range(3))
    lines = run(volumes(tmp_path / "lab", names)).output.splitlines()
    assert max(map(len, (line for line in lines if line.startswith("│")))) == 80
    for name in names:
        assert any(line.startswith(f"│ {name} ") for line in lines), name


def test_no_folder_and_no_recipe_could_name_it(tmp_path):
    root = volumes(tmp_path / "lab")
    file = root / "images/p-01_20240101.nii.gz"
    assert str(run(file).exception).startswith(f"{file}: is a file")
    assert "ends in .toml" in str(run(root, "-o", tmp_path / "lab.txt").exception)


# -- what comes next -----------------------------------------------------------------------------------


def answer(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    text = text.replace('modality = "unresolved"', 'modality = "ct"').replace(
        '"1" = "unresolved"', '"1" = "liver"'
    )
    text = text.replace('pattern = "unresolved"', "pattern = '^(?P<group>p-[0-9]+)'")
    path.write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("folder", "here", "draft"),
    [
        ("lab", ".", "my.toml"),  # the folder above is --data
        ("lab", "lab", "my.toml"),  # inspected as "."
        ("Liver Study (2024)", ".", "my.toml"),  # no id: the draft moves beside the files
        ("Liver Study (2024)", ".", "Liver Study (2024)/my.toml"),
        ("Liver Study (2024)", "Liver Study (2024)", "my.toml"),
    ],
)
def test_the_printed_commands_build_the_dataset(tmp_path, monkeypatch, folder, here, draft):
    root = volumes(tmp_path / folder)
    monkeypatch.chdir(tmp_path / here)
    told = run("." if here == folder else root.name, "-o", draft).output
    answer(Path(draft))
    lines = told[told.index("Draft written") :].splitlines()
    moves = [shlex.split(line)[1:] for line in lines if line.strip().startswith("mv ")]
    for origin, place in moves:
        shutil.move(origin, place)
    assert bool(moves) == (folder != "lab" and here == "." and "/" not in draft)
    (check,) = (shlex.split(line) for line in lines if line.strip().startswith("medcurate check "))
    checked = CliRunner().invoke(app, check[1:])
    assert checked.exit_code == 0, checked.output
    assert "all is as declared" in checked.output
    at = next(number for number, line in enumerate(lines) if "Write a recipe, say " in line)
    recipe = shlex.split(lines[at].split("say ")[1].rstrip(":"))[0]
    body = lines[at + 1 : next(number for number, line in enumerate(lines) if line.endswith("Build:"))]
    Path(recipe).write_text("\n".join(body), encoding="utf-8")
    command = shlex.split(lines[-1])
    assert command[:4] == ["medcurate", "build", "--recipe", recipe]
    built = CliRunner().invoke(app, [*command[1:], "--engine", "serial", "--workers", "1"])
    assert built.exit_code == 0, (built.output, built.exception)
    assert "12 images and 12 masks" in built.output


# -- which file is the label ---------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [("aorta",), ("aorta", "heart"), ("zones",)])
def test_values_tell_the_image_where_no_name_does(tmp_path, labels):
    """Neither "thorax" nor "aorta" sounds like an image or a label."""
    root, path = tmp_path / "lab", tmp_path / "lab.toml"
    root.mkdir()
    for number in range(3):
        image = np.random.default_rng(number).integers(0, 900, (12, 12, 4)).astype(np.int16)
        nib.save(nib.Nifti1Image(image, np.eye(4)), root / f"p{number}_thorax.nii.gz")
        for name in labels:
            nib.save(
                nib.Nifti1Image((image > 600).astype(np.uint8), np.eye(4)), root / f"p{number}_{name}.nii.gz"
            )
    run(root, "-o", path)
    source = load_model(path, Source)
    assert source.pairings[0].options["image_suffix"] == "_thorax.nii.gz"
    assert list(source.labels) == (["1"] if len(labels) == 1 else list(labels))


# -- labels that are drawn on a DICOM image ------------------------------------------------------------


def segmented(folder: Path, patient: str) -> None:
    """A CT series with a segmentation object of two segments beside it."""
    facts = PATIENT | {
        "PatientID": patient,
        "StudyInstanceUID": generate_uid(),
        "SeriesInstanceUID": generate_uid(),
    }
    voxels = np.random.default_rng(0).integers(-1000, 900, (40, 36, 6)).astype(np.int16)
    planes = series(voxels, **facts)
    for number, plane in enumerate(planes, start=1):
        plane.InstanceNumber = number
    masks = np.zeros((6, 36, 40, 2), bool)
    masks[1:4, 4:20, 4:30, 0] = masks[2:5, 22:34, 4:30, 1] = True
    for name in ("ct", "seg"):
        (folder / patient / name).mkdir(parents=True)
    written(folder / patient / "ct", planes)
    store(folder / patient / "seg" / "1.dcm", segmentation(planes, masks))


def test_a_dicom_series_with_a_segmentation_is_drafted_by_its_segments(tmp_path):
    for patient in ("P0", "P1"):
        segmented(tmp_path / "lab", patient)
    path = tmp_path / "lab.toml"
    assert "liver (1,248), spleen (936)" in run(tmp_path / "lab", "-o", path).output
    text = path.read_text(encoding="utf-8")
    assert "CANARY" not in text
    text = text.replace('modality = "unresolved"', 'modality = "ct"').replace(
        'pattern = "unresolved"', 'pattern = ""'
    )
    for name in ("liver", "spleen"):
        text = text.replace(f'"{name}" = "unresolved"', f'"{name}" = "{name}"')
    path.write_text(text, encoding="utf-8")
    source = load_model(path, Source)
    assert (source.image.reader, source.label.reader, source.label.decoder) == (
        "dicom",
        "dicom-seg",
        "structures",
    )
    checked = CliRunner().invoke(app, ["check", str(path), "--data", str(tmp_path), "--sample", "0"])
    assert checked.exit_code == 0, checked.output
    assert "all is as declared" in checked.output


def test_a_segmentation_that_does_not_fit_is_a_question(tmp_path):
    for patient in ("P0", "P1"):
        segmented(tmp_path / "lab", patient)
    label = tmp_path / "lab/P0/seg/1.dcm"
    label.write_bytes((tmp_path / "lab/P1/seg/1.dcm").read_bytes()[:-900])
    output = run(tmp_path / "lab").output
    assert "P0: label: CORRUPT" in output
    assert "1 of 2: image and label can be read" in output
