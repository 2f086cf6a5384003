"""``medcurate build``: plan, run the missing jobs, join duplicates, split, pack, record."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medcurate.acceptance import accept
from medcurate.build.fetch import OFFLINE, Network
from medcurate.build.finish import Folders, Stated, pack_parts, write_record
from medcurate.build.parts import PARTS_FOLDER, committed_part, damage_in, forget_part
from medcurate.build.plan import SourcePlan, plan, write_plan
from medcurate.build.report import BuildReport, add_counts, quarantined, source_report
from medcurate.build.room import still_needed_bytes
from medcurate.build.running import run_jobs
from medcurate.build.splits import Assignment, assign, joined_groups
from medcurate.build.standing import require_same_inputs, stands_whole
from medcurate.choice import Use
from medcurate.claim import check_claim, claim, release, work_folder
from medcurate.commit import swept
from medcurate.config.source import UNRESOLVED
from medcurate.engines import ENGINES
from medcurate.engines.types import Engine, Limits
from medcurate.errors import ConfigError, DataMissing, DiskFull, OutputError
from medcurate.format.keys import pseudonym
from medcurate.job.spec import PartRecord, tar_path
from medcurate.library import Resolved, canonical, resolve
from medcurate.lock import locked
from medcurate.pack.types import DamagedInput, PackResult
from medcurate.progress import emit, progress
from medcurate.registry import load
from medcurate.tools import tool_versions

# Parts that rot between two readings are rebuilt; more often than this the disk is at fault.
_PACK_TRIES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """Where and how fast; nothing here changes a byte of the dataset.

    ``work``: parts are kept below it, and outputs may share them; what belongs to one output alone (plan,
    names, claim, the state of packing) is in ``work_folder(out)``, wherever the parts are.
    """

    data: Path
    out: Path
    work: Path
    engine: str
    workers: int
    memory_bytes: int  # of one worker, beyond its idle size
    network: Network = OFFLINE
    use: Use = "any"  # what licences must allow; decides which sources are used
    accepted: tuple[str, ...] = ()  # sources whose terms are accepted, or "all"


@dataclass(frozen=True, slots=True)
class _Build:
    """One run: what was asked for and what it was resolved to."""

    resolved: Resolved
    options: BuildOptions
    engine: Engine
    folders: Folders
    plans: tuple[SourcePlan, ...]


def build(recipe: str, options: BuildOptions) -> BuildReport | None:
    """Build ``recipe`` into ``options.out``; None when it stands there already, whole and undamaged.

    Raises ConfigError and OutputError; after either, the same call continues where it stopped.
    """
    started = time.perf_counter()
    if options.work.resolve().is_relative_to(options.out.resolve()):
        raise ConfigError(f"--work {options.work}: must lie outside of the output {options.out}.")
    resolved = resolve(recipe, options.use)
    _tell(resolved)
    stated = Stated(_made_by(resolved), accept(resolved.sources, options.accepted, options.data))
    engine: Engine = load(ENGINES, options.engine, "engine").run
    own = work_folder(options.out)
    if not own.exists():  # nor is one left beside a folder that is refused
        check_claim(options.out, stated.made_by, own)
    with _locks(options):
        check_claim(options.out, stated.made_by, own)
        folders = Folders(out=options.out, work=own, parts=options.work / PARTS_FOLDER)
        plans = _planned(resolved, options, folders.parts, stated)
        if plans is None:
            release(options.out)
            return None
        claim(options.out, stated.made_by, own)
        write_plan(own, plans, options.out)
        return _made(_Build(resolved, options, engine, folders, plans), stated, started)


def _planned(
    resolved: Resolved, options: BuildOptions, parts: Path, stated: Stated
) -> tuple[SourcePlan, ...] | None:
    """What is to be built, by source; None where the dataset stands there whole.

    A whole one may outlive the files that it was made of. Raises ConfigError where they are there and have changed.
    """
    whole = stands_whole(options.out)
    parts.mkdir(parents=True, exist_ok=True)
    try:
        plans = plan(resolved, options.data, parts, stated.made_by["tools"], options.network)
    except DataMissing:
        if whole:
            return None
        raise
    require_same_inputs(options.out, plans)
    return None if whole else plans


def _made(run: _Build, stated: Stated, started: float) -> BuildReport:
    """Make the dataset, its record last. ``started``: by ``time.perf_counter``."""
    out = run.options.out
    records, packed, assignments, joined = _parts_and_shards(run)
    reports = tuple(source_report(entry, [records[job.id] for job in entry.jobs]) for entry in run.plans)
    write_record(run.resolved, stated, run.plans, reports, records, packed, out)
    release(out)
    return BuildReport(
        sources=reports,
        counts=add_counts([report.counts for report in reports]),
        quarantined_cases=sum(quarantined(report.counts, report.reasons) for report in reports),
        patients=_patients(assignments),
        joined_groups=joined,
        output_bytes=sum(facts.size_bytes for facts in packed.files.values()),
        seconds=time.perf_counter() - started,
    )


def _tell(resolved: Resolved) -> None:
    """What of the recipe's choice of sources a user should know before anything is done."""
    for source in resolved.sources:
        if source.licence.id == UNRESOLVED:
            emit("licence", source=source.id, note="unresolved: every row will say so")
    for overlap in resolved.overlaps:
        emit("overlap", note=overlap.text)
    for entry in resolved.left_out:
        emit("left out", source=entry.source, why=entry.why)


