"""Small mistakes on a command line: one line that names what was given, and what to give instead."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import lab
import pytest
from typer.testing import CliRunner, Result

from medcurate.cli.main import app
from medcurate.errors import MedcurateError
from medcurate.format.columns import MANIFEST
from medcurate.format.tables import write_table


def told(*words: object) -> str:
    """What a user reads of a command: its error, or its output."""
    done: Result = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exception is None or isinstance(done.exception, SystemExit | MedcurateError), done.exception
    return str(done.exception) if isinstance(done.exception, MedcurateError) else done.output


@pytest.fixture
def own(tmp_path: Path, monkeypatch) -> Path:
    """A folder to work in, with a source and a recipe named by path; the files are in another one, ``raw/own``."""
    monkeypatch.chdir(tmp_path)
    lab.write_source(tmp_path, "own", cases=1)
    (tmp_path / "raw").mkdir()
    (tmp_path / "own").rename(tmp_path / "raw/own")
    lab.write_recipe(tmp_path, "own")
    return tmp_path


VERBS = (
    ("build", "--recipe", "lab-recipe.toml", "--out", "out"),
    ("plan", "--recipe", "lab-recipe.toml"),
    ("check", "own.toml"),
)


@pytest.mark.parametrize("verb", VERBS, ids=[verb[0] for verb in VERBS])
def test_data_that_is_the_source_s_folder_itself_is_named_with_the_one_above(
    own: Path, verb: tuple[str, ...]
) -> None:
    text = told(*verb, "--data", "raw/own")
    assert f"{own}: no folder matches" in text
    assert 'Files of source "own" were looked for beside its own' in text
    assert "there is no folder raw/own/own; --data raw/own is that folder itself" in text
    assert "give the one above it, --data raw." in text
    assert "name the folder above own with --data." in told(*verb, "--data", own)
    (own / "raw/own/img").rename(own / "raw/own/moved")
    text = told(*verb, "--data", "raw")
    assert "no folder matches" in text
    assert "--data" not in text


def test_the_place_of_a_source_is_told_in_full_where_data_is_the_current_folder(
    own: Path, monkeypatch
) -> None:
    monkeypatch.chdir(own / "raw/own")
    text = told("plan", "--recipe", own / "lab-recipe.toml", "--data", ".")
    assert f"--data . is that folder itself: give the one above it, --data {own}/raw." in text


@pytest.mark.parametrize(
    ("option", "verb"),
    [("--memory", VERBS[0]), ("--shard-size", ("pack", "in", "out"))],
    ids=["memory", "shard-size"],
)
def test_a_size_that_is_none_is_told_with_its_option(own: Path, option: str, verb: tuple[str, ...]) -> None:
    assert told(*verb, option, "abc").startswith(f'{option} "abc": is no size; give bytes, or a number with')


def test_a_build_into_a_file_is_refused_and_leaves_nothing(own: Path) -> None:
    (own / "out").write_text("mine")
    before = sorted(own.rglob("*"))
    assert told(*VERBS[0], "--data", "raw") == f"{own}/out: is a file. Give a new folder."
    assert sorted(own.rglob("*")) == before


def test_one_finding_is_told_in_the_singular(own: Path) -> None:
    told(*VERBS[0], "--data", "raw", "--engine", "serial")
    (own / "out/stray").touch()
    text = told("verify", own / "out", "--engine", "serial")
    assert f"{own}/out: 1 problem\n" in text


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    """A manifest without a row, and no dataset around it."""
    path = tmp_path_factory.mktemp("lone") / "manifest.parquet"
    write_table(path, MANIFEST, [])
    return path


def test_a_lone_manifest_names_the_only_table_that_it_has(table: Path) -> None:
    text = told("query", table, "SELECT * FROM rejects")
    assert text.endswith("(tables here: manifest; give the dataset's folder for its others)")


@pytest.mark.parametrize("name", ["s.png", "s", "s.htm.txt"])
def test_a_page_is_written_to_a_name_of_pages_alone(table: Path, tmp_path: Path, name: str) -> None:
    text = told("stats", table, "--html", tmp_path / name)
    assert text == f"--html {tmp_path / name}: the page is written as HTML; end the name in .html"
    assert not list(tmp_path.iterdir())


def test_a_dataset_behind_plain_http_is_refused_with_the_remedy() -> None:
    text = told("query", "http://example.org/data", "SELECT 1")
    assert "http://example.org/data: over http:// anybody" in text
    assert "give the https:// address, or copy the dataset here." in text


@pytest.mark.parametrize("verb", ["build --recipe quickstart --out", "stats", "query", "verify", "inspect"])
def test_a_path_that_is_no_utf_8_is_refused_in_one_line(verb: str, tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/K\xf6ln"
    os.mkdir(folder)
    done = subprocess.run(
        [*lab.medcurate(*verb.split()), folder], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "K\\udcf6ln': is not UTF-8" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not os.listdir(folder)


def test_a_command_in_a_folder_that_is_no_utf_8_or_gone_is_refused_in_one_line(tmp_path: Path) -> None:
    odd, gone = os.fsencode(tmp_path) + b"/K\xf6ln", tmp_path / "gone"
    os.mkdir(odd)
    gone.mkdir()
    shell = ["sh", "-c", 'rmdir "$0" && exec "$@"', str(gone), *lab.medcurate("stats", "x")]
    for folder, command, told in (
        (odd, lab.medcurate("stats", "x"), "K\\udcf6ln': is not UTF-8"),
        (gone, shell, "the folder that this command is started in is gone"),
    ):
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (1, "")
        assert told in done.stderr
        assert done.stderr.count("\n") == 1
