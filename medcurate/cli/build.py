"""Verbs ``build`` and ``status``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medcurate.cli.licences import ACCEPT_HELP, LICENCE_HELP, LicenceUse
from medcurate.cli.options import (
    DataOption,
    EngineName,
    JobsOption,
    JsonOption,
    LogFormat,
    LogOption,
    OutOption,
    RecipeOption,
    WorkersOption,
    data_folder,
)
from medcurate.errors import ConfigError
from medcurate.format import SPLITS

if TYPE_CHECKING:
    from medcurate.build.report import BuildReport
    from medcurate.config.recipe import SplitRule

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
    engine: Annotated[EngineName, typer.Option(help="How jobs run; never changes a byte.")] = EngineName.pool,
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
    from medcurate.engines.allotted import allotted_cpus, allotted_memory_bytes
    from medcurate.library import load_recipe
    from medcurate.progress import configure

    configure(log_format.value)
    folder = data_folder(data)
    target = (out or Path(load_recipe(recipe).name)).resolve()
    check_no_file(target)
    count = workers or allotted_cpus()
    options = BuildOptions(
        data=folder,
        out=target,
        work=work or work_folder(target),
        engine=engine.value,
        workers=count,
        memory_bytes=_memory_bytes(memory) if memory else allotted_memory_bytes() // count,
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
        _show(report, target, load_recipe(recipe).split)
    if quarantined:
        _show_refused(target, quarantined)
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


def _show(report: BuildReport, out: Path, rule: SplitRule) -> None:
    from rich.console import Console

    from medcurate.build.report import closing_table, refusals_table
    from medcurate.units import counted

    # a command must stay on one line to be copied, and "[split]" is a table of a recipe
    console = Console(highlight=False, soft_wrap=True, markup=False)
    console.print(closing_table(report))
    if (refused := refusals_table(report)) is not None:
        console.print()
        console.print(refused)
    for entry in report.sources:
        if entry.idle_errata:
            console.print(
                f"\nerrata of {entry.source} that name no case, so that nothing was left out for them: "
                f"{', '.join(entry.idle_errata)}. Mend them in the source, or let its files be complete."
            )
    masks, slices = report.counts["masks"]["written"], report.counts["slices"]["written"]
    size = f"{report.output_bytes / 1e6:,.1f} MB, {report.seconds:,.1f} s"
    console.print(f"\n{counted(slices, 'image')} and {counted(masks, 'mask')} in {size}: {out}")
    shares = ", ".join(f"{split} {report.patients.get(split, 0):,}" for split in SPLITS)
    console.print(f"patients: {sum(report.patients.values()):,} ({shares})")
    if empty := [split for split in SPLITS if getattr(rule, split) and not report.patients.get(split)]:
        console.print(
            f"no patient fell into {' or '.join(empty)}: where a source declares no split, a hash assigns "
            "it. If there should be some: larger shares or another salt in the recipe's [split], and another --out."
        )
    if report.joined_groups:
        console.print(f"patients joined to others by identical voxels: {report.joined_groups:,}")
    if masks:
        console.print("next:")
        for verb in ("stats {}", "preview {} -o sheet.png", "verify {}", "train quickstart --data {}"):
            console.print(f"  medcurate {verb.format(shlex.quote(str(out)))}")


def _show_refused(out: Path, quarantined: int) -> None:
    """The first refused cases, and where to find the others and the names behind pseudonyms."""
    from rich.console import Console

    from medcurate.build.plan import NAMES_FILE
    from medcurate.claim import work_folder
    from medcurate.explore.query import run

    console = Console(highlight=False, soft_wrap=True, markup=False)
    sql = """SELECT source, "case", reason, detail FROM rejects
             WHERE stage IN ('pair', 'read', 'label') AND reason NOT IN ('ERRATUM', 'NO_ANNOTATION')
             ORDER BY ALL LIMIT 5"""
    console.print(f"\nrefused cases: {quarantined:,}")
    for row in run(str(out), sql).to_pylist():
        console.print(f"  {row['source']} {row['case']}: {row['reason']}, {row['detail']}")
    console.print(f'all of them: medcurate query {shlex.quote(str(out))} "SELECT * FROM rejects"')
    if (names := work_folder(out) / NAMES_FILE).is_file():
        console.print(f"the files' own names: {names}")


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
