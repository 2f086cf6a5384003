"""Workers on the machines of a Ray cluster that is running already.

Ray only finds room for workers and brings jobs to them. What a job may use, and how its death is told, is the same as
everywhere: each worker is an actor that has one ``engines.child.Child``. Nothing is kept in Ray: what jobs make are the
files that they commit, on a file system that every machine has at the same place. A machine that is lost costs the
jobs that ran there; should it be alive and only out of reach, it writes the same bytes under names of its own.

No cluster is started here: on one machine the pool does the same without one, and Ray's ports ask nobody for a password
unless its owner sees to that (https://docs.ray.io/en/latest/ray-security/index.html).
"""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

from medcurate.engines.child import Child, Errand, require_workers
from medcurate.engines.place import Place, place
from medcurate.engines.types import NOTHING, Failure, J, Limits, Needs, Outcome, R, Work
from medcurate.engines.worker import Reply
from medcurate.errors import ConfigError, OutputError, Reason
from medcurate.progress import emit

try:
    import ray
    from ray.exceptions import RayError, RayTaskError
except ModuleNotFoundError as error:
    raise ConfigError(
        'the engine "ray" needs a package that is not installed: pip install "medcurate[ray]"'
    ) from error

_AGAIN = "Run the same command again: it continues."
_ANSWER_SECONDS = 10.0
_WAIT_SECONDS = 60.0
# And one a worker: a machine may go at any time, but one that cannot start a worker is mended by nobody but its owner.
_LOST_STARTS = 3
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_ADD = "Add machines with `ray start --address=HEAD:6379`."


class Worker:
    """An actor: one worker process, and the way to it."""

    def __init__(self, errand: Errand, limits: Limits) -> None:
        self._child = Child[Any](errand, limits)

    def settle(self, place: Place) -> Reply:
        """Answers as soon as the actor has got a machine, and that is fit. Raises OutputError."""
        place.settle()
        return Reply()

    def run(self, job: Any) -> Reply:
        """What became of ``job``. Raises what ``Child.receive`` does."""
        self._child.assign(job)
        while (reply := self._child.receive()) is None:
            pass
        return reply._replace(retiring=False)  # the child has seen to that


@dataclass(slots=True, eq=False)
class _Hand:
    """A worker as the driver sees it: whether it has a machine already, and the job that it has."""

    actor: Any
    has_settled: bool = False
    job: Any = None


class _Crew:
    """The living workers, and what each was last asked for."""

    def __init__(self, errand: Errand, limits: Limits, here: Place) -> None:
        # Whether a job is tried again is decided by who knows what it left.
        self._actor = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(Worker)
        self._facts = (errand, limits)
        self._here = here
        self._hands: dict[Any, _Hand] = {}  # by what they are waited for
        self._living: list[_Hand] = []

    @property
    def is_busy(self) -> bool:
        """Whether any has a job."""
        return any(hand.has_settled for hand in self._hands.values())

    def hire(self) -> None:
        """Ask for one more, which is heard of when Ray has found a machine for it."""
        hand = _Hand(self._actor.remote(*self._facts))
        self._living.append(hand)
        self._hands[hand.actor.settle.remote(self._here)] = hand

    def assign(self, hand: _Hand, job: Any) -> None:
        """Give a job to one that has none."""
        hand.has_settled, hand.job = True, job
        self._hands[hand.actor.run.remote(job)] = hand

    def heard(self) -> tuple[_Hand, Any]:
        """Wait for any that settles or has done its job: who it is, and what its answer is fetched by."""
        while not (answers := ray.wait(list(self._hands), num_returns=1, timeout=_WAIT_SECONDS)[0]):
            if not self.is_busy:
                emit("waiting", note=f"no machine of the Ray cluster has a free CPU. {_ADD}")
        return self._hands.pop(answers[0]), answers[0]

    def let_go(self, hand: _Hand) -> None:
        """End one, whatever it does. Once the driver has left the cluster, Ray has ended it."""
        self._living.remove(hand)
        if ray.is_initialized():
            ray.kill(hand.actor)

    def dismiss(self) -> None:
        """End all."""
        for hand in list(self._living):
            self.let_go(hand)


def cpus() -> int:
    """CPUs of the cluster. Raises ConfigError without one."""
    return sum(number for number, _ in _machines())


