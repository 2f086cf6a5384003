"""Running a job: every case in its own guard, its failure a ledger row, the part committed as a whole."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import cv2

from medcurate.commit import committed, output_error, sha256_file, write_json
from medcurate.decoders import DECODERS
from medcurate.engines.types import Guard
from medcurate.errors import CaseRejected, Reason
from medcurate.format.columns import MANIFEST, REJECTS
from medcurate.format.shards import TarWriter
from medcurate.format.tables import TableWriter, table_writer
from medcurate.job.case import CaseResult, write_case
from medcurate.job.refused import refused_rows
from medcurate.job.spec import (
    CaseFacts,
    Job,
    PartRecord,
    progress_path,
    record_path,
    rejects_path,
    rows_path,
    tar_path,
)
from medcurate.ledger import level, rejects_table
from medcurate.readers import READERS
from medcurate.readers.files import CaseFiles
from medcurate.types import Case, Reject

if TYPE_CHECKING:
    import pyarrow as pa

_CV2_NO_MEMORY = -4  # cv::Error::StsNoMem

# Of a part's tables, which are read once and sorted: what waits in memory is to be small beside any --memory.
_ROW_GROUP_ROWS = 1 << 14


class PartWriter(TarWriter):
    """A tar writer that can take back the samples of a case that fails half-way.

    No digest of the whole is taken: every sample's own digest is checked when parts are packed.
    """

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        super().__init__(stream)
        self._path = path

    def append(self, blob: bytes) -> int:
        """Write one encoded sample and return its byte offset. Raises OutputError, so that a case is not blamed."""
        try:
            return super().append(blob)
        except OSError as error:
            raise output_error(error, self._path) from error

    def rollback(self, size_bytes: int) -> None:
        """Forget everything that was appended since the tar had ``size_bytes``."""
        self.size_bytes = size_bytes
        self.stream.seek(size_bytes)
        self.stream.truncate()


@dataclass(slots=True)
class _Part:
    """What the cases of a job make and add up to: of their rows, at most a row group is in memory."""

    samples: PartWriter
    rows: TableWriter
    ledger: TableWriter
    facts: list[CaseFacts] = field(default_factory=list)
    inputs: dict[str, tuple[str, int, int]] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)  # ledger rows by reason
    counts: dict[str, dict[str, int]] = field(
        default_factory=lambda: {
            kind: {"discovered": 0, "written": 0, "rejected": 0} for kind in ("cases", "slices", "masks")
        }
    )

    def add(self, case: Case, result: CaseResult) -> None:
        """Keep the rows of a case whose samples were written. Raises what ``TableWriter.add`` does, and MemoryError."""
        for table in result.tables:
            for start in range(0, len(table), _ROW_GROUP_ROWS):
                self.rows.add(table.slice(start, _ROW_GROUP_ROWS))
            if len(table) > _ROW_GROUP_ROWS:
                self.rows.detach()
        owner = {"source": case.source, "case": case.id, "group": case.group}
        for channel, found in result.refused:
            for table in refused_rows(found, {**owner, "channel": channel}):
                self._refuse(table)
        self.facts.append(
            CaseFacts(case=case.id, group=case.group, split=case.split, digests=tuple(sorted(result.digests)))
        )
        self.counts["cases"]["written"] += 1
        for kind in ("slices", "masks"):
            self.counts[kind]["discovered"] += getattr(result, f"{kind}_discovered")
            self.counts[kind]["written"] += getattr(result, f"{kind}_written")

    def refuse(self, case: Case, reject: Reject) -> None:
        """Keep the row of a case that is not written."""
        self._refuse(rejects_table([(case.source, case.id, case.group, reject)]))

    def _refuse(self, table: pa.Table) -> None:
        self.ledger.add(table)
        for reason, number in _numbers(table, "reason"):
            self.reasons[reason] += number
        for stage, number in _numbers(table, "stage"):
            self.counts[level(stage)]["rejected"] += number


def _numbers(table: pa.Table, column: str) -> Iterator[tuple[str, int]]:
    """How often each value stands in a column."""
    for entry in table[column].value_counts():
        yield entry["values"].as_py(), entry["counts"].as_py()


def run_job(job: Job, guard: Guard) -> PartRecord:
    """Build and commit the part of ``job``; its record is written last. Raises OutputError.

    Whatever a case costs, it is inside of its own guard, the writing of its rows too, but for the last row group of
    each table: should that fail, the part is spoilt, and the job must be run again without the case.
    """
    started = time.perf_counter()
    with _progress(progress_path(job.parts, job.id)) as tell:
        part = _written(job, guard, tell)
        record = _record(job, part, time.perf_counter() - started)
        write_json(record_path(job.parts, job.id), asdict(record))
    return record


def _written(job: Job, guard: Guard, tell: Callable[[Mapping[str, Any]], None]) -> _Part:
    """Commit the part's tar and tables."""
    tar = tar_path(job.parts, job.id)
    with (
        table_writer(rejects_path(job.parts, job.id), REJECTS, _ROW_GROUP_ROWS) as ledger,
        table_writer(rows_path(job.parts, job.id), MANIFEST, _ROW_GROUP_ROWS) as rows,
        # As large as the shards and removed after them; their digests find what a loss of power takes from it.
        committed(tar, scratch=True) as stream,
    ):
        part = _Part(PartWriter(stream, tar), rows, ledger)
        for case in job.cases:
            with guard(case.id):
                _one(job, case, part)
                tell(part.counts)
        part.samples.finish()
    return part


