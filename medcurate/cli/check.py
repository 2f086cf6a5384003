"""Verb ``check``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from medcurate.cli.options import DataOption, JsonOption, data_folder

if TYPE_CHECKING:
    from medcurate.check.findings import Checked

SOMETHING_OFF = 3


def register(app: typer.Typer) -> None:
    """Add the verb to ``app``."""
    app.command("check")(check)


def check(
    source: Annotated[str, typer.Argument(help="A source's id, or the path of a source's file.")],
    data: DataOption = None,
    sample: Annotated[
        int, typer.Option(min=0, help="Cases to read, spread over all; 0 reads every one.")
    ] = 20,
    as_json: JsonOption = False,
) -> None:
    """Hold a source against its files: presence, digests, pairs, geometry, label values, counts, errata.

    Nothing is downloaded; packaged files are put in place, and digests noted beside them. Exit codes: 0 all is as
    declared, 1 error, 3 something is off.
    """
    from medcurate.check.run import check as run_check

    found = run_check(source, data_folder(data), sample)
    if as_json:
        import json

        from medcurate.check.run import facts

        typer.echo(json.dumps(facts(found), indent=1))
    else:
        _show(found)
    if found.findings:
        raise typer.Exit(SOMETHING_OFF)


def _show(found: Checked) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from medcurate.units import counted

    console = Console(highlight=False, markup=False)
    declared = "" if found.declared_cases is None else f" ({found.declared_cases:,} declared)"
    console.print(
        f"{found.source}: {counted(found.discovered, 'case')} found{declared}, {found.usable:,} usable, "
        f"{counted(found.patients, 'patient')}, {found.read:,} read whole",
        soft_wrap=True,
    )
    if found.shown:
        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        table.add_column("label")
        table.add_column("shown by cases", justify="right")
        for label, count in sorted(found.shown.items()):
            table.add_row(label, f"{count:,} of {found.read:,}")
        console.print(table)
    for entry in found.findings:
        console.print(Text(f"{entry.about}: {entry.text}"), soft_wrap=True)
    count = len(found.findings)
    console.print(counted(count, "finding") if count else "all is as declared")
