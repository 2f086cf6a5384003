"""One worker, as the driver sees it: a process that gets jobs, and a fresh process after it died."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import Any, Generic, NamedTuple

from medcurate.engines.process import Process
from medcurate.engines.types import Failure, J, Limits, Work
from medcurate.engines.worker import ERROR, Note, Reply, Setup
from medcurate.engines.zygote import Ended
from medcurate.errors import ConfigError, OutputError, Reason

_REMEDY = "Run the same command again with fewer --workers: it continues."
_END_SECONDS = 2.0  # how long to wait for a killed process to vanish


def require_workers(number: int) -> None:
    """Raise ConfigError where there would be no worker."""
    if number < 1:
        raise ConfigError(f"the number of workers must be at least 1, not {number}")


class Errand(NamedTuple):
    """What workers are for. ``modules``: what it will import."""

    packed_work: bytes
    modules: tuple[str, ...]

    @staticmethod
    def of(work: Work[Any, Any], modules: Sequence[str]) -> Errand:
        """``modules``: what ``work`` will import beside its own."""
        return Errand(bytes(ForkingPickler.dumps(work)), (_home(work), *modules))


class Child(Generic[J]):
    """A worker and the job that it has; the process is started with its first job.

    A job is not sent before the process says that it is ready, so that a large one is never written to a
    pipe that nobody reads yet.
    """

    job: J
    pipe: Connection[Any, Any]
    _process: Process
    _note: Note

    def __init__(self, errand: Errand, limits: Limits) -> None:
        self._errand = errand
        self._limits = limits
        self._alive = False
        self._ready = False

    def assign(self, job: J) -> None:
        """Give the worker its next job. Raises OutputError if no process can be started."""
        self.job = job
        if not self._alive:
            self._start()
        elif self._ready:
            self._send(job)

    def receive(self) -> Reply | None:
        """What became of the job; None while the process is only now ready for it.

        Blocks until the process has something to say: call it when ``pipe`` is readable. Raises OutputError
        if the process died, or the exception that loading the work raised, before it was ready.
        """
        try:
            packed = self.pipe.recv_bytes()
        except (EOFError, OSError):
            return self._died()
        reply = _unpacked(packed)
        if not self._ready:
            self._is_ready(reply)
            return None
        if reply.retiring:
            self.close()
        return reply

    def kill(self) -> None:
        """Begin to end the process, whatever it does; nothing that it holds is needed."""
        if self._alive:
            self._process.kill()

    def close(self) -> None:
        """End the process and free what the driver holds for it."""
        if not self._alive:
            return
        self._process.kill()
        self.pipe.close()
        if self._ready:  # a worker without a job does nothing that would have to be waited for
            self._process.wait(_END_SECONDS)
        self._forget()

    def _start(self) -> None:
        try:
            with tempfile.TemporaryFile(buffering=0) as file:
                self._note = Note(os.dup(file.fileno()))
            self.pipe, far_end = Pipe()
            with far_end:
                self._process = Process(far_end.fileno(), self._note.handle, self._errand.modules)
        except OSError as error:
            raise OutputError(f"cannot start a worker process: {error.strerror}. {_REMEDY}") from error
        self._alive = True
        path = [entry for entry in sys.path if isinstance(entry, str)]
        self._send(Setup(self._limits, path, os.getcwd(), self._errand.packed_work))

    def _is_ready(self, greeting: Reply) -> None:
        if greeting.failure and greeting.failure.error:
            raise greeting.failure.error
        self._ready = True
        self._send(self.job)

    def _send(self, message: J | Setup) -> None:
        packed = ForkingPickler.dumps(message)
        with suppress(BrokenPipeError, ConnectionResetError):  # dead: ``receive`` says so
            self.pipe.send_bytes(packed)

    def _died(self) -> Reply:
        self._process.kill()  # it may only have closed its pipe; the status of a dead one stays as it is
        ended = self._process.wait() or Ended()
        was_ready, step = self._ready, self._note.read()
        self.pipe.close()
        self._forget()
        if ended.errno:
            raise OutputError(f"cannot start a worker process: {os.strerror(ended.errno)}. {_REMEDY}")
        if not was_ready:
            raise OutputError(
                f"a worker process ended before its first job: {_cause(ended.exit_code)}. "
                "Run the same command again, with fewer --workers if memory is short: it continues."
            )
        return Reply(failure=death(ended.exit_code, step, self._limits))

    def _forget(self) -> None:
        self._process.close()
        self._note.close()
        self._alive = self._ready = False


def _home(work: Work[Any, Any]) -> str:
    """The module that unpickling ``work`` imports."""
    while isinstance(work, partial):
        work = work.func
    return work.__module__


def death(exit_code: int, step: str, limits: Limits) -> Failure:
    """What a worker's exit status (negative: a signal) says about the job that it was running."""
    if exit_code == -signal.SIGALRM:
        return Failure(Reason.TIMEOUT, step, f"not done within {limits.step_seconds:g} s")
    return Failure(Reason.DECODER_CRASH, step, f"the worker process ended: {_cause(exit_code)}")


def _cause(exit_code: int) -> str:
    if exit_code >= 0:
        return f"exit status {exit_code}"
    if exit_code == -signal.SIGKILL:
        return "SIGKILL, as the system sends when memory runs out"
    try:
        return signal.Signals(-exit_code).name
    except ValueError:
        return f"signal {-exit_code}"


def _unpacked(packed: bytes) -> Reply:
    try:
        reply: Reply = ForkingPickler.loads(packed)
    except Exception as error:
        detail = f"the job's result cannot be read back: {type(error).__name__}: {error}"
        return Reply(failure=Failure(ERROR, "", detail, error))
    if reply.failure and reply.failure.error:
        reply.failure.error.add_note(reply.trace)
    return reply
