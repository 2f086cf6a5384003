"""Verbs ``build`` and ``status``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from medcurate.build.report import BuildReport

DONE_WITH_QUARANTINE = 3


class EngineName(StrEnum):
    """The engines that can be named; one registry (medcurate.engines) knows their modules."""

    serial = "serial"
    pool = "pool"


class LogFormat(StrEnum):
    """How progress is told on standard error."""

    auto = "auto"
    plain = "plain"
    json = "json"


def register(app: typer.Typer) -> None:
    """Add the verbs to ``app``."""
    app.command("build")(build)
    app.command("status")(status)


def build(
    recipe: Annotated[
        str, typer.Option("--recipe", help="Name of a recipe (see `recipes`), or path of a .toml file.")
    ],
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of the sources' files.", show_default="the user's cache folder"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Output folder.", show_default="named after the recipe")
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option(help="Folder of parts and locks; share it to reuse parts.", show_default="OUT.work"),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Worker processes.", show_default="the CPUs allotted")
    ] = None,
    engine: Annotated[EngineName, typer.Option(help="How jobs run; never changes a byte.")] = EngineName.pool,
    memory: Annotated[
        str | None,
        typer.Option(help='Cap of one worker, such as "4GiB".', show_default="allotted memory / workers"),
    ] = None,
    log_format: Annotated[LogFormat, typer.Option(help="Progress on standard error.")] = LogFormat.auto,
) -> None:
    """Build a dataset from a recipe; run again to continue, or to check and mend a finished one.

    Exit codes: 0 done, 1 error, 2 usage, 3 done with quarantined cases.
    """
    from medcurate.build.run import BuildOptions
    from medcurate.build.run import build as run_build
    from medcurate.engines.allotted import allotted_cpus, allotted_memory_bytes
    from medcurate.library import load_recipe
    from medcurate.places import default_data_folder
    from medcurate.progress import configure
    from medcurate.units import parse_size

    configure(log_format.value)
    target = out or Path(load_recipe(recipe).name)
    count = workers or allotted_cpus()
    options = BuildOptions(
        data=data or default_data_folder(),
        out=target,
        work=work or target.with_name(f"{target.name}.work"),
        engine=engine.value,
        workers=count,
        memory_bytes=parse_size(memory) if memory else allotted_memory_bytes() // count,
    )
    report = run_build(recipe, options)
    if report is None:
        typer.echo(f"{target} is complete and undamaged.")
        return
    _show(report, target)
    if report.quarantined_cases:
        raise typer.Exit(DONE_WITH_QUARANTINE)


def _show(report: BuildReport, out: Path) -> None:
    from rich.console import Console

    from medcurate.build.report import closing_table, refusals_table

    console = Console()
    console.print(closing_table(report))
    if (refused := refusals_table(report)) is not None:
        console.print(refused)
    masks = report.counts["masks"]["written"]
    slices = report.counts["slices"]["written"]
    console.print(
        f"{slices:,} images and {masks:,} masks in {report.output_bytes / 1e6:,.1f} MB, {report.seconds:,.1f} s: {out}",
        highlight=False,
    )
    if report.joined_groups:
        console.print(
            f"{report.joined_groups} patients were joined to others by identical voxels.", highlight=False
        )
    if report.quarantined_cases:
        console.print(
            f'{report.quarantined_cases} cases were refused; why: medcurate query {out} "SELECT * FROM rejects"',
            highlight=False,
        )
    console.print("Next:")
    for verb in ("stats {}", "preview {} -o sheet.png", "verify {}"):
        console.print(f"  medcurate {verb.format(out)}", highlight=False)


def status(
    dataset: Annotated[Path, typer.Argument(help="Output folder of a build.")],
    work: Annotated[Path | None, typer.Option(help="Its work folder.", show_default="DATASET.work")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output.")] = False,
) -> None:
    """Show how far a build is, while it runs or after."""
    import json
    from dataclasses import asdict

    from rich.console import Console

    from medcurate.build.status import read_status, status_table

    found = read_status(dataset, work or dataset.with_name(f"{dataset.name}.work"))
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=1))
        return
    console = Console()
    console.print(f"{dataset}: {found.state}", highlight=False)
    if found.sources:
        console.print(status_table(found))
