"""Verb ``plan``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medcurate.cli.licences import LICENCE_HELP, LicenceUse
from medcurate.cli.options import DataOption, JsonOption, OutOption, RecipeOption, WorkersOption, data_folder
from medcurate.cli.tables import PIPE_WIDTH

if TYPE_CHECKING:
    from medcurate.forecast.against import Against
    from medcurate.library import Resolved


def register(app: typer.Typer) -> None:
    """Add the verb to ``app``."""
    app.command("plan")(plan)


def plan(
    recipe: RecipeOption,
    data: DataOption = None,
    out: OutOption = None,
    workers: WorkersOption = None,
    against: Annotated[
        str,
        typer.Option(help="Another recipe, say the one trained on: name what the two share."),
    ] = "",
    licence: Annotated[LicenceUse, typer.Option(help=LICENCE_HELP)] = LicenceUse.any,
    as_json: JsonOption = False,
) -> None:
    """Show what a build will fetch, need and make, without doing any of it.

    Counts are estimates from the sources' case counts and measured rates. Exit codes: 0 done, 1 disk or
    inodes are short, or a mistake.
    """
    from medcurate.claim import check_no_file
    from medcurate.engines.allotted import allotted_cpus
    from medcurate.forecast.plan import forecast
    from medcurate.library import resolve

    resolved = resolve(recipe, licence.value)
    target = out or Path(resolved.recipe.name)
    check_no_file(target)
    found = forecast(resolved, data_folder(data), target, workers or allotted_cpus())
    other = _against(resolved, against)
    if as_json:
        import json

        from medcurate.forecast.show import facts

        typer.echo(json.dumps(facts(found, other), indent=1))
    else:
        from rich.console import Console

        from medcurate.forecast.show import lines, table

        console = Console(highlight=False, markup=False)
        if not console.is_terminal:
            console.width = PIPE_WIDTH
        console.print(table(found))
        for line in lines(found, other):
            console.print(line, soft_wrap=True)
    found.check()


def _against(resolved: Resolved, recipe: str) -> Against | None:
    if not recipe:
        return None
    from medcurate.forecast.against import compare
    from medcurate.library import resolve

    return compare(resolved.lineage, resolved.sources, recipe, resolve(recipe).sources)
