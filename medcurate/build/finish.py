"""From parts to the dataset: groups and splits, shards and tables, and the record that is written last."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medcurate.acceptance import Acceptance
from medcurate.build.plan import SourcePlan
from medcurate.build.report import SourceReport, add_counts
from medcurate.build.splits import Assignment
from medcurate.commit import committed
from medcurate.config.source import Source
from medcurate.engines.types import Engine
from medcurate.errors import OutputError
from medcurate.format.columns import REJECTS
from medcurate.format.record import DatasetRecord
from medcurate.format.tables import write_table
from medcurate.job.spec import PartRecord, rejects_path, rows_path
from medcurate.ledger import rejects_table
from medcurate.library import Resolved
from medcurate.pack.run import write_shards
from medcurate.pack.types import PackInput, PackResult, PackRules


@dataclass(frozen=True, slots=True)
class Stated:
    """What the record says of how it was made: the claim that decides the bytes, and the accepted terms."""

    made_by: Mapping[str, Any]
    accepted: Mapping[str, Acceptance]


@dataclass(frozen=True, slots=True, kw_only=True)
class Folders:
    """Where a build writes: the dataset, the work folder of this output, and the parts, which others may share."""

    out: Path
    work: Path
    parts: Path


def pack_parts(
    resolved: Resolved,
    plans: Sequence[SourcePlan],
    assignments: Sequence[Assignment],
    folders: Folders,
    *,
    engine: Engine,
    workers: int,
) -> PackResult:
    """Shuffle the parts' samples into the dataset's shards and tables. Raises DamagedInput and OutputError."""
    jobs = [job.id for entry in plans for job in entry.jobs]
    refused = folders.work / "refused.parquet"
    ledger = [(entry.source, *reject) for entry in plans for reject in entry.discovery.rejects]
    write_table(refused, REJECTS, [rejects_table(ledger)])
    inputs = PackInput(
        root=folders.parts,
        manifests=tuple(rows_path(folders.parts, job) for job in jobs),
        rejects=(refused, *(rejects_path(folders.parts, job) for job in jobs)),
        assignments=_write_assignments(folders.work / "assignments.parquet", assignments),
    )
    shards = resolved.recipe.shards
    rules = PackRules(seed=shards.seed, shard_bytes=shards.size_bytes)
    return write_shards(inputs, rules, folders.out, folders.work, engine=engine, workers=workers)


def write_record(
    resolved: Resolved,
    stated: Stated,
    plans: Sequence[SourcePlan],
    reports: Sequence[SourceReport],
    records: Mapping[str, PartRecord],
    packed: PackResult,
    out: Path,
) -> None:
    """Commit ``dataset.json``. Raises OutputError when the shards do not hold what the parts held."""
    counts = add_counts([report.counts for report in reports])
    for kind in ("slices", "masks"):
        if packed.written[kind] != counts[kind]["written"]:
            raise OutputError(
                f"{counts[kind]['written']} {kind} in the parts, but {packed.written[kind]} in the shards: "
                "something was lost. Please report this as a defect of medcurate."
            )
    sources = {
        source.id: _source_facts(source, entry, [records[job.id] for job in entry.jobs])
        | {"counts": report.counts, "refused": dict(report.reasons), "idle_errata": report.idle_errata}
        for source, entry, report in zip(resolved.sources, plans, reports, strict=True)
    }
    record = DatasetRecord(
        name=resolved.recipe.name,
        made_by=stated.made_by,
        sources=sources,
        counts=counts,
        files=packed.files,
        lineage=_lineage_facts(resolved),
        accepted={name: asdict(entry) for name, entry in stated.accepted.items()},
    )
    record.write(out)


def _lineage_facts(resolved: Resolved) -> dict[str, Any]:
    """What the sources share, and which of the recipe were left out; nothing where there is nothing to say."""
    if not (resolved.overlaps or resolved.left_out):
        return {}
    return {
        "overlaps": [overlap.text for overlap in resolved.overlaps],
        "left_out": {entry.source: entry.why for entry in resolved.left_out},
    }


def _source_facts(source: Source, plan: SourcePlan, records: Sequence[PartRecord]) -> dict[str, Any]:
    inputs = sorted(entry for record in records for entry in record.inputs)
    listing = "".join(f"{digest}  {path}\n" for path, digest, *_ in inputs)
    return {
        "title": source.title,
        "homepage": source.homepage,
        "citation": source.citation,
        "licence": source.licence.model_dump(mode="json"),
        "access": source.access,
        "synthetic": source.synthetic,
        "plan_sha256": plan.digest,
        "input_files": len(inputs),
        "input_bytes": sum(size for *_, size, _ in inputs),
        "inputs_sha256": hashlib.sha256(listing.encode()).hexdigest(),
    }


def _write_assignments(path: Path, assignments: Sequence[Assignment]) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = sorted({(entry.own, entry.group, entry.split) for entry in assignments})
    columns = {
        name: pa.array([row[at] for row in rows], pa.string())
        for at, name in enumerate(("own", "group", "split"))
    }
    with committed(path) as stream:
        pq.write_table(pa.table(columns), stream)
    return path
