"""One worker, as the driver sees it: a process that gets jobs, and a fresh process after it died."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from multiprocessing.reduction import ForkingPickler
from typing import Any, Generic

from medcurate.engines.types import Failure, J, Limits
from medcurate.engines.worker import DRIVER_SIGNALS, ERROR, NOTE_BYTES, Reply, serve
from medcurate.errors import OutputError, Reason

# A fresh interpreter: a fork would copy the driver's locks in whatever state its threads hold them.
_SPAWN = multiprocessing.get_context("spawn")
_END_SECONDS = 2.0  # how long to wait for a killed process to vanish


class Child(Generic[J]):
    """A worker and the job that it has; the process is started with its first job.

    A job is not sent before the process says that it is ready, so that a large one is never written to a
    pipe that nobody reads yet.

    The kernel ends the process when the *thread* that started it ends (PR_SET_PDEATHSIG(2const)): whoever
    consumes an engine must do so in a thread that lives at least as long.
    """

    job: J
    pipe: Connection[Any, Any]
    _process: SpawnProcess

    def __init__(self, packed_work: bytes, limits: Limits) -> None:
        self._packed_work = packed_work
        self._limits = limits
        self._note = _SPAWN.RawArray("c", NOTE_BYTES)
        self._alive = False
        self._ready = False

    def assign(self, job: J) -> None:
        """Give the worker its next job. Raises OutputError if no process can be started."""
        self.job = job
        if not self._alive:
            self._start()
        elif self._ready:
            self._send()

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
        self._process.join(_END_SECONDS)
        self.pipe.close()
        atexit.unregister(self._process.kill)
        self._alive = self._ready = False

    def _start(self) -> None:
        self._note.value = b""
        self.pipe, far_end = _SPAWN.Pipe()
        self._process = _SPAWN.Process(
            target=serve,
            args=(far_end, self._note, os.getpid(), self._limits, self._packed_work),
            name="medcurate-worker",
            daemon=True,
        )
        try:
            with _signals_blocked():
                self._process.start()
                self._alive = True
                # Runs before multiprocessing's own hook, which waits for workers that ignore its SIGTERM.
                atexit.register(self._process.kill)
        except OSError as error:
            self.pipe.close()
            raise OutputError(
                f"cannot start a worker process: {error.strerror}. "
                "Run the same command again with fewer --workers: it continues."
            ) from error
        finally:
            far_end.close()

    def _is_ready(self, greeting: Reply) -> None:
        if greeting.failure and greeting.failure.error:
            raise greeting.failure.error
        self._ready = True
        self._send()

    def _send(self) -> None:
        packed = ForkingPickler.dumps(self.job)
        with suppress(BrokenPipeError, ConnectionResetError):  # dead: ``receive`` says so
            self.pipe.send_bytes(packed)

    def _died(self) -> Reply:
        self._process.kill()  # it may only have closed its pipe; the status of a dead one stays as it is
        self._process.join()
        exit_code = self._process.exitcode or 0
        was_ready = self._ready
        self.close()
        if not was_ready:
            raise OutputError(
                f"a worker process ended before its first job: {_cause(exit_code)}. "
                "Run the same command again, with fewer --workers if memory is short: it continues."
            )
        step = self._note.value.decode(errors="replace")
        return Reply(failure=death(exit_code, step, self._limits))


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


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Start a process that is deaf to the driver's signals from its first instruction on.

    The driver loses none: they are delivered at the end of the body.
    """
    resource_tracker.ensure_running()  # its own start would lift the block
    before = signal.pthread_sigmask(signal.SIG_BLOCK, DRIVER_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
