"""One job after another, in order; in a worker process too, so that limits and crashes mean the same."""

from __future__ import annotations

from collections.abc import Generator, Iterable

from medcurate.engines import pool
from medcurate.engines.pool import cpus, memory_bytes
from medcurate.engines.types import NOTHING, J, Limits, Needs, Outcome, R, Work

__all__ = ["cpus", "memory_bytes", "run"]


def run(
    work: Work[J, R], jobs: Iterable[J], *, workers: int, limits: Limits, needs: Needs = NOTHING
) -> Generator[Outcome[J, R], None, None]:
    """Run ``jobs`` in their order on one process, whatever ``workers`` says; see ``engines.types.Engine``."""
    return pool.run(work, jobs, workers=min(workers, 1), limits=limits, needs=needs)
