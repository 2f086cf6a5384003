"""Who may import whom: the table of the design, read from the imports themselves."""

from __future__ import annotations

import ast
import itertools
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
import typer

from medcurate.cli.main import app

ROOT = Path(__file__).parents[1]

# Every part, and the parts that it may import. A part is a top-level module or package of medcurate.
BASE = {"errors"}
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "interrupt": set(),
    "units": BASE,
    "places": set(),
    "registry": BASE,
    "types": set(),
    "commit": BASE,
    "progress": BASE,
    "lock": BASE | {"commit"},
    "storage": BASE,
    "tables": BASE,
    "config": BASE | {"tables"},
    "format": BASE | {"commit"},
    "condition": BASE | {"format"},
    "claim": BASE | {"commit", "format"},
    "ledger": {"format", "types"},
    "arrays": BASE,
    "readers": BASE | {"arrays", "config", "types", "zips"},
    "pairings": BASE | {"arrays", "commit", "config", "places", "types", "zips"},
    "decoders": BASE | {"config", "types"},
    "stages": BASE | {"config", "format", "types"},
    "tools": {"format"},
    "engines": BASE | {"commit", "progress", "tools"},
    "phantom": BASE | {"commit"},
    "zips": BASE | {"commit"},
    "download": BASE | {"commit", "config", "lock", "progress", "storage"},
    "unpack": BASE | {"commit", "config", "progress", "units", "zips"},
    "checks": BASE | {"config", "decoders", "pairings", "readers", "registry", "tables"},
    "lineage": BASE | {"config"},
    "choice": BASE | {"config", "lineage"},
    "acceptance": BASE | {"choice", "commit", "config"},
    "library": BASE | {"checks", "choice", "config", "lineage", "tables"},
    "forecast": BASE
    | {"build", "choice", "config", "download", "library", "lineage", "pairings", "units", "unpack", "zips"},
    "job": BASE
    | {"commit", "config", "decoders", "engines", "format", "ledger", "readers", "registry", "stages", "types"},
    "pack": BASE | {"claim", "commit", "condition", "engines", "format", "ledger", "lock", "types"},
    "build": BASE
    | {
        "acceptance", "choice", "claim", "commit", "config", "download", "engines", "format", "job", "ledger",
        "library", "lineage", "lock", "pack", "pairings", "phantom", "progress", "registry", "tools", "types", "unpack",
        "zips",
    },
    "check": BASE
    | {"build", "checks", "config", "decoders", "format", "job", "library", "readers", "types"},
    "explore": BASE | {"commit", "engines", "format", "storage"},
    "verify": BASE | {"commit", "engines", "format", "ledger", "progress"},
    "inspection": BASE | {"arrays", "config", "decoders", "pairings", "readers", "registry", "types"},
}  # fmt: skip
# Prediction from files joins both sides: a trained model, and what a build makes of an image.
MAY_IMPORT["prediction"] = BASE | {
    "commit", "config", "format", "inspection", "progress", "readers", "registry", "stages", "tables", "train", "types",
}  # fmt: skip
# The command line may use every part; nothing may use the command line.
MAY_IMPORT["cli"] = set(MAY_IMPORT) | {"train"}
MAY_IMPORT["train"] = BASE | {
    "commit", "condition", "format", "interrupt", "lock", "places", "progress", "storage", "tables", "units",
}  # fmt: skip


def _modules() -> dict[str, Path]:
    folders = {"medcurate": ROOT / "medcurate", "medcurate.train": ROOT / "train"}
    return {
        ".".join([package, *path.relative_to(folder).with_suffix("").parts]).removesuffix(".__init__"): path
        for package, folder in folders.items()
        for path in sorted(folder.rglob("*.py"))
    }


def _part(module: str) -> str:
    pieces = module.split(".")
    return pieces[1] if len(pieces) > 1 else ""


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names if node.module == "medcurate" else {node.module}
    return {name for name in found if name.split(".")[0] == "medcurate"}


@pytest.mark.parametrize("module", sorted(_modules()))
def test_a_part_imports_only_what_the_table_allows(module: str) -> None:
    part = _part(module)
    if part in {"", "__main__"}:
        return
    known = set(MAY_IMPORT) | {"__version__"}
    assert part in MAY_IMPORT, f"{module}: add the part to the table"
    used = {_part(name) for name in _imports(_modules()[module])} & known
    assert used <= MAY_IMPORT[part] | {part, "__version__"}, module


def test_the_table_has_no_cycle_and_no_part_that_is_gone() -> None:
    parts = {_part(module) for module in _modules()} - {"", "__main__"}
    assert set(MAY_IMPORT) <= parts | {"train"}
    left = dict(MAY_IMPORT)
    while left:
        free = [part for part, uses in left.items() if not uses & set(left) - {part}]
        assert free, f"a cycle among {sorted(left)}"
        for part in free:
            del left[part]


def _verbs(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The command line of every verb and of what lies above it, as they are registered."""
    yield words
    for name, below in getattr(command, "commands", {}).items():
        yield from _verbs(below, (*words, name))


def _heavy() -> set[str]:
    """Modules of all that medcurate depends on, but for what draws the help."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = itertools.chain(project["dependencies"], *project["optional-dependencies"].values())
    declared = {_canonical(re.split(r"[^\w.-]", line)[0]) for line in lines} - LIGHT
    found = packages_distributions().items()
    return {module for module, packages in found if declared & {_canonical(name) for name in packages}}


def _canonical(package: str) -> str:
    return re.sub(r"[-_.]+", "-", package).lower()


LIGHT = {"medcurate", "rich", "typer"}
HELP_PARTS = {"cli", "commit", "errors", "format", "interrupt", "progress", "train"}
ALL_HELP = """
import json, sys
from medcurate.cli.main import app
told = {}
for words in json.load(sys.stdin):
    before = set(sys.modules)
    try:
        app([*words, "--help"])
    except SystemExit as end:
        assert end.code == 0, words
    told[" ".join(words)] = sorted(set(sys.modules) - (before if told else set()))
json.dump(told, sys.stderr)
"""


def test_help_loads_no_heavy_library() -> None:
    """Every verb's help, one after the other in one process: what one loads the next would load as well."""
    verbs = sorted(_verbs(typer.main.get_command(app)), key=lambda words: words == ("sources", "show"))
    assert {("status",), ("train",), ("sources", "show")} <= set(verbs)
    heavy = _heavy()
    assert {
        "numpy",
        "pydantic",
        "torch",
        "duckdb",
        "imagecodecs",
        "isal",
        "nrrd",
        "cv2",
        "PIL",
        "fsspec",
    } <= heavy
    done = subprocess.run(
        [sys.executable, "-c", ALL_HELP], input=json.dumps(verbs), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for verb, modules in json.loads(done.stderr).items():
        allowed = (
            {"pydantic"} if verb == "sources show" else set()
        )  # typer: for the options of ``sources`` itself
        assert heavy & {module.split(".")[0] for module in modules} <= allowed, verb
        parts = {_part(module) for module in modules if module.startswith("medcurate.")}
        assert parts <= HELP_PARTS, f"{verb}: import inside the verb what only running it needs"
