"""Verbs on a finished dataset: ``pack``, ``verify``, ``clean``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medcurate.cli.licences import LICENCE_HELP, LicenceUse
from medcurate.cli.options import (
    EngineName,
    EngineOption,
    LogFormat,
    LogOption,
    WorkersOption,
    engine_named,
)

if TYPE_CHECKING:
    from medcurate.pack.types import PackResult
    from medcurate.verify.findings import Report


SMALLEST_SHARD_BYTES = 1 << 16


def register(app: typer.Typer) -> None:
    """Add the verbs to ``app``."""
    app.command("pack")(pack)
    app.command("verify")(verify)
    app.command("clean")(clean)


def pack(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A finished dataset.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of the new dataset.")],
    where: Annotated[
        str,
        typer.Option(
            help="Keep masks that fit this SQL condition, such as \"organ = 'liver' AND commercial\"."
        ),
    ] = "",
    size: Annotated[
        int,
        typer.Option(min=0, max=65_535, help="Resize images and masks to SIZE x SIZE pixels; 0 keeps them."),
    ] = 0,
    licence: Annotated[LicenceUse, typer.Option(help=LICENCE_HELP)] = LicenceUse.any,
    publish: Annotated[
        bool,
        typer.Option("--publish", help="Refuse what may not be passed on; add LICENCES.md and CITATIONS.md."),
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of the shuffle.")] = 0,
    shard_size: Annotated[
        str,
        typer.Option(help="Largest shard, such as 256MiB or 1GB; with --size they are closed earlier."),
    ] = "256MiB",
    workers: WorkersOption = None,
    engine: EngineOption = EngineName.pool,
    log_format: LogOption = LogFormat.auto,
) -> None:
    """Make a training view of a dataset: select, resize, shuffle into new shards.

    No volume is read again. The same command continues after an interruption, and on a finished output it
    checks every file and makes damaged ones again.
    """
    from medcurate.errors import ConfigError
    from medcurate.pack.dataset import pack_dataset
    from medcurate.pack.types import PackRules
    from medcurate.units import parse_size

    shard_bytes = parse_size("--shard-size", shard_size)
    if shard_bytes < SMALLEST_SHARD_BYTES:
        raise ConfigError(f"--shard-size {shard_size}: must be at least 64KiB; 256MiB suits most uses.")
    condition = _condition(source, where.strip(), licence)
    rules = PackRules(where=condition, size_px=size, seed=seed, shard_bytes=shard_bytes)
    place = engine_named(engine)
    with _counting("packing", "samples", log_format) as count:
        result = pack_dataset(
            source,
            out,
            rules,
            engine=place.run,
            workers=workers or place.cpus(),
            publish=publish,
            progress=count,
        )
    _show_packed(result, out)


def _condition(dataset: Path, where: str, licence: LicenceUse) -> str:
    """``where``, and that the licence of a row's source allows what is wanted."""
    from medcurate.condition import check_condition
    from medcurate.format.record import read_record
    from medcurate.pack.publish import licence_condition

    if where:  # by itself, before it stands in parentheses: it could close them
        check_condition(where)
    allowed = licence_condition(read_record(dataset).sources, licence.value)
    # a line of its own: what it ends with may be a comment
    return f"({where}\n) AND {allowed}" if where and allowed else where or allowed


def verify(
    dataset: Annotated[Path, typer.Argument(help="A finished dataset.")],
    deep: Annotated[
        bool, typer.Option("--deep", help="Decode every sample and measure every mask again.")
    ] = False,
    workers: WorkersOption = None,
    engine: EngineOption = EngineName.pool,
    log_format: LogOption = LogFormat.auto,
) -> None:
    """Check every file, sample and table of a dataset; name what is wrong and how to mend it.

    Exit codes: 0 nothing is wrong, 1 something is.
    """
    from medcurate.verify.run import verify_dataset

    place = engine_named(engine)
    with _counting("verifying", "B", log_format) as count:
        report = verify_dataset(
            dataset, deep=deep, engine=place.run, workers=workers or place.cpus(), progress=count
        )
    _show_report(report, dataset)
    if report.count:
        raise typer.Exit(1)


