"""``medcurate status``: how far a build is, read from what it commits; never from the engine."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medcurate.build.parts import PARTS_FOLDER
from medcurate.build.plan import PLAN_FILE
from medcurate.build.report import fill
from medcurate.claim import work_folder
from medcurate.errors import ConfigError
from medcurate.format import DATASET_FILE
from medcurate.format.record import read_record
from medcurate.job.spec import PartRecord, progress_path, read_part_record, read_progress, record_path
from medcurate.lock import holder

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceStatus:
    """Progress of one source; cases are counted from committed parts and, while a build runs, from jobs that run."""

    source: str
    jobs: int
    jobs_done: int
    cases: int
    cases_written: int
    cases_refused: int
    masks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """``state``: finished, running (by whom) or stopped."""

    state: str
    sources: tuple[SourceStatus, ...]


def read_status(out: Path, work: Path) -> Status:
    """The status of the build into ``out`` with its parts in ``work``. Raises ConfigError when either is not there."""
    if work != work_folder(out) and not work.is_dir():
        raise ConfigError(f"--work {work}: there is no such folder. Give the one that the build was given.")
    finished = (out / DATASET_FILE).is_file()
    running = holder(work_folder(out))
    path = work_folder(out) / PLAN_FILE
    facts = _planned(path)
    if facts is None:
        if not finished and running is None and not path.exists():
            raise ConfigError(
                f"{out}: no build here ({DATASET_FILE} and {path} are missing). Give a build's output folder."
            )
        return Status(state=_state(out, finished, running), sources=())
    parts, runs = work / PARTS_FOLDER, running is not None
    sources = tuple(_source(name, entry, parts, runs=runs) for name, entry in facts.items())
    return Status(state=_state(out, finished, running), sources=sources)


def _planned(path: Path) -> dict[str, Any] | None:
    """By source what a build plans to do; None where none has told, or what it told is damaged."""
    try:
        sources: dict[str, Any] = json.loads(path.read_bytes())["sources"]
    except (OSError, ValueError, KeyError, TypeError):
        return None  # the next build tells it again
    return sources


def _state(out: Path, finished: bool, running: str | None) -> str:
    if running is not None:
        return f"running: {running}"
    if not finished:
        return "stopped; run the same build command again to continue"
    masks = read_record(out).counts["masks"]["written"]
    return f"finished, {masks:,} masks"


def _source(name: str, facts: dict[str, Any], parts: Path, *, runs: bool) -> SourceStatus:
    # Before the records: a job that ends between the two is counted by its record. Of a killed build it is lost.
    told = {job: read_progress(progress_path(parts, job)) for job in facts["jobs"]} if runs else {}
    records = {
        job: record for job in facts["jobs"] if (record := _record(record_path(parts, job))) is not None
    }
    counts = [record.counts for record in records.values()]
    counts += [entry for job, entry in told.items() if entry is not None and job not in records]
    return SourceStatus(
        source=name,
        jobs=len(facts["jobs"]),
        jobs_done=len(records),
        cases=facts["cases"] + facts["refused"],
        cases_written=sum(entry["cases"]["written"] for entry in counts),
        cases_refused=facts["refused"] + sum(entry["cases"]["rejected"] for entry in counts),
        masks=sum(entry["masks"]["written"] for entry in counts),
    )


def _record(path: Path) -> PartRecord | None:
    try:
        return read_part_record(path) if path.is_file() else None
    except (ValueError, KeyError, TypeError):
        return None  # the next build makes the part again


def status_table(status: Status) -> Table:
    """The table that the verb prints."""
    from rich.table import Table

    lines = [
        (
            entry.source,
            f"{entry.jobs_done:,} of {entry.jobs:,}",
            f"{entry.cases_written:,} of {entry.cases:,}",
            f"{entry.cases_refused:,}",
            f"{entry.masks:,}",
        )
        for entry in status.sources
    ]
    table = Table()
    fill(table, ("source", "jobs", "cases written", "cases refused", "masks"), lines, gap=3)
    return table
