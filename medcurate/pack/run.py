"""Plan, run the shards' jobs on an engine, join their rows: the last step of a build, and all of ``pack``."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path

from medcurate.commit import sha256_file, swept
from medcurate.engines.types import Engine, Limits, Needs, few
from medcurate.errors import ConfigError, MedcurateError, OutputError
from medcurate.format import DATASET_FILE, MANIFEST_FILE, REJECTS_FILE, SHARD_FOLDER, SPLITS, SUMMARY_FILE
from medcurate.format.record import FileRecord, read_record
from medcurate.pack.database import database
from medcurate.pack.plan import Plan, make_plan
from medcurate.pack.shard import ShardJob, pack_shard, stands
from medcurate.pack.tables import TABLES, count_kept, count_rejected, count_written, write_tables
from medcurate.pack.types import PackInput, PackResult, PackRules, Progress

_WORK = "pack"  # inside the output's work folder
_LIMITS = Limits(step_seconds=24 * 3600, memory_bytes=4 << 30)  # trusted input: only runaways are stopped
_TRIES = 2
_ROW_BYTES = 200  # of tables and records, for the estimate of free space


def write_shards(
    inputs: PackInput,
    rules: PackRules,
    out: Path,
    work: Path,
    *,
    engine: Engine,
    workers: int,
    progress: Progress | None = None,
) -> PackResult:
    """Write shards, manifest, ledger and summary of ``out``; not ``dataset.json``, which the caller adds last.

    A rerun makes only what is not there. Where ``out`` is finished already, every file is read and the
    missing or damaged ones are made again; the others are not touched. The caller holds the lock.

    Raises ConfigError (a wrong ``rules.where``), DamagedInput (a bad sample), OutputError (disk full).
    """
    folder = work / _WORK
    # One connection for all tables: opening one takes as long as writing a few samples.
    with swept(out, out / SHARD_FOLDER, folder), database(folder, _tables(inputs, out)) as connection:
        plan = make_plan(connection, inputs, rules, folder)
        if rules.where and not plan.shards:
            raise ConfigError(f"--where {rules.where!r}: no mask fits; nothing was packed.")
        finished = read_record(out).files if (out / DATASET_FILE).is_file() else {}
        tables = _tables_of(finished)
        wanted = [name for name in tables if not _is_whole(out / name, finished.get(name))]
        tables_stand = not {MANIFEST_FILE, REJECTS_FILE} & set(wanted)
        jobs = _jobs(inputs, rules, plan, out, folder, finished, tables_stand=tables_stand)
        _remove_stale(out, jobs)
        _check_space(jobs, out)
        files, made = _run(jobs, engine, workers, progress)
        write_tables(connection, inputs, out, folder, jobs, wanted)
        files |= {name: _facts(out / name) for name in tables}
        rejected, kept = count_rejected(connection, out), count_kept(connection, inputs, jobs)
        return PackResult(
            files=files,
            written=count_written(connection, out),
            rejected=rejected,
            rejects_added={level: count - kept[level] for level, count in rejected.items()},
            made=(*made, *wanted),
        )


def _tables(inputs: PackInput, out: Path) -> list[Path]:
    """Every table that is read, those that are still to be written among them."""
    assignments = [inputs.assignments] if inputs.assignments else []
    return [*inputs.manifests, *inputs.rejects, *assignments, out / MANIFEST_FILE, out / REJECTS_FILE]


def _tables_of(finished: Mapping[str, FileRecord]) -> tuple[str, ...]:
    """The tables of an output; one that was finished when there were no summaries stays as its record says."""
    if finished and SUMMARY_FILE not in finished:
        return tuple(name for name in TABLES if name != SUMMARY_FILE)
    return TABLES


def _is_whole(path: Path, facts: FileRecord | None) -> bool:
    return facts is not None and path.is_file() and _facts(path) == facts


def _facts(path: Path) -> FileRecord:
    return FileRecord(path.stat().st_size, sha256_file(path))


def _jobs(
    inputs: PackInput,
    rules: PackRules,
    plan: Plan,
    out: Path,
    folder: Path,
    finished: Mapping[str, FileRecord],
    *,
    tables_stand: bool,
) -> list[ShardJob]:
    make = partial(
        ShardJob,
        plan=plan.table,
        plan_digest=plan.digest,
        root=inputs.root,
        out=out,
        work=folder,
        filtered=bool(rules.where),
        size_px=rules.size_px,
        tables_stand=tables_stand,
    )
    return [
        make(shard=shard, expected=finished.get(f"{SHARD_FOLDER}/{shard.name}.tar")) for shard in plan.shards
    ]


def _remove_stale(out: Path, jobs: list[ShardJob]) -> None:
    """Shards of an earlier plan for this output; no other file is ever removed."""
    planned = {out / job.name for job in jobs}
    for split in SPLITS:
        for path in (out / SHARD_FOLDER).glob(f"{split}-[0-9][0-9][0-9][0-9][0-9][0-9].tar"):
            if path not in planned:
                path.unlink()


def _check_space(jobs: list[ShardJob], out: Path) -> None:
    """Raise OutputError when the disk clearly cannot hold what is still to be written."""
    out.mkdir(parents=True, exist_ok=True)
    missing = [job for job in jobs if not (out / job.name).is_file() or not (job.expected or stands(job))]
    needed = sum(job.shard.estimated_bytes + job.shard.rows * _ROW_BYTES for job in missing)
    free = shutil.disk_usage(out).free
    if needed > free:
        raise OutputError(
            f"{out}: about {needed:,} bytes are needed and {free:,} are free there. "
            "Free some space and run the same command again: it continues where it stopped."
        )


def _run(
    jobs: list[ShardJob], engine: Engine, workers: int, progress: Progress | None
) -> tuple[dict[str, FileRecord], list[str]]:
    """Facts of all tars by name, and the names of those that were written."""
    report = progress or (lambda done, planned: None)
    planned = sum(job.shard.samples for job in jobs)
    files = {}
    for job in jobs:
        if not job.expected and (record := stands(job)):
            files[job.name] = FileRecord(record.size_bytes, record.sha256)
    todo = [job for job in jobs if job.name not in files]
    done = planned - sum(job.shard.samples for job in todo)
    report(done, planned)
    made = []
    for job, (facts, written) in _outcomes(todo, engine, workers):
        files[job.name] = facts
        made += [job.name] * written
        done += job.shard.samples
        report(done, planned)
    return {job.name: files[job.name] for job in jobs}, sorted(made)


def _outcomes(
    jobs: list[ShardJob], engine: Engine, workers: int, tries: int = _TRIES
) -> Iterator[tuple[ShardJob, tuple[FileRecord, bool]]]:
    tars = sorted(tar for root in {job.root for job in jobs} for tar in root.rglob("*.tar"))
    writes = {folder for job in jobs for folder in (job.out, job.work)}
    needs = Needs(reads=tuple(few(tars)), writes=tuple(sorted(writes)))
    again = []
    with closing(engine(pack_shard, jobs, workers=workers, limits=_LIMITS, needs=needs)) as outcomes:
        for outcome in outcomes:
            if outcome.failure and not outcome.failure.error and tries > 1:
                again.append(outcome.job)  # nothing but its worker, or its machine, may have been lost
                continue
            if outcome.failure and isinstance(outcome.failure.error, MedcurateError):
                raise outcome.failure.error
            if outcome.result is None:
                detail = outcome.failure.detail if outcome.failure else "no result"
                raise OutputError(
                    f"shard {outcome.job.name} failed: {detail}. Run the same command again: it continues; "
                    f"should it fail again, remove {outcome.job.work} first."
                )
            _check_expected(outcome.job, outcome.result[0])
            yield outcome.job, outcome.result
    if again:
        yield from _outcomes(again, engine, workers, tries - 1)


def _check_expected(job: ShardJob, facts: FileRecord) -> None:
    if job.expected not in {None, facts}:
        raise OutputError(
            f"{job.out / job.name}: made again, it is not what {DATASET_FILE} records, so the input or "
            "a tool has changed since. Restore them, or give a new output folder."
        )
