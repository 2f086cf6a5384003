"""How many cases are done while their jobs still run: read from what each job tells ``status``."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

from medcurate.job.spec import Job, progress_path, read_progress

LOOK_SECONDS = 1.0  # a file for every worker is read each time


@contextmanager
def counted(advance: Callable[[int], object]) -> Iterator[Tally]:
    """A tally that tells ``advance`` of new cases, about every second while the body runs."""
    tally, over = Tally(advance), threading.Event()
    thread = threading.Thread(target=_look_often, args=(tally, over), daemon=True)
    thread.start()
    try:
        yield tally
    finally:
        over.set()
        thread.join()


def _look_often(tally: Tally, over: threading.Event) -> None:
    with suppress(OSError):  # of a terminal or a log that is gone: who tells the next part is told so
        while not over.wait(LOOK_SECONDS):
            tally.look()


class Tally:
    """Cases that are done, of jobs that run and that have ended; each counts once, also when its job runs again."""

    def __init__(self, advance: Callable[[int], object]) -> None:
        self._advance = advance
        self._running: dict[str, Job] = {}
        self._told: Counter[str] = Counter()  # cases by job; after the death of a worker more than are done
        self._lock = threading.Lock()

    def started(self, jobs: Iterable[Job]) -> Iterator[Job]:
        """``jobs`` as an engine takes them."""
        for job in jobs:
            with self._lock:
                self._running[job.id] = job
            yield job

    def stopped(self, job: Job) -> None:
        """``job`` has ended without a part."""
        with self._lock:
            del self._running[job.id]

    def done(self, job: Job) -> None:
        """``job`` has a part."""
        with self._lock:
            del self._running[job.id]
            self._tell(self._new(job, len(job.cases)))

    def look(self) -> None:
        """Tell of the cases that running jobs have done by now."""
        with self._lock:
            self._tell(sum(self._new(job, _done(job)) for job in self._running.values()))

    def _tell(self, cases: int) -> None:
        if cases:  # told of none, a rate would fall between long cases and leap with each
            self._advance(cases)

    def _new(self, job: Job, cases: int) -> int:
        more = max(0, cases - self._told[job.id])
        self._told[job.id] += more
        return more


def _done(job: Job) -> int:
    """The cases that a running job says it has done; 0 where it cannot be read just now."""
    try:
        told = read_progress(progress_path(job.parts, job.id))
        return min(told["cases"]["discovered"], len(job.cases)) if told else 0
    except (OSError, KeyError, TypeError):
        return 0
