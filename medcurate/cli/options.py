"""Options that several verbs share, so that they read and behave alike."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from medcurate.errors import ConfigError

if TYPE_CHECKING:
    from medcurate.engines.types import EngineModule


class EngineName(StrEnum):
    """The engines that can be named; one registry (medcurate.engines) knows their modules."""

    serial = "serial"
    pool = "pool"
    ray = "ray"


class LogFormat(StrEnum):
    """How progress is told on standard error."""

    auto = "auto"
    plain = "plain"
    json = "json"


RecipeOption = Annotated[
    str, typer.Option("--recipe", help="Name of a recipe (see `recipes`), or path of a .toml file.")
]
DataOption = Annotated[
    Path | None,
    typer.Option("--data", help="Folder of the sources' files.", show_default="the user's cache folder"),
]
OutOption = Annotated[
    Path | None, typer.Option("--out", help="Output folder.", show_default="named after the recipe")
]
WorkersOption = Annotated[
    int | None, typer.Option("--workers", min=1, help="Worker processes.", show_default="the CPUs allotted")
]
EngineOption = Annotated[
    EngineName,
    typer.Option(
        "--engine",
        help="Where jobs run: here one by one or side by side, or on a Ray cluster; never changes a byte.",
    ),
]
JobsOption = Annotated[int, typer.Option("--jobs", min=1, help="Files downloaded at a time.")]
LogOption = Annotated[LogFormat, typer.Option("--log-format", help="Progress on standard error.")]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print JSON for programs instead of text for people.")
]


def engine_named(name: EngineName) -> EngineModule:
    """The engine, loaded. Raises ConfigError where it needs what is not installed."""
    from medcurate.engines import ENGINES
    from medcurate.registry import load

    return cast("EngineModule", load(ENGINES, name.value, "engine"))


def data_folder(given: Path | None) -> Path:
    """The folder of the sources' files: ``given``, or the user's cache folder, which need not be there.

    Raises ConfigError for one that is given and not there: a mistyped folder would be filled with downloads, or
    be taken for one without files.
    """
    from medcurate.places import default_data_folder

    if given is not None and given.exists() and not given.is_dir():
        raise ConfigError(f"--data {given}: is a file; name the folder above those of the sources")
    if given is not None and not given.is_dir():
        raise ConfigError(f"--data {given}: no such folder; mend it, or make it first with: mkdir -p {given}")
    return given or default_data_folder()
