"""``medcurate check``: a source held against its files, and everything that may be off."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import build_kit
import lab
import layouts
import nibabel as nib
import numpy as np
import pytest
from test_layouts import variant
from typer.testing import CliRunner

import medcurate.check.run as check_run
from medcurate.check.findings import Checked
from medcurate.check.run import check, spread
from medcurate.cli.main import app
from medcurate.library import load_source
from medcurate.types import Case


def checked(folder: Path, sample: int = 0, **facts: Any) -> Checked:
    """``check`` of the lab's source with ``facts`` over its own."""
    path = folder / "lab-a.toml"
    value = load_source(str(path)).model_dump(mode="json", exclude_defaults=True) | facts
    build_kit.write_toml(path, value)
    return check(str(path), folder, sample)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lab.write_source(tmp_path, "lab-a", cases=3)
    return tmp_path


def texts(found: Checked, about: str) -> list[str]:
    return [entry.text for entry in found.findings if entry.about == about]


def test_what_is_as_declared_has_no_findings(folder: Path) -> None:
    found = checked(folder, cases=3)
    assert not found.findings
    assert (found.discovered, found.usable, found.read, found.patients) == (3, 3, 3, 3)
    assert set(found.shown) == {"liver", "spleen", "kidney-left"}


def test_a_tree_in_true_layout_passes(tmp_path: Path) -> None:
    source = variant()
    expected = layouts.make(source, tmp_path / source.id)
    path = tmp_path / "layout.toml"
    build_kit.write_toml(path, source.model_dump(mode="json", exclude_defaults=True))
    found = check(str(path), tmp_path, 0)
    assert not found.findings
    assert found.read == len(expected.cases)


def test_a_wrong_declaration_is_told_before_files_are_looked_for(folder: Path) -> None:
    found = checked(folder, labels={"1": "lever"})
    assert "did you mean" in texts(found, "declaration")[0]
    assert not found.read


def test_absent_and_changed_files_are_told(folder: Path) -> None:
    origin = {"by_hand": "register"}
    absent = checked(folder, files=[{"path": "a.zip", "origin": origin}])
    assert "a.zip" in texts(absent, "files")[0]
    (folder / "lab-a/a.zip").write_bytes(b"other")
    changed = checked(folder, files=[{"path": "a.zip", "origin": origin, "sha256": "0" * 64}])
    assert "0" * 64 in texts(changed, "files")[0]


def test_a_folder_in_the_place_of_a_file_is_told(folder: Path) -> None:
    (folder / "lab-a/a.zip").mkdir()
    found = checked(folder, files=[{"path": "a.zip", "origin": {"by_hand": "register"}}])
    assert "lab-a/a.zip: is a folder" in texts(found, "files")[0]


def test_the_option_that_moves_the_folder_is_named_where_files_are_absent(
    folder: Path, tmp_path: Path
) -> None:
    (text,) = texts(check(str(folder / "lab-a.toml"), tmp_path / "data", 0), "files")
    assert text.startswith(f"{folder}: no folder matches")
    assert text.endswith(
        'Files of source "lab-a" were looked for beside its own, as there is no folder '
        f"{tmp_path}/data/lab-a; name the folder above lab-a with --data."
    )
    (folder / "lab-a").rename(folder / "moved")
    (folder / "lab-a").mkdir()
    (text,) = texts(check(str(folder / "lab-a.toml"), folder, 0), "files")
    assert "no folder matches" in text
    assert "--data" not in text


def test_a_pattern_that_misses_is_told(folder: Path) -> None:
    found = checked(folder, case={"pattern": r"(?P<group>q\d+)"})
    assert "does not match 3 of 3" in texts(found, "files")[0]


def test_unpaired_files_errata_without_case_and_counts_are_told(folder: Path) -> None:
    (folder / "lab-a/seg/p1_scan.nii.gz").unlink()
    found = checked(folder, cases=9, errata=[{"case": "p7", "reason": "bad"}])
    assert texts(found, "pairs") == ["p1_scan: UNPAIRED, no label"] or "UNPAIRED" in texts(found, "pairs")[0]
    assert texts(found, "errata") == ['"p7" is no case; ids are like "p0_scan"']
    assert texts(found, "counts") == ["cases = 9 is declared, 3 were found"]


