"""What a build tells at its end: planned, kept and refused for every source, and the counting law."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING, Literal

from medcurate.build.plan import SourcePlan
from medcurate.errors import OutputError, Reason
from medcurate.job.spec import PartRecord

if TYPE_CHECKING:
    from rich.table import Table

KINDS = ("cases", "slices", "masks")
_LINE_WIDTH = 80
_NAME_WIDTH = 12  # of a folded name, at least


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceReport:
    """One row of the closing table. ``reasons``: ledger rows by reason code; ``idle_errata``: see ``Discovery``."""

    source: str
    counts: Mapping[str, Mapping[str, int]]  # cases, slices, masks -> discovered, written, rejected
    reasons: Mapping[str, int]
    input_bytes: int
    part_bytes: int
    seconds: float
    idle_errata: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildReport:
    """What ``medcurate build`` shows and returns."""

    sources: tuple[SourceReport, ...]
    counts: Mapping[str, Mapping[str, int]]
    quarantined_cases: int  # refused cases with which something is wrong that no source declared
    patients: Mapping[str, int]  # by split
    joined_groups: int
    output_bytes: int
    seconds: float


def add_counts(counts: Sequence[Mapping[str, Mapping[str, int]]]) -> dict[str, dict[str, int]]:
    """The sum of several counts."""
    total = {kind: dict.fromkeys(("discovered", "written", "rejected"), 0) for kind in KINDS}
    for entry in counts:
        for kind in KINDS:
            for name in total[kind]:
                total[kind][name] += entry[kind][name]
    return total


def source_counts(plan: SourcePlan, records: Sequence[PartRecord]) -> dict[str, dict[str, int]]:
    """Counts of one source: its parts', and the cases that planning refused."""
    total = add_counts([record.counts for record in records])
    total["cases"]["discovered"] += len(plan.discovery.rejects)
    total["cases"]["rejected"] += len(plan.discovery.rejects)
    return total


def source_report(plan: SourcePlan, records: Sequence[PartRecord]) -> SourceReport:
    """The closing table's row of one source. Raises OutputError when the counting law does not hold."""
    counts = source_counts(plan, records)
    check_counting_law(plan.source, counts)
    reasons = Counter(str(reject.reason) for *_, reject in plan.discovery.rejects)
    for record in records:
        reasons.update(record.reasons)
    return SourceReport(
        source=plan.source,
        counts=counts,
        reasons=reasons,
        input_bytes=sum(job.size_bytes for job in plan.jobs),
        part_bytes=sum(record.tar_bytes for record in records),
        seconds=sum(record.seconds for record in records),
        idle_errata=plan.discovery.idle_errata,
    )


def quarantined(counts: Mapping[str, Mapping[str, int]], reasons: Mapping[str, int]) -> int:
    """Refused cases of a source, without declared errata and cases that show nothing."""
    expected = reasons.get(Reason.ERRATUM, 0) + reasons.get(Reason.NO_ANNOTATION, 0)
    return counts["cases"]["rejected"] - expected


def check_counting_law(source: str, counts: Mapping[str, Mapping[str, int]]) -> None:
    """Raise OutputError unless discovered = written + rejected for cases, slices and masks."""
    for kind, entry in counts.items():
        if entry["discovered"] != entry["written"] + entry["rejected"]:
            raise OutputError(
                f"{source}: {entry['discovered']} {kind} discovered, but {entry['written']} written and "
                f"{entry['rejected']} rejected: something was lost. Please report this as a defect of medcurate."
            )


def closing_table(report: BuildReport) -> Table:
    """The closing table of a build: what was planned and kept of every source."""
    from rich.table import Table

    lines = [
        (
            entry.source,
            *_numbers(entry.counts),
            _rough(entry.input_bytes / 1e6),
            _rough(entry.part_bytes / 1e6),
            _rough(entry.seconds),
        )
        for entry in report.sources
    ]
    if len(lines) > 1:
        lines.append(("all", *_numbers(report.counts), "", "", ""))
    head = ("source", "planned", "cases", "slices", "masks", "MB in", "MB out", "s")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    fill(table, head, lines, gap=2)
    return table


def fill(table: Table, head: Sequence[str], lines: Sequence[Sequence[str]], gap: int) -> None:
    """Add columns and rows, names first and then numbers: rich would cut these where the terminal is narrow.

    Names are folded where a line would be longer than 80 characters, of which ``gap`` are between two columns.
    """
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
    room = max(_NAME_WIDTH, _LINE_WIDTH - sum(widths[1:]) - gap * len(widths))
    for number, (title, width) in enumerate(zip(head, widths, strict=True)):
        justify: Literal["left", "right"] = "right" if number else "left"
        least = width if number else min(width, room)
        table.add_column(title, justify=justify, no_wrap=True, min_width=least)
    for name, *numbers in lines:
        table.add_row("\n".join(wrap(name, room)), *numbers)


def refusals_table(report: BuildReport) -> Table | None:
    """What was refused, by source and reason; None when nothing was."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("refused in", no_wrap=True)
    table.add_column("reason", no_wrap=True)
    table.add_column("ledger rows", justify="right")
    for entry in report.sources:
        for reason, count in sorted(entry.reasons.items(), key=lambda item: (-item[1], item[0])):
            table.add_row(entry.source, reason, f"{count:,}")
    return table if table.row_count else None


def _numbers(counts: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Cases planned and kept, slices and masks kept."""
    return [f"{n:,}" for n in (counts["cases"]["discovered"], *(counts[kind]["written"] for kind in KINDS))]


def _rough(number: float) -> str:
    """A tenth matters of small numbers alone."""
    return f"{number:,.1f}" if number < 1000 else f"{number:,.0f}"
