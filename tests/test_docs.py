"""What is written about medcurate is what medcurate does."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer.main
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from medcurate.build.cases import discover
from medcurate.checks import recipe_problems, source_problems
from medcurate.cli.main import app
from medcurate.config.folder import Folder
from medcurate.config.recipe import (
    Clip,
    Limits,
    Masks,
    MinArea,
    MinMax,
    Percentiles,
    Recipe,
    Rgb,
    Shards,
    Slices,
    SplitRule,
    Window,
)
from medcurate.config.source import (
    CaseRule,
    Channel,
    Erratum,
    ImageSpec,
    LabelSpec,
    Licence,
    Origin,
    Pairing,
    Source,
    SourceFile,
    Unpack,
)
from medcurate.config.table import CaseTable, ClassTable
from medcurate.decoders import DECODERS
from medcurate.errors import Reason
from medcurate.format.columns import MANIFEST, REJECTS, SUMMARY
from medcurate.library import load_source, ontology
from medcurate.pairings import PAIRINGS
from medcurate.readers import READERS
from medcurate.registry import load
from medcurate.tables import check_model

ROOT = Path(__file__).parents[1]
VERBS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_has_help_and_stands_in_the_readme(verb: str) -> None:
    assert VERBS[verb].help
    assert f"medcurate {verb}" in text("README.md")


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "CONTRIBUTING.md",
        "docs/format.md",
        "docs/source.md",
        "docs/recipe.md",
        "docs/sources.md",
        "docs/lineage.md",
        "docs/benchmarks.md",
        "docs/scale.md",
        "docs/train.md",
        "docs/train-on-your-own-data.md",
    ],
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


@pytest.mark.parametrize("columns", [MANIFEST, REJECTS, SUMMARY], ids=["manifest", "rejects", "summary"])
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


# --- docs/source.md and docs/recipe.md -------------------------------------------------------------

REFERENCES = {
    "docs/source.md": {
        "The top level": Source,
        "`[licence]`": Licence,
        "`[[files]]`": SourceFile,
        "`origin`": Origin,
        "`unpack`": Unpack,
        "`[[folders]]`": Folder,
        "`[[pairings]]`": Pairing,
        "`[image]`": ImageSpec,
        "`[label]`": LabelSpec,
        "`[[channels]]`": Channel,
        "`[case]`": CaseRule,
        "`case.table`": CaseTable,
        "`classes`": ClassTable,
        "`[[errata]]`": Erratum,
        **{
            f"`{kind}`": load(table, kind, what).Options
            for what, table in (("pairing", PAIRINGS), ("reader", READERS), ("decoder", DECODERS))
            for kind in table
        },
    },
    "docs/recipe.md": {
        "The top level": Recipe,
        "`[slices]`": Slices,
        "`clip`": Clip,
        "`window`": Window,
        "`percentiles`": Percentiles,
        "`minmax`": MinMax,
        "`rgb`": Rgb,
        "`[masks]`": Masks,
        "`min_area`": MinArea,
        "`[split]`": SplitRule,
        "`[shards]`": Shards,
        "`[limits]`": Limits,
    },
}
SECTIONS = [(name, heading) for name, models in REFERENCES.items() for heading in models]


@pytest.mark.parametrize(("name", "heading"), SECTIONS)
def test_the_references_list_every_key_with_its_default(name: str, heading: str) -> None:
    (section,) = re.findall(rf"^##+ {re.escape(heading)}\n(.*?)(?=^##|\Z)", text(name), re.M | re.S)
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \| [^|]+ \|$", section, re.M)
    fields = REFERENCES[name][heading].model_fields
    assert len(rows) == len(dict(rows))
    assert dict(rows) == {field: _default(info) for field, info in fields.items()}


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    if info.default is None:
        return "none"
    return "its defaults" if isinstance(info.default, BaseModel) else f"`{json.dumps(info.default)}`"


def test_the_references_leave_no_model_out() -> None:
    def used(model: type[BaseModel]) -> set[type[BaseModel]]:
        named = re.findall(r"#/\$defs/(\w+)", json.dumps(model.model_json_schema()))
        return {model} | {getattr(sys.modules[model.__module__], each) for each in named}

    for name, root in (("docs/source.md", Source), ("docs/recipe.md", Recipe)):
        assert used(root) <= set(REFERENCES[name].values())


def _example(name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The complete example of a document, and that example with each of the later fragments put in."""
    first, *rest = (tomllib.loads(block) for block in re.findall(r"```toml\n(.*?)```", text(name), re.S))
    unpaired = {
        key: value for key, value in first.items() if key != "channels"
    }  # they go with their pairings
    return first, [(unpaired if "pairings" in fragment else first) | fragment for fragment in rest]


def test_the_examples_of_the_references_fit() -> None:
    value, variants = _example("docs/source.md")
    source = check_model(value, Source, "docs/source.md")
    for example in (source, *(check_model(each, Source, "docs/source.md") for each in variants)):
        assert not list(source_problems(example, ontology()))
    recipe = check_model(_example("docs/recipe.md")[0], Recipe, "docs/recipe.md")
    assert recipe.sources == ("synthetic-ct-phantom", f"{source.id}.toml")
    assert not list(recipe_problems(recipe, (load_source(recipe.sources[0]), source), ontology()))


def test_the_example_source_finds_the_cases_that_it_speaks_of(tmp_path: Path) -> None:
    value, variants = _example("docs/source.md")
    for name in (
        "imagesTr/pz012-v1_0000",
        "imagesTr/pz012-v1_0001",
        "labelsTr/pz012-v1",
        "labelsTs/pz020-v2",
    ):
        path = tmp_path / f"{name}.nii.gz"
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (tmp_path / "imagesTs").mkdir()
    found = discover(check_model(value, Source, "example"), tmp_path)
    assert [(c.id, c.group, c.split, len(c.images)) for c in found.cases] == [
        ("pz012-v1", "prostate-mr:pz012", "train", 2)
    ]
    assert [(case, reject.reason) for case, _, reject in found.rejects] == [("pz020-v2", Reason.UNPAIRED)]
    (tmp_path / "imagesTr" / "pz012-v1_0001.nii.gz").unlink()
    (tmp_path / "imagesTr" / "pz012-v1_0000.nii.gz").rename(tmp_path / "imagesTr" / "pz012-v1.nii.gz")
    (one_file,) = (value for value in variants if "component" in value.get("channels", [{}])[0])
    found = discover(check_model(one_file, Source, "example"), tmp_path)
    assert [image.component for image in found.cases[0].images] == [0, 1]
