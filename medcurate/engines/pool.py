"""Several worker processes at once.

Every worker has a pipe of its own, and the driver alone decides which job goes where: no lock and no queue
is shared, so a worker that dies at any instant, also in the middle of its answer, costs only its own job.
That is why no ready-made pool is used. ``concurrent.futures`` fails every pending job when one worker dies;
pebble (5.2) shares one pipe and two locks between all workers, and a worker killed while it answers leaves
the others waiting for a lock that nobody holds.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from itertools import islice
from multiprocessing.connection import wait
from typing import Any

from medcurate.engines.allotted import allotted_cpus, allotted_memory_bytes
from medcurate.engines.child import Child, Errand, require_workers
from medcurate.engines.types import NOTHING, J, Limits, Needs, Outcome, R, Work


def cpus() -> int:
    """The CPUs that this process may use."""
    return allotted_cpus()


def memory_bytes(workers: int) -> int:
    """An even share of the memory that this process may use."""
    return allotted_memory_bytes() // workers


def run(
    work: Work[J, R], jobs: Iterable[J], *, workers: int, limits: Limits, needs: Needs = NOTHING
) -> Generator[Outcome[J, R], None, None]:
    """Run ``jobs`` on up to ``workers`` processes; see ``engines.types.Engine``.

    ``jobs`` is consumed as workers come free, at most ``workers`` ahead of the outcomes; no more workers
    are started than there are jobs. Raises ConfigError for ``workers`` below 1, OutputError if a worker
    cannot start, and what loading ``work`` raises in a worker.
    """
    require_workers(workers)
    errand = Errand.of(work, needs.modules)
    pending = iter(jobs)
    children: list[Child[J]] = []
    try:
        for job in islice(pending, workers):
            children.append(Child(errand, limits))
            children[-1].assign(job)
        yield from _outcomes(children, pending)
    finally:
        for child in children:
            child.kill()
        for child in children:
            child.close()


def _outcomes(children: list[Child[J]], pending: Iterator[J]) -> Iterator[Outcome[J, Any]]:
    while children:
        heard = set(wait([child.pipe for child in children]))
        for child in [child for child in children if child.pipe in heard]:
            job, reply = child.job, child.receive()
            if reply is None:
                continue
            # The next job goes out before the outcome, so that the worker does not wait for the consumer.
            if following := list(islice(pending, 1)):
                child.assign(following[0])
            else:
                children.remove(child)
                child.close()
            yield Outcome(job, reply.result, reply.failure)