@contextmanager
def _locks(options: BuildOptions) -> Iterator[None]:
    """Of the output's own work folder, and of that of its parts where another was given; what is theirs is swept."""
    purpose = f"building {options.out.name}"
    with ExitStack() as stack:
        for folder in dict.fromkeys((work_folder(options.out), options.work.resolve())):
            stack.enter_context(locked(folder, purpose))
        stack.enter_context(swept(options.work / PARTS_FOLDER))
        yield


def _made_by(resolved: Resolved) -> dict[str, Any]:
    """What decides the dataset's bytes, as its record states it: no case or file by a name that identifies."""
    facts = canonical(resolved)
    for source, stated in zip(resolved.sources, facts["sources"], strict=True):
        if source.case.identifiers == "pseudonym":
            for erratum in stated["errata"]:
                erratum["case"] = pseudonym(source.namespace, erratum["case"])
            for file in stated["files"]:
                file["path"] = pseudonym(source.id, file["path"])
    return {"verb": "build", **facts, "tools": tool_versions()}


def _patients(assignments: Sequence[Assignment]) -> dict[str, int]:
    """How many patients each split has."""
    return dict(Counter(split for _, split in {(entry.group, entry.split) for entry in assignments}))


def _parts_and_shards(
    run: _Build,
) -> tuple[Mapping[str, PartRecord], PackResult, list[Assignment], int]:
    """All parts' records, the packed shards, who went where, and how many groups were joined to others."""
    for _ in range(_PACK_TRIES):
        records = _parts(run)
        assignments, joined = _assignments(run, records)
        try:
            packed = pack_parts(
                run.resolved,
                run.plans,
                assignments,
                run.folders,
                engine=run.engine,
                workers=run.options.workers,
            )
        except DamagedInput:
            _forget_damaged(run.folders.parts, list(records))
        else:
            return records, packed, assignments, joined
    raise OutputError(
        f"{run.folders.parts}: parts are damaged again and again after having been written. Check the disk, "
        "or give another folder with --work."
    )


def _forget_damaged(parts: Path, jobs: Sequence[str]) -> None:
    """Have every damaged part built again: a loss of power takes from many, and packing stops at the first."""
    with progress("checking the parts", len(jobs), "parts") as bar:
        for job in jobs:
            if damage := damage_in(parts, job):
                emit("rebuild", file=tar_path(parts, job).name, why=damage)
                forget_part(parts, job)
            bar.advance(1)


def _assignments(run: _Build, records: Mapping[str, PartRecord]) -> tuple[list[Assignment], int]:
    facts = [
        (entry.source, [fact for job in entry.jobs for fact in records[job.id].cases]) for entry in run.plans
    ]
    assignments = assign(facts, run.resolved.recipe.split)
    return assignments, joined_groups(assignments, facts)


def _parts(run: _Build) -> dict[str, PartRecord]:
    """The record of every job, after running those that have none."""
    jobs = [job for entry in run.plans for job in entry.jobs]
    found = {job.id: committed_part(job) for job in jobs}
    records = {name: record for name, record in found.items() if record is not None}
    missing = [job for job in jobs if job.id not in records]
    limits = Limits(run.resolved.recipe.limits.case_seconds, run.options.memory_bytes)
    standing = sum(len(job.cases) for job in jobs if job.id in records)
    with progress("cases", sum(len(job.cases) for job in jobs), "cases", done=standing) as bar:

        def done(record: PartRecord) -> None:
            records[record.job] = record

        try:
            run_jobs(
                missing,
                run.engine,
                workers=run.options.workers,
                limits=limits,
                done=done,
                advance=bar.advance,
            )
        except DiskFull as error:
            needed = still_needed_bytes(jobs, records)
            what = f"About {needed:,} bytes are needed for the remaining parts and the shards."
            raise DiskFull(f"{error} {what}") from error
    return records
