"""The verbs ``sources``, ``recipes`` and ``terms``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib

import pytest
from typer.testing import CliRunner

from medcurate.cli.main import app
from medcurate.config.recipe import Recipe
from medcurate.library import (
    load_recipe,
    load_source,
    ontology,
    recipe_names,
    recipe_sha256,
    resolve,
    source_ids,
)
from medcurate.tables import check_model


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_sources_lists_every_source_with_its_licence():
    text = run("sources")
    for name in source_ids():
        line = next(line for line in text.splitlines() if line.strip().startswith(f"{name} "))
        assert load_source(name).licence.id in line


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--modality", "pet"], {"autopet-2", "sa-med2d-20m-pet"}),
        (["--modality", "oct", "--access", "agreement"], {"retouch"}),
    ],
)
def test_sources_are_chosen_by_modality_and_access(options, expected):
    assert {entry["id"] for entry in json.loads(run("sources", "--json", *options))} == expected
    lines = [line.split() for line in run("sources", *options).splitlines()]
    assert {words[0] for words in lines if words} & set(source_ids()) == expected


def test_a_modality_or_access_that_is_none_is_refused_with_the_known_ones():
    result = CliRunner().invoke(app, ["sources", "--modality", "mri"])
    assert '--modality: "mri" is none of ct, dermoscopy' in str(result.exception)
    result = CliRunner().invoke(app, ["sources", "--access", "free"])
    assert "is none of agreement, kaggle, open" in str(result.exception)


def test_sizes_and_digests_are_told_as_far_as_they_are_known():
    listed = {entry["id"]: entry for entry in json.loads(run("sources", "--json"))}
    liver = listed["msd-task03-liver"]["files"]
    assert liver == {"count": 1, "by_hand": 0, "digests": 1, "sizes": 1, "size_bytes": 28_925_891_584}
    assert listed["synthetic-ct-phantom"]["files"]["count"] == 0  # made here: nothing travels
    rows = {words[0]: words for line in run("sources").splitlines() if len(words := line.split()) > 5}
    assert rows["msd-task03-liver"][-3:] == ["28.9", "GB", "1/1"]
    assert rows["msd-task09-spleen"][-2:] == ["?", "1/1"]
    assert rows["synthetic-ct-phantom"][-2:] == ["-", "-"]


def test_sources_fit_into_a_terminal_of_100_columns(monkeypatch):
    """Without titles, ids whole: a narrow terminal folds licences at most."""
    monkeypatch.setattr("medcurate.cli.tables.PIPE_WIDTH", 100)
    lines = run("sources").splitlines()
    assert max(map(len, lines)) <= 100
    assert all(any(line.startswith(f" {name} ") for line in lines) for name in source_ids())
    assert "title" not in lines[1]


def test_sources_as_json():
    listed = json.loads(run("sources", "--json"))
    assert [entry["id"] for entry in listed] == list(source_ids())
    phantom = next(entry for entry in listed if entry["id"] == "synthetic-ct-phantom")
    assert phantom["synthetic"] is True
    assert "liver-lesion" in phantom["labels"]


@pytest.mark.parametrize("name", source_ids())
def test_show_tells_licence_labels_and_every_file(name):
    source = load_source(name)
    text = run("sources", "show", name)
    assert source.title in text
    assert source.licence.id in text
    assert source.citation in text
    for label in source.labels.values():
        assert label in text
    for file in source.files:
        assert file.path in text


def test_show_tells_ontology_terms():
    row = next(
        line for line in run("sources", "show", "synthetic-ct-phantom").splitlines() if "kidney-left" in line
    )
    assert row.split() == ["4", "kidney-left", "left", "kidney", "abdomen", "abdomen", "64033007"]
    shown = json.loads(run("sources", "show", "synthetic-ct-phantom", "--json"))
    assert shown["labels"]["7"] == {
        "label": "liver-lesion",
        "title": "Liver lesion",
        "laterality": "",
        "organ": "liver",
        "region": "abdomen",
        "group": "abdomen",
        "lesion": True,
        "snomed": "52988006",
    }


def test_show_reads_a_source_of_ones_own(tmp_path):
    """A draft with a label that is not in the ontology yet is shown, not refused; [x] is no markup."""
    text = (
        'id = "own"\ntitle = "Mine [bold]"\nhomepage = ""\ncitation = ""\nmodality = "ct"\ndimensions = 3\n'
        'licence = { id = "unresolved", commercial = "unknown" }\npairings = [{ kind = "flat-suffix" }]\n'
        'image = { reader = "nifti" }\nlabel = { reader = "nifti", decoder = "index" }\n'
        'labels = { 1 = "[b]" }\n'
        'files = [{ path = "[i].nii", origin = { by_hand = "ask" } }]\n'
    )
    path = tmp_path / "own.toml"
    path.write_text(text, encoding="utf-8")
    shown = run("sources", "show", str(path))
    assert "Mine [bold]" in shown
    assert "[b]" in shown
    assert "[i].nii" in shown
    assert "by hand: ask" in shown
    assert json.loads(run("sources", "show", str(path), "--json"))["labels"] == {"1": {"label": "[b]"}}


def test_recipes_lists_every_recipe():
    text = run("recipes")
    for name in recipe_names():
        assert name in text
    assert [entry["name"] for entry in json.loads(run("recipes", "--json"))] == list(recipe_names())


@pytest.mark.parametrize("name", recipe_names())
def test_a_shown_recipe_is_that_recipe_again(name):
    text = run("recipes", "show", name)
    assert check_model(tomllib.loads(text), Recipe, name) == load_recipe(name)
    assert recipe_sha256(resolve(name)) in text.splitlines()[0]


def test_a_shown_recipe_as_json_is_complete():
    shown = json.loads(run("recipes", "show", "quickstart", "--json"))
    assert shown["sha256"] == recipe_sha256(resolve("quickstart"))
    assert [source["id"] for source in shown["sources"]] == shown["recipe"]["sources"]
    assert "liver" in shown["ontology"]["labels"]


def call(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_a_misspelt_source_ends_in_one_line():
    code = "import sys; from medcurate.cli.main import run; sys.argv[1:] = ['sources', 'show', 'mni']; run()"
    done = call(code)
    assert done.returncode == 1
    assert done.stderr.startswith('error: source "mni" is unknown')
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "first"),
    [
        (("hepatic lesion",), "liver-lesion"),  # an adjective
        (("Brain Tumour",), "brain-tumor"),  # a synonym, in any case
        (("left kidney",), "kidney-left"),  # words in any order
        (("hepat",), "hepatic-vessel"),
        (("81745001",), "eye"),  # a SNOMED CT code
        (("us", "--kind", "modalities"), "ultrasound"),  # DICOM's code, before "fundus", which holds it
        (("t1", "--kind", "sequences"), "t1"),
        (("spleen", "--kind", "organs"), "spleen"),
        (("head", "--kind", "regions"), "head"),
    ],
)
def test_terms_are_found_by_what_people_write(arguments, first):
    found = json.loads(run("terms", *arguments, "--json"))
    assert found[0]["id"] == first
    lines = [line.split() for line in run("terms", *arguments).splitlines()]
    assert first in [words[0] for words in lines if words]


def test_terms_lists_all_of_a_kind_with_their_facts():
    for kind in ("labels", "modalities", "sequences", "organs", "regions"):
        listed = json.loads(run("terms", "--kind", kind, "--json"))
        assert [entry["id"] for entry in listed] == list(getattr(ontology(), kind))
    row = next(line for line in run("terms", "gray-matter").splitlines() if line.startswith(" gray-matter"))
    words = "gray-matter Gray matter of the brain brain head 389081007 grey matter, gm"
    assert " ".join(row.split()) == words


def test_a_term_that_is_not_there():
    result = CliRunner().invoke(app, ["terms", "livre"])
    assert str(result.exception).endswith('(did you mean "liver"?)')
    result = CliRunner().invoke(app, ["terms", "dermoscopy"])
    assert "found with --kind modalities" in str(result.exception)
    assert json.loads(run("terms", "livre", "--json")) == []


@pytest.mark.parametrize("verb", ["sources", "recipes", "terms"])
def test_listing_loads_nothing_heavy(verb):
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom medcurate.cli.main import app\n"
        f"assert CliRunner().invoke(app, ['{verb}', '--json']).exit_code == 0\n"
        "heavy = {'numpy', 'torch', 'polars', 'pyarrow', 'nibabel', 'cv2', 'pydicom', 'duckdb'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert call(code).stdout.strip() == "[]"


def test_a_terminal_without_unicode_shows_the_whole_table():
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "60"}
    done = subprocess.run(
        [sys.executable, "-m", "medcurate", "sources"], env=environment, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"{len(source_ids())} sources".encode() in done.stdout
