"""The contract of engines: jobs in, outcomes out, whatever happens to a worker."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, NamedTuple, Protocol, TypeVar

J = TypeVar("J")
R = TypeVar("R")
T = TypeVar("T")

# Marks a named step of a job: a time limit applies to its body, and a worker's death inside is blamed on it.
Guard = Callable[[str], AbstractContextManager[None]]
# Picklable: a top-level function of a module that can be imported (not of __main__), or functools.partial of one.
Work = Callable[[J, Guard], R]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a worker may use: wall-clock seconds in one guarded step, bytes of memory beyond its idle size."""

    step_seconds: float
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a job has no result.

    ``reason``: a medcurate.errors.Reason value for a death (DECODER_CRASH, TIMEOUT), or "ERROR" for an
    exception that ``work`` raised; ``step``: the guarded step it happened in, "" outside of any.
    ``error`` is the exception itself where one was raised.
    """

    reason: str
    step: str
    detail: str
    error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class Outcome(Generic[J, R]):
    """What became of one job; exactly one of ``result`` and ``failure`` is set."""

    job: J
    result: R | None = None
    failure: Failure | None = None


class Needs(NamedTuple):
    """What jobs need to find where they run.

    ``modules``: what they will import beside the module of their work, so that an engine can load it once for all
    workers; that changes nothing but the time it takes. ``reads``: files, a few of those that jobs will read, and
    ``writes``: folders that they write to; an engine that runs jobs on other machines makes sure that both are there.
    """

    modules: tuple[str, ...] = ()
    reads: tuple[Path, ...] = ()
    writes: tuple[Path, ...] = ()


NOTHING = Needs()
_FEW = 32


def few(items: Sequence[T]) -> Sequence[T]:
    """Some of many, evenly spread: enough files to tell a place that has them from one that has not."""
    return items[:: max(1, len(items) // _FEW)]


class Engine(Protocol):
    """Runs every job once, in any order, and yields each outcome as soon as it is known.

    A worker that dies costs only the job that it was running. KeyboardInterrupt in the consumer, or
    closing the iterator, ends all workers within seconds.
    """

    def __call__(
        self,
        work: Work[J, R],
        jobs: Iterable[J],
        *,
        workers: int,
        limits: Limits,
        needs: Needs = NOTHING,
    ) -> Generator[Outcome[J, R], None, None]: ...


class EngineModule(Protocol):
    """What the module of an engine has."""

    run: Engine

    def cpus(self) -> int:
        """How many workers suit what the engine may use, at least 1."""

    def memory_bytes(self, workers: int) -> int:
        """What each of ``workers`` may use."""