def memory_bytes(workers: int) -> int:
    """What each of ``workers`` may use wherever Ray puts it, of the memory that Ray counts on each machine.

    Raises ConfigError where it counts none.
    """
    size_bytes = min(size_bytes // min(number, workers) for number, size_bytes in _machines())
    if not size_bytes:
        raise ConfigError(
            "Ray counts no memory on a machine of the cluster. Say with --memory what a worker may use."
        )
    return size_bytes


def run(
    work: Work[J, R], jobs: Iterable[J], *, workers: int, limits: Limits, needs: Needs = NOTHING
) -> Generator[Outcome[J, R], None, None]:
    """Run ``jobs`` on up to ``workers`` CPUs of the cluster, as many as it has; see ``engines.types.Engine``.

    Raises ConfigError without a cluster, OutputError where a machine is not fit for the work or a worker cannot start,
    and what loading ``work`` raises.
    """
    require_workers(workers)
    _machines()
    with place(needs) as here:
        crew = _Crew(Errand.of(work, needs.modules), limits, here)
        try:
            yield from _outcomes(crew, iter(jobs), workers)
        finally:
            crew.dismiss()


def _outcomes(crew: _Crew, pending: Iterator[J], workers: int) -> Iterator[Outcome[J, Any]]:
    taken = deque(islice(pending, workers))  # and given to nobody yet: fewer than ``workers`` may find room
    for _ in taken:
        crew.hire()
    starts = _LOST_STARTS + len(taken)
    while taken or crew.is_busy:
        hand, answer = crew.heard()
        had_settled, job = hand.has_settled, hand.job
        reply = _reply(answer)
        if reply.failure and not had_settled:
            starts -= 1
            if not starts:
                raise OutputError(
                    f"Ray's workers end again and again before their first job: {reply.failure.detail}. See that "
                    f"medcurate is installed on every machine of the cluster. {_AGAIN}"
                )
        # The next job goes out before the outcome, so that the worker does not wait for the consumer.
        if not taken:
            taken.extend(islice(pending, 1))
        if taken and reply.retiring:
            crew.let_go(hand)  # out of reach it may be alive
            crew.hire()
        elif taken:
            crew.assign(hand, taken.popleft())
        else:
            crew.let_go(hand)
        if had_settled:
            yield Outcome(job, reply.result, reply.failure)


def _reply(answer: Any) -> Reply:
    """What a worker answered; a failure and that it retires where it is no more. Raises what it raised."""
    try:
        reply: Reply = ray.get(answer)
    except RayTaskError as error:
        raise error.cause from None
    except RayError as error:
        # Ray explains itself at length and in colours; the cause stands last.
        what = _COLOURS.sub("", str(error)).strip().rpartition("\n")[2].strip().rstrip(".")
        detail = f"the Ray worker or its machine was lost ({type(error).__name__}: {what})"
        return Reply(failure=Failure(Reason.DECODER_CRASH, "", detail), retiring=True)
    return reply


def _machines() -> list[tuple[int, int]]:
    """CPUs and bytes of memory of every machine that takes workers. Raises ConfigError where there is none."""
    _join()
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    found = [(int(has["CPU"]), int(has.get("memory", 0))) for has in alive if has.get("CPU", 0) >= 1]
    if not found:
        raise ConfigError(f"no machine of the Ray cluster has a CPU for workers. {_ADD}")
    return found


def _join() -> None:
    if ray.is_initialized():
        return
    address = os.environ.get("RAY_ADDRESS", "")
    why = "RAY_ADDRESS is not set" if not address else _unreachable(address)
    try:
        if not why:
            with _keeping_sigterm():
                ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError, RayError) as error:
        told = str(error).partition("\n")[0].rstrip(".")
        why = f"RAY_ADDRESS={address}: {told} (one that asks for a token needs RAY_AUTH_MODE=token and the token)"
    if why:
        raise ConfigError(
            f"no Ray cluster can be joined: {why}. Start one with `ray start --head`, set RAY_ADDRESS to the HEAD:6379 "
            f"that it tells, and run the same command again. {_ADD} One machine needs no cluster: --engine pool."
        )


@contextmanager
def _keeping_sigterm() -> Iterator[None]:
    """Ray takes the signal over, and would end the driver without a word of how to go on."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def _unreachable(address: str) -> str:
    """Why nobody answers at ``address``, "" where somebody does: Ray itself would go on asking for many minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _ANSWER_SECONDS).close()
    except (OSError, ValueError) as error:
        return f"RAY_ADDRESS={address}: {error}"
    return ""
