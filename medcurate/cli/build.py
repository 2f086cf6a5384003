"""Verbs ``build`` and ``status``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medcurate.cli.closing import show_refused, show_report
from medcurate.cli.licences import ACCEPT_HELP, LICENCE_HELP, LicenceUse
from medcurate.cli.options import (
    DataOption,
    EngineName,
    EngineOption,
    JobsOption,
    JsonOption,
    LogFormat,
    LogOption,
    OutOption,
    RecipeOption,
    WorkersOption,
    data_folder,
    engine_named,
)
from medcurate.errors import ConfigError

DONE_WITH_QUARANTINE = 3
SMALLEST_MEMORY_BYTES = 64 << 20


def register(app: typer.Typer) -> None:
    """Add the verbs to ``app``."""
    app.command("build")(build)
    app.command("status")(status)


def build(
    recipe: RecipeOption,
    data: DataOption = None,
    out: OutOption = None,
    work: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the parts; outputs may share it to reuse them.", show_default="OUT.work"
        ),
    ] = None,
    workers: WorkersOption = None,
    licence: Annotated[LicenceUse, typer.Option(help=LICENCE_HELP)] = LicenceUse.any,
    accept_licence: Annotated[list[str] | None, typer.Option(metavar="ID", help=ACCEPT_HELP)] = None,
    engine: EngineOption = EngineName.pool,
    memory: Annotated[
        str | None,
        typer.Option(help='Cap of one worker, such as "4GiB".', show_default="allotted memory / workers"),
    ] = None,
    download: Annotated[
        bool, typer.Option("--download/--no-download", help="Whether absent files may be fetched.")
    ] = True,
    jobs: JobsOption = 4,
    log_format: LogOption = LogFormat.auto,
) -> None:
    """Build a dataset from a recipe; run again to continue, or to check and mend a finished one.

    Exit codes: 0 done, 1 error, 2 usage, 3 done with quarantined cases.
    """
    from medcurate.build.fetch import Network
    from medcurate.build.run import BuildOptions
    from medcurate.build.run import build as run_build
    from medcurate.claim import check_no_file, work_folder
    from medcurate.library import load_recipe
    from medcurate.progress import configure

    configure(log_format.value)
    folder = data_folder(data)
    target = (out or Path(load_recipe(recipe).name)).resolve()
    check_no_file(target)
    place = engine_named(engine)
    count = workers or place.cpus()
    options = BuildOptions(
        data=folder,
        out=target,
        work=work or work_folder(target),
        engine=engine.value,
        workers=count,
        memory_bytes=_memory_bytes(memory) if memory else place.memory_bytes(count),
        network=Network(allowed=download, jobs=jobs),
        use=licence.value,
        accepted=tuple(accept_licence or ()),
    )
    report = run_build(recipe, options)
    if report is None:
        quarantined = _quarantined(target)
        typer.echo(f"{target} is complete and undamaged.")
    else:
        quarantined = report.quarantined_cases
        show_report(report, target, load_recipe(recipe).split)
    if quarantined:
        show_refused(target, quarantined)
        raise typer.Exit(DONE_WITH_QUARANTINE)


def _memory_bytes(text: str) -> int:
    from medcurate.units import parse_size

    size_bytes = parse_size("--memory", text)
    if size_bytes < SMALLEST_MEMORY_BYTES:
        raise ConfigError(f'--memory {text}: a worker needs at least 64MiB; give a unit, such as "4GiB"')
    return size_bytes


def _quarantined(out: Path) -> int:
    from medcurate.build.report import quarantined
    from medcurate.format.record import read_record

    return sum(quarantined(facts["counts"], facts["refused"]) for facts in read_record(out).sources.values())


def status(
    dataset: Annotated[Path, typer.Argument(help="Output folder of a build.")],
    work: Annotated[
        Path | None, typer.Option(help="Folder of its parts.", show_default="DATASET.work")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show how far a build is, while it runs or after."""
    import json
    from dataclasses import asdict

    from rich.console import Console

    from medcurate.build.status import read_status, status_table
    from medcurate.claim import work_folder

    found = read_status(dataset, work or work_folder(dataset))
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=1))
        return
    console = Console(highlight=False, soft_wrap=True, markup=False)  # a folder may be called "[1]"
    console.print(f"{dataset}: {found.state}")
    if found.sources:
        console.print(status_table(found))
