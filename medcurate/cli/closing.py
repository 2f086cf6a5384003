"""What ``build`` tells at its end: the closing tables, what they mean for the user, and which verbs come next."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from medcurate.format import SPLITS

if TYPE_CHECKING:
    from rich.console import Console

    from medcurate.build.report import BuildReport
    from medcurate.config.recipe import SplitRule

_NEXT = ("stats {}", "preview {} -o sheet.png", "verify {}", "train quickstart --data {}")


def show_report(report: BuildReport, out: Path, rule: SplitRule) -> None:
    """Print the tables of a build that was made, its size, its patients and what may be done with it."""
    from medcurate.build.report import closing_table, refusals_table

    console = _console()
    console.print(closing_table(report))
    if (refused := refusals_table(report)) is not None:
        console.print()
        console.print(refused)
    for line in (*_idle_errata(report), _size(report, out), *_patients(report, rule)):
        console.print(line)
    if report.counts["masks"]["written"]:
        console.print("next:")
        for verb in _NEXT:
            console.print(f"  medcurate {verb.format(shlex.quote(str(out)))}")


def show_refused(out: Path, quarantined: int) -> None:
    """Print the first refused cases, and where to find the others and the names behind pseudonyms."""
    from medcurate.build.plan import NAMES_FILE
    from medcurate.claim import work_folder
    from medcurate.explore.query import run

    console = _console()
    sql = """SELECT source, "case", reason, detail FROM rejects
             WHERE stage IN ('pair', 'read', 'label') AND reason NOT IN ('ERRATUM', 'NO_ANNOTATION')
             ORDER BY ALL LIMIT 5"""
    console.print(f"\nrefused cases: {quarantined:,}")
    for row in run(str(out), sql).to_pylist():
        console.print(f"  {row['source']} {row['case']}: {row['reason']}, {row['detail']}")
    console.print(f'all of them: medcurate query {shlex.quote(str(out))} "SELECT * FROM rejects"')
    if (names := work_folder(out) / NAMES_FILE).is_file():
        console.print(f"the files' own names: {names}")


def _console() -> Console:
    from rich.console import Console

    # a command must stay on one line to be copied, and "[split]" is a table of a recipe
    return Console(highlight=False, soft_wrap=True, markup=False)


def _idle_errata(report: BuildReport) -> Iterator[str]:
    for entry in report.sources:
        if entry.idle_errata:
            yield (
                f"\nerrata of {entry.source} that name no case, so that nothing was left out for them: "
                f"{', '.join(entry.idle_errata)}. Mend them in the source, or let its files be complete."
            )


def _size(report: BuildReport, out: Path) -> str:
    from medcurate.units import counted

    images, masks = (
        counted(report.counts[kind]["written"], one) for kind, one in (("slices", "image"), ("masks", "mask"))
    )
    return f"\n{images} and {masks} in {report.output_bytes / 1e6:,.1f} MB, {report.seconds:,.1f} s: {out}"


def _patients(report: BuildReport, rule: SplitRule) -> Iterator[str]:
    shares = ", ".join(f"{split} {report.patients.get(split, 0):,}" for split in SPLITS)
    yield f"patients: {sum(report.patients.values()):,} ({shares})"
    if empty := [split for split in SPLITS if getattr(rule, split) and not report.patients.get(split)]:
        yield (
            f"no patient fell into {' or '.join(empty)}: where a source declares no split, a hash assigns "
            "it. If there should be some: larger shares or another salt in the recipe's [split], and another --out."
        )
    if report.joined_groups:
        yield f"patients joined to others by identical voxels: {report.joined_groups:,}"
