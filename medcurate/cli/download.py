"""Verb ``download``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medcurate.cli.licences import LICENCE_HELP, LicenceUse
from medcurate.cli.options import DataOption, JobsOption, LogFormat, LogOption, data_folder
from medcurate.errors import ConfigError

if TYPE_CHECKING:
    from medcurate.choice import Use
    from medcurate.config.source import Source


def register(app: typer.Typer) -> None:
    """Add the verb to ``app``."""
    app.command("download")(download)


def download(
    source: Annotated[
        list[str] | None,
        typer.Option("--source", help="Id of a source (see `sources`), or path of a .toml file; repeatable."),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option("--recipe", help="All sources of a recipe: its name or a .toml file.")
    ] = None,
    data: DataOption = None,
    licence: Annotated[LicenceUse, typer.Option(help=LICENCE_HELP)] = LicenceUse.any,
    jobs: JobsOption = 4,
    log_format: LogOption = LogFormat.auto,
) -> None:
    """Fetch, check and unpack the files of sources; run again to continue.

    Ends with an error where files are left that only you can get, naming the page and the place of each.
    """
    from medcurate.build.fetch import Network, collect
    from medcurate.progress import configure

    configure(log_format.value)
    target = data_folder(data)
    chosen = _chosen(source or (), recipe, licence.value)
    homes = {found.id: home for found, home in chosen}
    collect([found for found, _ in chosen], target, homes, Network(jobs=jobs))
    typer.echo(f"complete in {target}: {', '.join(homes)}")


def _chosen(sources: Sequence[str], recipe: str | None, use: Use) -> list[tuple[Source, Path]]:
    """The sources that were asked for and whose licence allows ``use``, each with the folder of its own file."""
    from medcurate.choice import fitting
    from medcurate.library import load_source, resolve, source_path
    from medcurate.progress import emit

    if bool(sources) == bool(recipe):
        raise ConfigError("give either --source ID, as often as you like, or --recipe NAME")
    if recipe:
        resolved = resolve(recipe, use)
        kept, left_out, homes = resolved.sources, resolved.left_out, resolved.homes
    else:
        named = [(load_source(name), source_path(name).parent) for name in dict.fromkeys(sources)]
        kept, left_out = fitting([found for found, _ in named], use)
        homes = {found.id: home for found, home in named}
    for entry in left_out:
        emit("left out", source=entry.source, why=entry.why)
    return [(found, homes[found.id]) for found in kept]
