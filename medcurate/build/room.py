"""How much room on the disk a build still asks for, told when there was too little of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from medcurate.job.spec import Job, PartRecord

# Bytes of a part by bytes of its input, where nothing is known yet: gzipped volumes with planes that show nothing
# (0.14 to 0.55 in docs/benchmarks.md and the quickstart), and pictures, which are deflated before and after.
_TYPICAL_SHARE = {2: 1.0, 3: 0.3}


def still_needed_bytes(jobs: Sequence[Job], records: Mapping[str, PartRecord]) -> int:
    """What the parts without a record and all shards will take, about; shards are as large as the parts."""
    done = {job.id: records[job.id].tar_bytes for job in jobs if job.id in records}
    missing = [job for job in jobs if job.id not in done]
    left = sum(round(job.size_bytes * _share(job, jobs, done)) for job in missing)
    return 2 * left + sum(done.values())


def _share(job: Job, jobs: Sequence[Job], done: Mapping[str, int]) -> float:
    """Bytes out by bytes in, as of the finished parts of the job's source.

    Where it has none, as of those of volumes or of pictures, as it is; they count for as much as they are, and what
    is typical for as much as the job is, for a small part of another source says little of a large one.
    """
    dimensions = job.source.dimensions
    finished = [other for other in jobs if other.id in done and other.source.dimensions == dimensions]
    own = [other for other in finished if other.source.id == job.source.id]
    of_typical = 0 if _bytes(own) else job.size_bytes or 1
    judged_by = own if _bytes(own) else finished
    out = sum(done[other.id] for other in judged_by) + of_typical * _TYPICAL_SHARE[dimensions]
    return out / (_bytes(judged_by) + of_typical)


def _bytes(jobs: Iterable[Job]) -> int:
    return sum(job.size_bytes for job in jobs)
