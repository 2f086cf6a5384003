"""What a build tells at its end: planned, kept and refused for every source, and the counting law."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medcurate.build.plan import SourcePlan
from medcurate.errors import OutputError, Reason
from medcurate.job.spec import PartRecord

if TYPE_CHECKING:
    from rich.table import Table

KINDS = ("cases", "slices", "masks")


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceReport:
    """One row of the closing table. ``reasons``: ledger rows by reason code."""

    source: str
    counts: Mapping[str, Mapping[str, int]]  # cases, slices, masks -> discovered, written, rejected
    reasons: Mapping[str, int]
    input_bytes: int
    part_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildReport:
    """What ``medcurate build`` shows and returns."""

    sources: tuple[SourceReport, ...]
    counts: Mapping[str, Mapping[str, int]]
    quarantined_cases: int  # refused cases that no source declared as errata
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
    )


def quarantined(report: SourceReport) -> int:
    """Refused cases that the source had not declared as errata."""
    return report.counts["cases"]["rejected"] - report.reasons.get(Reason.ERRATUM, 0)


def check_counting_law(source: str, counts: Mapping[str, Mapping[str, int]]) -> None:
    """Raise OutputError unless discovered = written + rejected for cases, slices and masks."""
    for kind, entry in counts.items():
        if entry["discovered"] != entry["written"] + entry["rejected"]:
            raise OutputError(
                f"{source}: {entry['discovered']} {kind} discovered, but {entry['written']} written and "
                f"{entry['rejected']} rejected: something was lost. Please report this as a defect of medcurate."
            )


def closing_table(report: BuildReport) -> Table:
    """The closing table of a build."""
    from rich.table import Table

    table = Table(title="What was built", title_justify="left")
    for name in ("source", "cases", "slices", "masks"):
        table.add_column(name, justify="left" if name == "source" else "right")
    for name in ("refused, by reason", "read", "written", "time"):
        table.add_column(name, justify="left" if name.startswith("refused") else "right")
    for entry in report.sources:
        table.add_row(
            entry.source,
            *(_kept(entry.counts[kind]) for kind in KINDS),
            _reasons(entry.reasons),
            f"{entry.input_bytes / 1e6:,.1f} MB",
            f"{entry.part_bytes / 1e6:,.1f} MB",
            f"{entry.seconds:,.1f} s",
        )
    table.add_section()
    table.add_row("all", *(_kept(report.counts[kind]) for kind in KINDS))
    return table


def _kept(counts: Mapping[str, int]) -> str:
    return f"{counts['written']:,} of {counts['discovered']:,}"


def _reasons(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} {count:,}" for reason, count in Counter(reasons).most_common()) or "none"
