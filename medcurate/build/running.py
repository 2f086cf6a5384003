"""Running jobs until each has a part, and what the death of a worker costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from medcurate.build.tally import Tally, counted
from medcurate.engines.types import Engine, Failure, Limits, Needs, few
from medcurate.errors import MedcurateError, OutputError, Reason
from medcurate.job.part import modules, out_of_memory, run_job
from medcurate.job.spec import Job, PartRecord
from medcurate.types import Reject

# A worker can be killed from outside; only a case that was running at two deaths is condemned.
_DEATHS = 2


@dataclass(frozen=True, slots=True)
class _Stuck:
    """A job whose workers die where no case is to blame, mostly while its part is committed; how the last one died."""

    job: Job
    failure: Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class _Runs:
    """How jobs are run, and who is told of their parts."""

    engine: Engine
    limits: Limits
    needs: Needs
    done: Callable[[PartRecord], None]
    tally: Tally

    def finish(self, jobs: Iterable[Job], workers: int) -> list[_Stuck]:
        """Run ``jobs`` until each has a part, or is stuck."""
        deaths: Counter[tuple[str, str]] = Counter()
        pending, stuck = list(jobs), list[_Stuck]()
        while pending:
            again = []
            outcomes = self.engine(
                run_job,
                self.tally.started(pending),
                workers=workers,
                limits=self.limits,
                needs=self.needs,
            )
            with closing(outcomes):
                for outcome in outcomes:
                    if outcome.result is not None:
                        self.tally.done(outcome.job)
                        self.done(outcome.result)
                    elif outcome.failure is not None:
                        self.tally.stopped(outcome.job)
                        job = _after_death(outcome.job, outcome.failure, deaths)
                        if job:
                            again.append(job)
                        else:
                            stuck.append(_Stuck(outcome.job, outcome.failure))
            pending = again
        return stuck


def run_jobs(
    jobs: Sequence[Job],
    engine: Engine,
    *,
    workers: int,
    limits: Limits,
    done: Callable[[PartRecord], None],
    advance: Callable[[int], object],
) -> None:
    """Run ``jobs`` until each has a part; calls ``done`` for each, and ``advance`` with cases as they are done.

    Raises OutputError when a part cannot be had, after all the others.
    """
    with counted(advance) as tally:
        runs = _Runs(engine=engine, limits=limits, needs=_needs(jobs), done=done, tally=tally)
        # When memory runs out the system ends a large process, whoever asked for more: alone, none is in the way.
        stuck = runs.finish([entry.job for entry in runs.finish(jobs, workers)], 1)
    if stuck:
        raise _given_up(stuck)


def _needs(jobs: Sequence[Job]) -> Needs:
    cases = few([(job.root, case) for job in jobs for case in job.cases])
    reads = {root / path for root, case in cases for path in (case.paths[:1] + case.paths[-1:])}
    return Needs(tuple(modules(jobs)), reads=tuple(sorted(reads)), writes=tuple({job.parts for job in jobs}))


def _after_death(job: Job, failure: Failure, deaths: Counter[tuple[str, str]]) -> Job | None:
    """The job to try next: the same once more, then without the case that it dies in; None where it is in none."""
    if isinstance(failure.error, MedcurateError):
        raise failure.error
    to_blame = failure.step in {case.id for case in job.cases} - job.condemned.keys()
    if failure.error is not None and not to_blame:
        raise _outside(job, failure) from failure.error
    deaths[job.id, failure.step] += 1
    if deaths[job.id, failure.step] < _DEATHS and failure.error is None:
        return job
    if not to_blame:
        return None
    return replace(job, condemned={**job.condemned, failure.step: _rejected(failure)})


def _rejected(failure: Failure) -> Reject:
    """The ledger row of a case that ended its job; an exception's text may quote names, so its type must do."""
    if failure.error is None:
        return Reject(stage="read", reason=failure.reason, detail=failure.detail)
    if isinstance(failure.error, MemoryError):
        return out_of_memory()
    detail = f"an unexpected {type(failure.error).__name__} while reading"
    return Reject(stage="read", reason=Reason.DECODER_CRASH, detail=detail)


def _outside(job: Job, failure: Failure) -> OutputError:
    remedy = (
        "Run the same command again with more --memory: it continues."
        if isinstance(failure.error, MemoryError)
        else "Please report this as a defect of medcurate."
    )
    return OutputError(f"{_named(job)} failed outside of any case: {failure.detail}. {remedy}")


def _given_up(stuck: Sequence[_Stuck]) -> OutputError:
    first, more = stuck[0], len(stuck) - 1
    others = f" So it is with {more} other job{'' if more == 1 else 's'}." if more else ""
    return OutputError(
        f"{_named(first.job)} cannot be finished: outside of any case, mostly while its part is committed, "
        f"its worker ended again and again, also when no other was running: {first.failure.detail}.{others} "
        "Free memory where it was short, and run the same command again: it continues, and all other parts are kept."
    )


def _named(job: Job) -> str:
    first, last = job.cases[0].id, job.cases[-1].id
    return f"{job.source.id}: job {job.id} ({first if first == last else f'{first} to {last}'})"