def test_a_mask_in_other_letters_is_told_and_its_case_stays(tmp_path: Path) -> None:
    (tmp_path / "lab-a" / "p1").mkdir(parents=True)
    lab.write_source(tmp_path, "lab-a", cases=1)
    for number, name in enumerate(("ct.nii.gz", "liver.nii.gz", "Spleen.nii.gz")):
        image = np.full((4, 4, 4), min(number, 1), np.uint8)
        nib.save(nib.Nifti1Image(image, np.eye(4)), tmp_path / "lab-a/p1" / name)
    found = checked(
        tmp_path,
        pairings=[
            {
                "kind": "case-folder",
                "options": {"cases": "p*", "image": "ct.nii.gz", "label": "{label}.nii.gz"},
            }
        ],
        label={"reader": "nifti", "decoder": "mask-per-class"},
        labels={"liver": "liver", "spleen": "spleen"},
        case={"pattern": "(?P<case>p[0-9])", "identifiers": "keep"},
    )
    assert (found.discovered, found.usable, found.read) == (2, 1, 1)
    (text,) = texts(found, "pairs")
    assert text.startswith("p1/Spleen.nii.gz: UNPAIRED, its name differs")


def test_a_label_map_that_is_taken_for_the_mask_of_one_class_is_told(folder: Path) -> None:
    found = checked(
        folder,
        pairings=[
            {
                "kind": "paired-folders",
                "options": {
                    "images": "img", "labels": "{label}", "image_suffix": ".nii.gz", "label_suffix": ".nii.gz",
                },
            }
        ],
        label={"reader": "nifti", "decoder": "mask-per-class"},
        labels={"seg": "liver"},
    )  # fmt: skip
    assert found.read == 0
    assert len(texts(found, "case")) == 3
    assert all("BAD_LABEL, values 1, 2, 300 in a file of one class" in text for text in texts(found, "case"))


def test_an_erratum_is_no_finding_where_its_case_is_there(folder: Path) -> None:
    assert not checked(folder, errata=[{"case": "p1_scan", "reason": "bad"}]).findings


def test_undeclared_values_other_geometry_and_bare_cases_are_told(folder: Path) -> None:
    found = checked(folder, labels={"1": "liver", "2": "spleen"})
    assert all("BAD_LABEL" in text for text in texts(found, "case"))
    assert len(texts(found, "case")) == 3
    path = folder / "lab-a/img/p0_scan.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((48, 40, 11), np.int16), np.eye(4)), path)
    path = folder / "lab-a/seg/p1_scan.nii.gz"
    label = nib.load(path)
    nib.save(nib.Nifti1Image(np.zeros(label.shape, np.int16), label.affine), path)
    found = checked(folder, labels={"1": "liver", "2": "spleen", "300": "kidney-left"})
    assert [text.split(",")[0] for text in texts(found, "case")] == [
        "p0_scan: GEOMETRY",
        "p1_scan: no label is shown",
    ]


@pytest.mark.parametrize("error", [MemoryError(), OSError(5, "Input/output error")])
def test_a_case_that_cannot_be_read_here_is_told_and_the_others_are_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    real = check_run.read_labels

    def failing(case: Case, *rest: Any) -> Any:
        if case.id == "p1_scan":
            raise error
        return real(case, *rest)

    monkeypatch.setattr(check_run, "read_labels", failing)
    found = checked(folder)
    assert texts(found, "case") == [f"p1_scan: cannot be read here ({type(error).__name__})"]
    assert found.read == 2


def test_a_label_that_no_case_shows_is_told_when_all_were_read(folder: Path) -> None:
    more = {"1": "liver", "2": "spleen", "300": "kidney-left", "9": "stomach"}
    assert texts(checked(folder, labels=more), "labels") == ["no case shows stomach"]
    assert not texts(checked(folder, sample=2, labels=more), "labels")


def test_a_sample_is_spread_over_all() -> None:
    cases = [Case(source="s", id=str(n), group="g", images=(), labels=()) for n in range(10)]
    assert [case.id for case in spread(cases, 4)] == ["0", "3", "6", "9"]
    assert len(spread(cases, 0)) == len(spread(cases, 99)) == 10
    assert len(spread(cases, 1)) == 1


def test_the_command_exits_with_3_and_tells_json(folder: Path) -> None:
    words = ["check", str(folder / "lab-a.toml"), "--data", str(folder)]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0
    assert "all is as declared" in done.stdout
    (folder / "lab-a/seg/p1_scan.nii.gz").unlink()
    done = CliRunner().invoke(app, [*words, "--json"], catch_exceptions=False)
    assert done.exit_code == 3
    value = json.loads(done.stdout)
    assert value["cases"] == {"declared": None, "discovered": 3, "usable": 2, "read": 2}
    assert [finding["about"] for finding in value["findings"]] == ["pairs"]
