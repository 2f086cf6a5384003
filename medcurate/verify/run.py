"""``medcurate verify``: look at everything, report every problem, change nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import duckdb

from medcurate.commit import TEMP_PREFIX, sha256_file
from medcurate.engines.types import Engine, Failure, Limits, Needs, few
from medcurate.format import (
    CLAIM_FILE,
    DATASET_FILE,
    MANIFEST_FILE,
    REJECTS_FILE,
    SHARD_FOLDER,
    SUMMARY_FILE,
)
from medcurate.format.columns import MANIFEST, REJECTS, SUMMARY
from medcurate.format.record import DatasetRecord, FileRecord, read_record
from medcurate.verify.findings import Findings, Report
from medcurate.verify.shard import ShardCheck, check_shard
from medcurate.verify.tables import (
    manifest_problems,
    record_problems,
    rejects_problems,
    schema_problem,
    summary_problems,
)

Progress = Callable[[int, int], None]  # bytes of shards checked so far, bytes of all shards

_LIMITS = Limits(step_seconds=24 * 3600, memory_bytes=4 << 30)
_REBUILT = (
    "build the dataset again into another folder: it was recorded like this, so no single file is to blame"
)
_TABLES = {
    MANIFEST_FILE: (MANIFEST, manifest_problems),
    REJECTS_FILE: (REJECTS, rejects_problems),
    SUMMARY_FILE: (SUMMARY, summary_problems),
}


def verify_dataset(
    folder: Path, *, deep: bool = False, engine: Engine, workers: int = 1, progress: Progress | None = None
) -> Report:
    """Check every file of the dataset in ``folder``; ``deep`` decodes every sample and measures it again.

    Raises ConfigError when there is no finished dataset.
    """
    record = read_record(folder)
    findings = Findings()
    remedy = _remedy(record.made_by)
    for what in record_problems(record):
        findings.add(DATASET_FILE, what, "restore the file from a copy, or build the dataset again")
    _check_names(folder, record, findings)
    manifest_readable = _check_tables(folder, record, remedy, findings)
    _check_others(folder, record, remedy, findings)
    shards = {name: facts for name, facts in record.files.items() if name.startswith(f"{SHARD_FOLDER}/")}
    checks = [
        ShardCheck(
            folder=folder,
            name=name,
            expected=facts,
            deep=deep,
            with_rows=manifest_readable,
            remedy=remedy,
        )
        for name, facts in sorted(shards.items())
    ]
    samples, masks = _check_shards(checks, engine, workers, progress, findings)
    size_bytes = sum(facts.size_bytes for facts in record.files.values())
    return Report(tuple(findings.problems), findings.count, len(record.files), size_bytes, samples, masks)


def _remedy(made_by: Mapping[str, Any]) -> str:
    verb = made_by.get("verb")
    if str(verb) in {"build", "pack"}:
        return f"run the same `medcurate {verb}` again: it makes only this file again"
    return "restore the file from a copy"


def _check_names(folder: Path, record: DatasetRecord, findings: Findings) -> None:
    """Files that the dataset does not have."""
    known = {DATASET_FILE, *record.files}
    for name in sorted(_files(folder)):
        if name in known:
            continue
        if name == CLAIM_FILE or Path(name).name.startswith(TEMP_PREFIX):
            findings.add(name, "was left by an interrupted run", "run the same command again: it tidies up")
        else:
            findings.add(name, "does not belong to the dataset", "keep it elsewhere, or delete it")


def _check_others(folder: Path, record: DatasetRecord, remedy: str, findings: Findings) -> None:
    """Files beside tables and shards: the texts of a published dataset."""
    for name, facts in sorted(record.files.items()):
        if name in _TABLES or name.startswith(f"{SHARD_FOLDER}/"):
            continue
        if problem := _content_problem(folder / name, facts):
            findings.add(name, problem, remedy)


def _content_problem(path: Path, expected: FileRecord | None) -> str:
    """What tells that a file is not as recorded; "" for nothing."""
    if not path.is_file():
        return "is missing"
    try:
        found = FileRecord(path.stat().st_size, sha256_file(path))
    except OSError as error:  # of the disk: the other files are looked at all the same
        return f"cannot be read ({error.strerror})"
    return "" if found == expected else f"its content is not what was written: it differs from {DATASET_FILE}"


def _files(folder: Path) -> Iterator[str]:
    for parent, _, names in os.walk(folder):
        yield from ((Path(parent) / name).relative_to(folder).as_posix() for name in names)


def _check_tables(folder: Path, record: DatasetRecord, remedy: str, findings: Findings) -> bool:
    """Check manifest, ledger and, where the record names it, summary; returns whether the manifest can be read."""
    before = findings.count
    readable = _check_table(folder, MANIFEST_FILE, record, remedy, findings)
    manifest_is_sound = findings.count == before
    _check_table(folder, REJECTS_FILE, record, remedy, findings)
    if SUMMARY_FILE in record.files:  # of a manifest that is not sound, a summary can say nothing more
        _check_table(folder, SUMMARY_FILE, record, remedy, findings, with_rules=manifest_is_sound)
    return readable


def _check_table(
    folder: Path,
    name: str,
    record: DatasetRecord,
    remedy: str,
    findings: Findings,
    *,
    with_rules: bool = True,
) -> bool:
    """Check one of the tables; returns whether it can be read."""
    columns, rules = _TABLES[name]
    path = folder / name
    changed = _content_problem(path, record.files.get(name))
    if changed:
        findings.add(name, changed, remedy)
    if not path.is_file():
        return False
    if problem := schema_problem(path, columns):
        findings.add(name, problem, remedy if changed else _REBUILT)
        return False
    if not with_rules:
        return True
    try:
        for what in rules(folder, record):
            findings.add(name, what, remedy if changed else _REBUILT)
    except duckdb.Error as error:
        findings.add(name, f"cannot be read ({str(error).splitlines()[0]})", remedy)
        return False
    return True


def _check_shards(
    checks: list[ShardCheck], engine: Engine, workers: int, progress: Progress | None, findings: Findings
) -> tuple[int, int]:
    """Samples and masks that were looked at."""
    report = progress or (lambda done, total: None)
    total = sum(check.expected.size_bytes for check in checks)
    done = samples = masks = 0
    report(done, total)
    found = {}
    needs = Needs(reads=tuple(check.folder / check.name for check in few(checks)))
    for outcome in engine(check_shard, checks, workers=workers, limits=_LIMITS, needs=needs):
        found[outcome.job.name] = outcome
        done += outcome.job.expected.size_bytes
        report(done, total)
    for check in checks:  # in order of names, whoever was first
        outcome = found[check.name]
        if outcome.result is None:
            findings.add(check.name, *_not_checked(check, outcome.failure))
            continue
        findings.merge(outcome.result.problems, outcome.result.count)
        samples, masks = samples + outcome.result.samples, masks + outcome.result.masks
    return samples, masks


def _not_checked(check: ShardCheck, failure: Failure | None) -> tuple[str, str]:
    """What there is to say of a shard that was not looked at, and what to do."""
    what = f"could not be checked: {failure.detail if failure else 'no result'}"
    if failure and failure.error is None:  # its worker died, which says nothing about the file
        return what, "run the same `medcurate verify` again, with fewer --workers if memory is short"
    return what, check.remedy
