"""Parts on disk: which jobs are done, and whether what they left is as it was."""

from __future__ import annotations

from pathlib import Path

from medcurate.commit import sha256_file
from medcurate.errors import Reason
from medcurate.format.sample import SampleError
from medcurate.format.shards import read_sample
from medcurate.job.spec import (
    Job,
    PartRecord,
    read_part_record,
    record_path,
    rejects_path,
    rows_path,
    tar_path,
)
from medcurate.zips import inside
from medcurate.zips.volumes import BadMember

PARTS_FOLDER = "parts"  # in a work folder
_PLACE = ("offset", "size", "digest")  # of a sample: what ``read_sample`` asks for
OF_THE_MACHINE = {Reason.MEMORY, Reason.TIMEOUT, Reason.DECODER_CRASH}


def committed_part(job: Job) -> PartRecord | None:
    """The record of a job whose part is whole and made of the files as they are now, else None.

    A part that lacks cases for reasons of the machine is built again: there may be more memory or time now.
    """
    record = _record(job)
    if record is None or OF_THE_MACHINE & record.reasons.keys():
        return None
    return record if _whole(job, record) and not changed_inputs(job) else None


def changed_inputs(job: Job) -> list[str]:
    """Input files that are not as the job's part read them; empty where there is no record of a part.

    Sizes and times are compared first; only a file whose time differs is read.
    """
    record = _record(job)
    if record is None:
        return []
    return [
        path
        for path, sha256, size, mtime_ns in record.inputs
        if not _same(job.root / path, sha256, size, mtime_ns)
    ]


def _record(job: Job) -> PartRecord | None:
    path = record_path(job.parts, job.id)
    if not path.is_file():
        return None
    try:
        return read_part_record(path)
    except (ValueError, KeyError, TypeError):
        return None  # a damaged record: the part is built again


def forget_part(parts: Path, job: str) -> None:
    """Make the job count as not done."""
    record_path(parts, job).unlink(missing_ok=True)


def damage_in(parts: Path, job: str) -> str:
    """What is wrong with the samples of a part that has a record, by their digests; "" where nothing is."""
    import pyarrow.parquet as pq

    rows = pq.read_table(rows_path(parts, job), columns=list(_PLACE))
    places = dict.fromkeys(zip(*(rows[name].to_pylist() for name in _PLACE), strict=True))
    try:
        with open(tar_path(parts, job), "rb", buffering=0) as stream:
            for place in places:
                read_sample(stream.fileno(), *place)
    except (OSError, SampleError) as error:
        return str(error)
    return ""


def _whole(job: Job, record: PartRecord) -> bool:
    tables = (
        (rows_path, record.rows_bytes, record.rows_sha256),
        (rejects_path, record.rejects_bytes, record.rejects_sha256),
    )
    if _size(tar_path(job.parts, job.id)) != record.tar_bytes:
        return False
    return all(
        _size(path(job.parts, job.id)) == size and sha256_file(path(job.parts, job.id)) == digest
        for path, size, digest in tables
    )


def _same(path: Path, digest: str, size_bytes: int, mtime_ns: int) -> bool:
    try:
        facts = inside.facts(path)
        if facts.size_bytes != size_bytes:
            return False
        return facts.mtime_ns == mtime_ns or inside.sha256(path) == digest
    except (OSError, ValueError, BadMember):
        return False


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1
