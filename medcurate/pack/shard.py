"""The job of one shard: read its samples wherever they lie, edit them if the rules say so, write and record.

Commit order: tar, rows, ledger rows, record. A record therefore means that the shard is whole.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from medcurate.commit import sha256_file, write_json
from medcurate.engines.types import Guard
from medcurate.format import SHARD_FOLDER
from medcurate.format.columns import MANIFEST, REJECTS
from medcurate.format.record import FileRecord
from medcurate.format.sample import SampleError, digest
from medcurate.format.shards import ShardWriter, shard_writer
from medcurate.format.tables import write_table
from medcurate.ledger import rejects_table
from medcurate.pack.edit import Edited, edit
from medcurate.pack.inputs import Inputs
from medcurate.pack.rows import PackedRows, samples_of
from medcurate.pack.types import ShardPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardJob:
    """Everything a worker needs; paths instead of rows, so that a job is small.

    ``expected``: what a finished output's record says of the tar, None while the output is unfinished.
    ``tables_stand``: the finished output's tables are whole, so that rows are not needed again.
    """

    shard: ShardPlan
    plan: Path
    plan_digest: str
    root: Path
    out: Path
    work: Path
    filtered: bool
    size_px: int
    expected: FileRecord | None = None
    tables_stand: bool = False

    @property
    def name(self) -> str:
        """The tar, relative to the output."""
        return f"{SHARD_FOLDER}/{self.shard.name}.tar"

    @property
    def rows_path(self) -> Path:
        """The shard's manifest rows."""
        return self.work / f"{self.shard.name}.manifest.parquet"

    @property
    def rejects_path(self) -> Path:
        """What was refused while this shard was made; absent if nothing was."""
        return self.work / f"{self.shard.name}.rejects.parquet"

    @property
    def record_path(self) -> Path:
        """Written after the shard's other files."""
        return self.work / f"{self.shard.name}.json"


@dataclass(frozen=True, slots=True)
class ShardRecord:
    """What is known of a finished shard."""

    plan_digest: str
    size_bytes: int
    sha256: str
    samples: int
    masks: int
    rejects: int


def stands(job: ShardJob) -> ShardRecord | None:
    """The record of a shard that need not be made: committed from the same plan, and its tar is there.

    In an unfinished output the tar's size decides; of a finished one the bytes were read, because a rerun
    there is a repair.
    """
    try:
        record = ShardRecord(**json.loads(job.record_path.read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):
        return None  # none, or a damaged one: the shard is made again
    tar = job.out / job.name
    if record.plan_digest != job.plan_digest or not tar.is_file() or tar.stat().st_size != record.size_bytes:
        return None
    return record


def pack_shard(job: ShardJob, guard: Guard) -> tuple[FileRecord, bool]:
    """Make the shard unless it stands. Returns the tar's facts and whether the tar was written.

    Raises DamagedInput, and OutputError when it cannot be written.
    """
    with guard(job.shard.name):
        record = stands(job)
        intact = _is_intact(job)
        if intact and (record or job.tables_stand) and job.expected:
            return job.expected, False
        if record and not job.expected:
            return FileRecord(record.size_bytes, record.sha256), False
        made = _make(job, keep=intact)
        return FileRecord(made.size_bytes, made.sha256), not intact


def _is_intact(job: ShardJob) -> bool:
    tar = job.out / job.name
    return (
        job.expected is not None
        and tar.is_file()
        and tar.stat().st_size == job.expected.size_bytes
        and sha256_file(tar) == job.expected.sha256
    )


def _make(job: ShardJob, *, keep: bool) -> ShardRecord:
    job.record_path.unlink(missing_ok=True)
    packed = PackedRows(_planned_rows(job), job.size_px)
    with _target(job, keep) as writer:
        _write_samples(job, packed, writer)
    rows = packed.table(job.name)
    write_table(job.rows_path, MANIFEST, [rows])
    job.rejects_path.unlink(missing_ok=True)
    if packed.lost:
        write_table(job.rejects_path, REJECTS, [rejects_table(packed.lost)])
    record = ShardRecord(
        plan_digest=job.plan_digest,
        size_bytes=writer.size_bytes,
        sha256=writer.sha256,
        samples=len(packed.offsets),
        masks=rows.num_rows,
        rejects=len(packed.lost),
    )
    write_json(job.record_path, asdict(record))
    return record


@contextmanager
def _target(job: ShardJob, keep: bool) -> Iterator[ShardWriter]:
    """Where samples go: the tar, or nowhere when the tar is whole and only its rows are needed again."""
    if not keep:
        with shard_writer(job.out / job.name) as writer:
            yield writer
        return
    with open(os.devnull, "wb") as nowhere:
        writer = ShardWriter(nowhere)
        yield writer
        writer.finish()


def _planned_rows(job: ShardJob) -> pa.Table:
    """The shard's rows of the plan; only the row groups that hold them are read."""
    first, stop = job.shard.first_row, job.shard.first_row + job.shard.rows
    file = pq.ParquetFile(job.plan)
    sizes = [file.metadata.row_group(number).num_rows for number in range(file.metadata.num_row_groups)]
    ends = np.cumsum(sizes)
    groups = np.arange(np.searchsorted(ends, first, "right"), np.searchsorted(ends, stop, "left") + 1)
    skipped = first - int(ends[groups[0]] - sizes[groups[0]])
    return file.read_row_groups(groups.tolist()).slice(skipped, job.shard.rows)


def _write_samples(job: ShardJob, packed: PackedRows, writer: ShardWriter) -> None:
    samples = samples_of(packed.planned)
    chosen = packed.planned["annotation"].to_pylist()
    with Inputs(job.root) as inputs:
        blobs = inputs.read_all([sample.stored for sample in samples])
        for sample, blob in zip(samples, blobs, strict=True):
            annotations = chosen[sample.first : sample.first + sample.count]
            try:
                edited = _edited(job, blob, annotations)
            except SampleError as error:
                raise inputs.damaged(sample.stored, str(error)) from error
            packed.add(sample, edited)
            if edited.blob is not None:
                same = edited.blob is blob
                checksum = sample.stored.digest if same else digest(edited.blob)
                packed.place(len(edited.kept), writer.append(edited.blob), len(edited.blob), checksum)


def _edited(job: ShardJob, blob: bytes, annotations: list[int]) -> Edited:
    if not job.filtered and not job.size_px:
        return Edited(blob, tuple(range(len(annotations))))
    return edit(blob, annotations, job.size_px)
