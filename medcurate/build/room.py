"""How much room on the disk a build still asks for, told when there was too little of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from medcurate.job.spec import Job, PartRecord

# Bytes of a part by bytes of its input, where nothing is known yet: gzipped volumes with planes that show nothing
# (0.14 to 0.55 in docs/benchmarks.md and the quickstart), and pictures, which are deflated before and after.
_TYPICAL_SHARE = {2: 1.0, 3: 0.3}


def still_needed_bytes(jobs: Sequence[Job], records: Mapping[str, PartRecord]) -> int:
    """What the parts without a record and all shards will take, about; shards are as large as the parts."""
    read, written = (
        Counter[str | int](),
        Counter[str | int](),
    )  # of finished parts, by source and by dimensions
    for job in jobs:
        if job.id in records:
            for kind in (job.source.id, job.source.dimensions):
                read[kind] += job.size_bytes
                written[kind] += records[job.id].tar_bytes
    missing = [job for job in jobs if job.id not in records]
    left = sum(round(job.size_bytes * _share(job, read, written)) for job in missing)
    return 2 * left + sum(records[job.id].tar_bytes for job in jobs if job.id in records)


def _share(job: Job, read: Mapping[str | int, int], written: Mapping[str | int, int]) -> float:
    """Bytes out by bytes in, as of the finished parts of the job's source.

    Where it has none, as of those of volumes or of pictures, as it is; they count for as much as they are, and what
    is typical for as much as the job is, for a small part of another source says little of a large one.
    """
    source, dimensions = job.source.id, job.source.dimensions
    if read[source]:
        return written[source] / read[source]
    own = job.size_bytes or 1
    return (written[dimensions] + own * _TYPICAL_SHARE[dimensions]) / (read[dimensions] + own)