def clean(
    dataset: Annotated[Path, typer.Argument(help="A dataset; its work folder is DATASET.work.")],
    work: Annotated[
        Path | None,
        typer.Option(help="Remove the parts in this folder instead, which `build --work` was given."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove the work folder of a dataset: parts and records that only a rerun would use."""
    import shutil

    from medcurate.build.parts import PARTS_FOLDER
    from medcurate.claim import work_folder
    from medcurate.errors import ConfigError
    from medcurate.lock import LOCK_FILE, locked
    from medcurate.progress import amount_text

    dataset = dataset.resolve()
    folder = work.resolve() if work else work_folder(dataset)
    # A folder that was given may hold more than parts.
    gone = folder / PARTS_FOLDER if work else folder
    if any(path.is_symlink() for path in (folder, gone)) or not (folder / LOCK_FILE).is_file():
        raise ConfigError(f"{folder}: there is no work folder of medcurate to remove.")
    if not gone.is_dir():
        raise ConfigError(f"{folder}: there are no parts in it.")
    with locked(folder, "removing it"):
        size_bytes = sum(path.lstat().st_size for path in gone.rglob("*"))
        if not yes:
            then = _loss(dataset, folder, given=work is not None)
            typer.confirm(f"Remove {gone} ({amount_text(size_bytes, 'B')})? {then}", abort=True)
        elsewhere = _parts_are_elsewhere(folder)
        shutil.rmtree(gone)
    typer.echo(f"removed {gone}: {amount_text(size_bytes, 'B')} are free again")
    if elsewhere:
        typer.echo(
            "Its parts are in the folder that `build --work` was given; "
            f"`medcurate clean {dataset} --work FOLDER` removes them."
        )


def _loss(dataset: Path, folder: Path, *, given: bool) -> str:
    """What a user loses with ``folder``, as a sentence. ``given``: it is a folder of parts, which outputs may share."""
    from medcurate.format import DATASET_FILE

    if given:
        return "Then no build that was given this folder can reuse its parts."
    finished = (dataset / DATASET_FILE).is_file()
    if _parts_are_elsewhere(folder):
        return (
            f"Its parts stay where they are.{'' if finished else ' The unfinished dataset is packed anew.'}"
        )
    if finished:
        return "Then a later build cannot reuse its parts."
    return "Then the unfinished dataset starts from nothing."


def _parts_are_elsewhere(folder: Path) -> bool:
    """Whether ``folder`` is that of a build whose parts are in another one."""
    from medcurate.build.parts import PARTS_FOLDER
    from medcurate.build.plan import PLAN_FILE

    return (folder / PLAN_FILE).is_file() and not (folder / PARTS_FOLDER).exists()


@contextmanager
def _counting(title: str, unit: str, log_format: LogFormat) -> Iterator[Callable[[int, int], None]]:
    """A callback (done, total) that shows a bar from its first call on."""
    from medcurate.progress import Progress, configure, progress

    configure(log_format.value)
    bar: Progress | None = None
    last = 0
    with ExitStack() as stack:

        def count(done: int, total: int) -> None:
            nonlocal bar, last
            if bar is None:
                bar = stack.enter_context(progress(title, total, unit, done=done))
            else:
                bar.advance(done - last)
            last = done

        yield count


def _show_packed(result: PackResult, out: Path) -> None:
    from medcurate.units import counted

    size_bytes = sum(facts.size_bytes for facts in result.files.values())
    written = result.written
    typer.echo(
        f"{counted(written['slices'], 'image')} and {counted(written['masks'], 'mask')} of "
        f"{counted(written['cases'], 'case')} "
        f"in {size_bytes / 1e6:,.1f} MB: {out}"
    )
    if result.rejects_added["masks"]:
        typer.echo(
            f"{result.rejects_added['masks']:,} masks were lost by the resize, and with them "
            f"{result.rejects_added['slices']:,} images; they are in the ledger (rejects.parquet)."
        )
    standing = len(result.files) - len(result.made)
    if standing:
        typer.echo(f"{len(result.made)} files were written; {standing} stood already.")


def _show_report(report: Report, dataset: Path) -> None:
    from medcurate.units import counted

    for problem in report.problems:
        typer.echo(f"{dataset / problem.file}: {problem.what}\n    to mend it: {problem.remedy}")
    if report.count > len(report.problems):
        typer.echo(f"… and {counted(report.count - len(report.problems), 'more problem')}")
    found = counted(report.count, "problem") if report.count else "no problem found"
    typer.echo(f"{dataset}: {found}")
    size = f"{report.size_bytes / 1e6:,.1f} MB"
    typer.echo(
        f"looked at {counted(report.files, 'file')}, {size}, {counted(report.samples, 'sample')}, "
        f"{counted(report.masks, 'mask')}"
    )
