"""What is written about medcurate is what medcurate does."""

from __future__ import annotations

import json
import re
import shutil
import sys
import tomllib
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import numpy as np
import pytest
import typer.main
from build_kit import write_toml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from typer.testing import CliRunner

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
from medcurate.phantom import write_nifti
from medcurate.readers import READERS
from medcurate.registry import load
from medcurate.tables import check_model

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
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
        "docs/cluster.md",
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
    for path in DOCUMENTS:
        for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text(encoding="utf-8")):
            assert (path.parent / link).exists(), f"{path.name}: {link}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_headings_that_the_documents_link_to_exist(path: Path) -> None:
    for link, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#([^)]+)\)", path.read_text(encoding="utf-8")):
        target = path.parent / link if link else path
        headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.M)
        anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
        assert anchor in anchors, f"{path.name}: {link}#{anchor}"


FOLDERS = ("benchmarks", "docs", "manifests", "medcurate", "recipes", "tests", "train")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_paths_and_tests_that_the_documents_quote_exist(path: Path) -> None:
    for quoted in re.findall(r"`([^`\s]+)`", path.read_text(encoding="utf-8")):
        if quoted.startswith("test_"):
            assert list((ROOT / "tests").glob(quoted)), f"{path.name}: {quoted}"
        elif quoted.startswith(tuple(f"{folder}/" for folder in FOLDERS)) and "my-set" not in quoted:
            assert list(ROOT.glob(quoted.rstrip("/"))), f"{path.name}: {quoted}"


def test_the_readme_names_every_extra() -> None:
    extras = tomllib.loads(text("pyproject.toml"))["project"]["optional-dependencies"]
    (told,) = re.findall(r"`make quickstart` leaves out (.*?)\n\n", text("README.md"), re.S)
    assert set(re.findall(r"`(\w+)`", told)) == set(extras) - {"train", "dev", "bench"}


def test_the_worked_example_of_contributing_is_what_check_says(tmp_path: Path) -> None:
    told = text("CONTRIBUTING.md").split("### A worked example")[1]
    (shown,) = re.findall(r"```text\n(.*?)```", told, re.S)
    (pattern,) = re.findall(r"the pattern is `([^`]+)`", told)
    _prostates(tmp_path / "raw" / "prostate-mr")
    value = _example("docs/source.md")[0] | {"cases": 48, "channels": [], "errata": []}
    options = {"images": "imagesTr", "labels": "labelsTr", "image_suffix": "_0000.nii.gz"}
    value |= {
        "pairings": [{"kind": "paired-folders", "options": options | {"label_suffix": ".nii.gz"}}],
        "label": {"reader": "nifti", "decoder": "index"},
        "case": {"pattern": pattern, "identifiers": "keep"},
    }
    source = write_toml(tmp_path / "prostate-mr.toml", value)
    done = CliRunner().invoke(app, ["check", str(source), "--data", str(tmp_path / "raw"), "--sample", "0"])
    assert done.exit_code == 3
    for line in set(shown.splitlines()) - {"…"}:
        assert line in done.output.splitlines()


def _prostates(folder: Path) -> None:
    """48 cases of 32 patients: one without a label, one with 812 voxels of 255, one whose label lacks a plane."""
    usual = np.repeat(np.array([0, 1, 2], np.uint8), 512).reshape(24, 8, 8)
    unsure = np.repeat(np.array([0, 1, 2, 255], np.uint8), 812).reshape(4, 29, 28)
    large = np.zeros((320, 320, 20), np.uint8)
    large[:8], large[8:16] = 1, 2
    labels = {"": usual, "pz013-v1": unsure, "pz021-v1": large[:, :, :-1]}
    images = {"": usual, "pz013-v1": unsure, "pz021-v1": large}
    visits = [(patient, visit) for patient in range(1, 33) for visit in (1, 2) if visit == 1 or patient <= 16]
    for kind, files, suffix in (("imagesTr", images, "_0000.nii.gz"), ("labelsTr", labels, ".nii.gz")):
        for name, voxels in files.items():
            write_nifti(folder / f"{name}{suffix}", voxels, np.diag([-0.5, -0.5, 3.0, 1.0]))
        (folder / kind).mkdir()
        for name in (f"pz{patient:03d}-v{visit}" for patient, visit in visits):
            kept = folder / f"{name if name in files else ''}{suffix}"
            shutil.copy(kept, folder / kind / f"{name}{suffix}")
    (folder / "labelsTr" / "pz007-v2.nii.gz").unlink()


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


@pytest.mark.parametrize(("name", "heading"), SECTIONS)
def test_the_references_tell_every_value_that_a_key_may_have(name: str, heading: str) -> None:
    (section,) = re.findall(rf"^##+ {re.escape(heading)}\n(.*?)(?=^##|\Z)", text(name), re.M | re.S)
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", section, re.M))
    for key, info in REFERENCES[name][heading].model_fields.items():
        for value in filter(None, _values(info.annotation)):
            assert re.search(rf"(?<![\w-]){re.escape(str(value))}(?![\w-])", rows[key]), f"{key}: {value}"


def _values(annotation: Any) -> list[Any]:
    """What ``Literal`` names, however deep it stands in ``annotation``."""
    given = list(get_args(annotation))
    if get_origin(annotation) is Literal:
        return given
    return [value for each in given for value in _values(each)]


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


def test_the_recipe_of_the_readme_fits() -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", text("README.md"), re.S)
    recipe = check_model(tomllib.loads(block), Recipe, "README.md")
    assert f"medcurate build --recipe {recipe.name}.toml" in text("README.md")


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