@contextmanager
def _progress(path: Path) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """A function that tells ``status`` how far the job is while the body runs."""

    def tell(counts: Mapping[str, Any]) -> None:
        try:  # numbers grow, so that nothing is left of longer ones
            os.pwrite(stream.fileno(), json.dumps(counts).encode(), 0)
        except OSError as error:
            raise output_error(error, path) from error

    try:
        with open(path, "wb", buffering=0) as stream:
            yield tell
    finally:
        path.unlink(missing_ok=True)


def modules(jobs: Iterable[Job]) -> list[str]:
    """What running ``jobs`` will import on the way, so that an engine can import it once for all workers."""
    names = {"pyarrow.compute", "pyarrow.parquet"}
    for source in [job.source for job in jobs]:
        names |= {READERS[source.image.reader], READERS[source.label.reader], DECODERS[source.label.decoder]}
    return sorted(names)


def _one(job: Job, case: Case, part: _Part) -> None:
    part.counts["cases"]["discovered"] += 1
    files = CaseFiles(job.root, job.recipe.limits.volume_bytes)
    mark = part.samples.size_bytes
    result = _attempt(job, case, files, part.samples)
    if isinstance(result, Reject):
        part.samples.rollback(mark)
        part.refuse(case, result)
    else:
        part.add(case, result)
    for path, digest in files.inputs.items():
        part.inputs[path.as_posix()] = (digest.sha256, digest.size_bytes, digest.mtime_ns)


def _attempt(job: Job, case: Case, files: CaseFiles, samples: PartWriter) -> CaseResult | Reject:
    """What the case gives, or why it gives nothing; it may have written samples all the same."""
    if case.id in job.condemned:
        return job.condemned[case.id]
    try:
        result = write_case(job, case, files, samples)
    except CaseRejected as error:
        return _rejected(error)
    except OSError as error:  # of a library: files are opened through CaseFiles, which has its own refusals
        detail = f"an unexpected {type(error).__name__}"
        return Reject(stage="read", reason=Reason.UNREADABLE, detail=detail)
    except (MemoryError, cv2.error) as error:
        if not _is_out_of_memory(error):
            raise
        return out_of_memory()
    if not result.slices_discovered:
        return _rejected(CaseRejected(Reason.NO_ANNOTATION, "no voxel carries a declared label"))
    return result


def _rejected(error: CaseRejected) -> Reject:
    stage = "label" if error.reason in {Reason.BAD_LABEL, Reason.NO_ANNOTATION} else "read"
    return Reject(stage=stage, reason=error.reason, detail=error.detail, measures=error.measures)


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or getattr(error, "code", None) == _CV2_NO_MEMORY


def out_of_memory() -> Reject:
    """The ledger row of a case that a worker's memory is not enough for."""
    return Reject(stage="read", reason=Reason.MEMORY, detail="needs more memory than a worker may use")


def _record(job: Job, part: _Part, seconds: float) -> PartRecord:
    rows, rejects = rows_path(job.parts, job.id), rejects_path(job.parts, job.id)
    return PartRecord(
        job=job.id,
        source=job.source.id,
        tar_bytes=part.samples.size_bytes,
        rows_bytes=rows.stat().st_size,
        rows_sha256=sha256_file(rows),
        rejects_bytes=rejects.stat().st_size,
        rejects_sha256=sha256_file(rejects),
        counts=part.counts,
        reasons=dict(part.reasons),
        cases=tuple(part.facts),
        inputs=tuple((path, *facts) for path, facts in sorted(part.inputs.items())),
        seconds=seconds,
    )
