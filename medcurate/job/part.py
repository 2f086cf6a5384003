"""Running a job: every case in its own guard, its failure a ledger row, the part committed as a whole."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING

import cv2

from medcurate.commit import committed, output_error, sha256_file, write_json
from medcurate.decoders import DECODERS
from medcurate.engines.types import Guard
from medcurate.errors import CaseRejected, Reason
from medcurate.format.columns import MANIFEST, REJECTS
from medcurate.format.shards import TarWriter
from medcurate.format.tables import write_table
from medcurate.job.case import CaseResult, write_case
from medcurate.job.spec import CaseFacts, Job, PartRecord, record_path, rejects_path, rows_path, tar_path
from medcurate.ledger import rejects_table
from medcurate.readers import READERS
from medcurate.readers.files import CaseFiles
from medcurate.types import Case, Reject

if TYPE_CHECKING:
    import pyarrow as pa

_CV2_NO_MEMORY = -4  # cv::Error::StsNoMem

Ledger = list[tuple[str, str, str, Reject]]


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
class _Totals:
    """What the cases of a job add up to."""

    facts: list[CaseFacts] = field(default_factory=list)
    tables: list[pa.Table] = field(default_factory=list)
    ledger: Ledger = field(default_factory=list)
    inputs: dict[str, tuple[str, int, int]] = field(default_factory=dict)
    counts: dict[str, dict[str, int]] = field(
        default_factory=lambda: {
            kind: {"discovered": 0, "written": 0} for kind in ("cases", "slices", "masks")
        }
    )

    def add(self, case: Case, result: CaseResult) -> None:
        """Count a case that was written."""
        self.facts.append(
            CaseFacts(case=case.id, group=case.group, split=case.split, digests=tuple(sorted(result.digests)))
        )
        self.tables += result.tables
        self.ledger += [(case.source, case.id, case.group, reject) for reject in result.rejects]
        self.counts["cases"]["written"] += 1
        for kind in ("slices", "masks"):
            self.counts[kind]["discovered"] += getattr(result, f"{kind}_discovered")
            self.counts[kind]["written"] += getattr(result, f"{kind}_written")


def run_job(job: Job, guard: Guard) -> PartRecord:
    """Build and commit the part of ``job``; its record is written last. Raises OutputError."""
    started = time.perf_counter()
    totals = _Totals()
    # As large as the shards and removed after them; their digests find what a loss of power takes from it.
    with committed(tar_path(job.parts, job.id), scratch=True) as stream:
        writer = PartWriter(stream, tar_path(job.parts, job.id))
        for case in job.cases:
            with guard(case.id):
                _one(job, case, writer, totals)
        writer.finish()
    write_table(rows_path(job.parts, job.id), MANIFEST, totals.tables)
    write_table(rejects_path(job.parts, job.id), REJECTS, [rejects_table(totals.ledger)])
    record = _record(job, writer, totals, time.perf_counter() - started)
    write_json(record_path(job.parts, job.id), asdict(record))
    return record


def modules(jobs: Iterable[Job]) -> list[str]:
    """What running ``jobs`` will import on the way, so that an engine can import it once for all workers."""
    names = {"pyarrow.compute", "pyarrow.parquet"}
    for source in [job.source for job in jobs]:
        names |= {READERS[source.image.reader], READERS[source.label.reader], DECODERS[source.label.decoder]}
    return sorted(names)


def _one(job: Job, case: Case, writer: PartWriter, totals: _Totals) -> None:
    totals.counts["cases"]["discovered"] += 1
    files = CaseFiles(job.root, job.recipe.limits.volume_bytes)
    mark = writer.size_bytes
    try:
        if case.id in job.condemned:
            totals.ledger.append((case.source, case.id, case.group, job.condemned[case.id]))
        else:
            result = write_case(job, case, files, writer)
            if not result.slices_discovered:
                raise CaseRejected(Reason.NO_ANNOTATION, "no voxel carries a declared label")
            totals.add(case, result)
    except CaseRejected as error:
        writer.rollback(mark)
        totals.ledger.append((case.source, case.id, case.group, _rejected(error)))
    except OSError as error:  # of a library: files are opened through CaseFiles, which has its own refusals
        writer.rollback(mark)
        reject = Reject(
            stage="read", reason=Reason.UNREADABLE, detail=f"an unexpected {type(error).__name__}"
        )
        totals.ledger.append((case.source, case.id, case.group, reject))
    except (MemoryError, cv2.error) as error:
        if not _is_out_of_memory(error):
            raise
        writer.rollback(mark)
        totals.ledger.append((case.source, case.id, case.group, _out_of_memory()))
    for path, digest in files.inputs.items():
        totals.inputs[path.as_posix()] = (digest.sha256, digest.size_bytes, digest.mtime_ns)


def _rejected(error: CaseRejected) -> Reject:
    stage = "label" if error.reason in {Reason.BAD_LABEL, Reason.NO_ANNOTATION} else "read"
    return Reject(stage=stage, reason=error.reason, detail=error.detail, measures=error.measures)


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or getattr(error, "code", None) == _CV2_NO_MEMORY


def _out_of_memory() -> Reject:
    return Reject(stage="read", reason=Reason.MEMORY, detail="needs more memory than a worker may use")


def _record(job: Job, writer: PartWriter, totals: _Totals, seconds: float) -> PartRecord:
    rejected = {"cases": 0, "slices": 0, "masks": 0}
    kinds = {"slice": "slices", "mask": "masks"}
    for *_, reject in totals.ledger:
        rejected[kinds.get(reject.stage, "cases")] += 1
    counts = {kind: totals.counts[kind] | {"rejected": rejected[kind]} for kind in rejected}
    rows, rejects = rows_path(job.parts, job.id), rejects_path(job.parts, job.id)
    return PartRecord(
        job=job.id,
        source=job.source.id,
        tar_bytes=writer.size_bytes,
        rows_bytes=rows.stat().st_size,
        rows_sha256=sha256_file(rows),
        rejects_bytes=rejects.stat().st_size,
        rejects_sha256=sha256_file(rejects),
        counts=counts,
        reasons=dict(Counter(str(reject.reason) for *_, reject in totals.ledger)),
        cases=tuple(totals.facts),
        inputs=tuple((path, *facts) for path, facts in sorted(totals.inputs.items())),
        seconds=seconds,
    )
