"""What is written about medcurate is what medcurate does."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import typer.main

from medcurate.cli.main import app
from medcurate.errors import Reason
from medcurate.format.columns import MANIFEST, REJECTS

ROOT = Path(__file__).parents[1]
VERBS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_has_help_and_stands_in_the_readme(verb: str) -> None:
    assert VERBS[verb].help
    assert f"medcurate {verb}" in text("README.md")


@pytest.mark.parametrize(
    "name", ["README.md", "CONTRIBUTING.md", "docs/format.md", "docs/benchmarks.md", "docs/scale.md"]
)
def test_commands_in_the_documents_exist_with_their_options(name: str) -> None:
    for verb, rest in re.findall(r"medcurate ([a-z]+)([^\n`]*)", "\n".join(_code(text(name)))):
        assert verb in VERBS, f"{name}: medcurate {verb}"
        known = {option for parameter in VERBS[verb].params for option in parameter.opts}
        assert set(re.findall(r"(?<=\s)--[a-z-]+", rest)) <= known, f"{name}: medcurate {verb}{rest}"


def _code(document: str) -> list[str]:
    fenced = re.findall(r"```[a-z]*\n(.*?)```", document, re.S)
    return fenced + re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", document, flags=re.S))


def test_make_targets_in_the_documents_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", text("Makefile"), re.M))
    named = {
        t
        for n in ("README.md", "CONTRIBUTING.md")
        for code in _code(text(n))
        for t in re.findall(r"make ([a-z-]+)", code)
    }
    assert {"quickstart", "test", "check"} <= named <= targets


def test_files_that_the_documents_name_exist() -> None:
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text(encoding="utf-8")):
            assert (path.parent / link).exists(), f"{path.name}: {link}"


@pytest.mark.parametrize("columns", [MANIFEST, REJECTS], ids=["manifest", "rejects"])
def test_the_format_document_lists_every_column_as_it_is(columns) -> None:
    rows = [f"| `{c.name}` | {c.type} | {c.meaning} |" for c in columns]
    assert "\n".join(rows) in text("docs/format.md")


def test_the_format_document_lists_every_reason() -> None:
    assert all(f"| `{reason}` |" in text("docs/format.md") for reason in Reason)


def test_every_package_is_installed() -> None:
    declared = set(tomllib.loads(text("pyproject.toml"))["tool"]["setuptools"]["packages"])
    folders = {
        "medcurate": "medcurate",
        "train": "medcurate.train",
        "manifests": "medcurate.manifests",
        "recipes": "medcurate.recipes",
    }
    found = {
        ".".join([package, *path.parent.relative_to(ROOT / folder).parts])
        for folder, package in folders.items()
        for path in (ROOT / folder).rglob("__init__.py")
    }
    assert found == declared
