"""What happens inside a worker process.

A worker serves one job after another over a pipe. It may die at any instant, by a decoder's segmentation
fault, by its own alarm or by the kernel; so that the driver can tell why, it notes the step it is in where
its death cannot take the note away (a file of the driver's), and it holds nothing else that anybody needs.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any, Literal, NamedTuple

from medcurate.engines.types import Failure, Limits, Work

ERROR = "ERROR"  # Failure.reason of an exception that ``work`` raised
NOTE_BYTES = 255  # room for a step's name

# A terminal, a batch system or a service manager sends these to every process of a group. They are meant
# for the driver: a worker that died of one would be blamed on the case that it happened to be reading.
DRIVER_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_STEP = "_medcurate_step"  # set on an exception by the innermost guard that it leaves


class WorkError(Exception):
    """Stands in for an exception that cannot travel between processes; carries its type and text."""


class Reply(NamedTuple):
    """What a worker sends: an empty one when it is ready, then one for each job.

    ``retiring``: the worker wants to be replaced before the next job.
    """

    result: Any = None
    failure: Failure | None = None
    trace: str = ""
    retiring: bool = False


class Setup(NamedTuple):
    """What the driver sends first. A worker looks for modules where the driver does, in the same folder."""

    limits: Limits
    path: list[str]
    folder: str
    packed_work: bytes


class Note:
    """A line of text in the file ``handle``, which driver and worker hold: it outlives the worker."""

    def __init__(self, handle: int) -> None:
        self.handle = handle
        self.write("")  # takes its room on the disk

    def write(self, text: str) -> None:
        """Replace the note; at most NOTE_BYTES of ``text`` are kept."""
        os.pwrite(self.handle, text.encode()[:NOTE_BYTES].ljust(NOTE_BYTES, b"\0"), 0)

    def read(self) -> str:
        """The note as last written."""
        return os.pread(self.handle, NOTE_BYTES, 0).rstrip(b"\0").decode(errors="replace")

    def close(self) -> None:
        """Let go of the file."""
        os.close(self.handle)


def serve(pipe: Connection[Any, Any], note: Note, zygote_pid: int) -> None:
    """Run the jobs that arrive through ``pipe`` until it closes; the body of a worker process.

    The headroom of memory is the same for every job, whatever ran before it. A worker that has grown by
    half of it since its first job (a leak in some decoder) asks to be replaced after the job it gets now.
    """
    prepare(zygote_pid)
    # The driver does not listen any more.
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        _serve(pipe, note, ForkingPickler.loads(pipe.recv_bytes()))


def _serve(pipe: Connection[Any, Any], note: Note, setup: Setup) -> None:
    try:
        sys.path[:] = setup.path
        os.chdir(setup.folder)
        work: Work[Any, Any] = ForkingPickler.loads(setup.packed_work)
    except Exception as error:
        pipe.send_bytes(_packed(_failed(error)))
        return
    pipe.send_bytes(_packed(Reply()))
    guard = StepGuard(note, setup.limits.step_seconds)
    headroom_bytes = setup.limits.memory_bytes
    usual_bytes = None
    for number, packed_job in enumerate(_received(pipe)):
        idle_bytes = data_bytes()
        if number == 1:
            usual_bytes = idle_bytes
        retiring = usual_bytes is not None and idle_bytes > usual_bytes + headroom_bytes // 2
        with memory_limit(idle_bytes + headroom_bytes):
            reply = _attempt(work, packed_job, guard)
        pipe.send_bytes(_packed(reply._replace(retiring=retiring)))
        del reply  # the traceback of a failure holds the job's arrays


def prepare(zygote_pid: int) -> None:
    """Make this process a worker: it dies with the zygote that it was forked from, and leaves no core file.

    The zygote is deaf to DRIVER_SIGNALS, and so are its forks.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != zygote_pid:  # it died before the call above
        os._exit(1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


class StepGuard:
    """The ``Guard`` of one worker: notes the step and kills the process when its time is over.

    The alarm keeps its default action, so that it ends C code that never returns to Python. Guards nest;
    an inner one never extends the time of an outer one.
    """

    def __init__(self, note: Note, seconds: float) -> None:
        self._note = note
        self._seconds = seconds
        self._step = ""
        self._deadline: float | None = None
        signal.signal(signal.SIGALRM, signal.SIG_DFL)

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        """Run the body as ``step``."""
        outer_step, outer_deadline = self._step, self._deadline
        deadline = time.monotonic() + self._seconds
        self._enter(step, deadline if outer_deadline is None else min(deadline, outer_deadline))
        try:
            yield
        except BaseException as error:
            if not hasattr(error, _STEP):
                setattr(error, _STEP, step)
            raise
        finally:
            self._enter(outer_step, outer_deadline)

    def _enter(self, step: str, deadline: float | None) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)  # first, so that no step is killed under another's name
        self._step, self._deadline = step, deadline
        self._note.write(step)
        if deadline is not None:
            signal.setitimer(signal.ITIMER_REAL, max(deadline - time.monotonic(), 1e-6))


def data_bytes() -> int:
    """Private writable memory of this process, as RLIMIT_DATA counts it, plus its main stack."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[5]
    return int(pages) * resource.getpagesize()


@contextmanager
def memory_limit(limit_bytes: int) -> Iterator[None]:
    """Let allocations that bring ``data_bytes()`` above ``limit_bytes`` fail inside the body.

    Python and numpy then raise MemoryError; C++ libraries raise their own errors, or abort.

    RLIMIT_DATA has counted every private writable mapping since Linux 4.7 (setrlimit(2)), so it bounds
    what a process may fill. RLIMIT_AS would also count what it never fills, such as libraries that are
    loaded late and address space that allocators reserve: loading polars and SimpleITK takes 1.1 GB of
    address space and 0.1 GB of memory, and a case would be refused for being the first to load them.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    soft = limit_bytes if hard == resource.RLIM_INFINITY else min(limit_bytes, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))


def _received(pipe: Connection[Any, Any]) -> Iterator[bytes]:
    while True:
        try:
            yield pipe.recv_bytes()
        except EOFError:
            return


def _attempt(work: Work[Any, Any], packed_job: bytes, guard: StepGuard) -> Reply:
    try:
        return Reply(result=work(ForkingPickler.loads(packed_job), guard))
    except BaseException as error:  # SystemExit too: it ends the job, not the worker
        return _failed(error)


def _failed(error: BaseException) -> Reply:
    detail = traceback.format_exception_only(type(error), error)[0].strip()
    trace = "".join(traceback.format_exception(error)).strip()
    step = getattr(error, _STEP, "")
    return Reply(failure=Failure(ERROR, step, detail, _portable(error, detail)), trace=trace)


def _portable(error: BaseException, detail: str) -> BaseException:
    """``error`` if it survives the way to another process, else a WorkError with its text."""
    try:
        ForkingPickler.loads(ForkingPickler.dumps(error))
    except Exception:
        return WorkError(detail)
    return error


def _packed(reply: Reply) -> memoryview | Literal[b""]:
    try:
        return ForkingPickler.dumps(reply)
    except Exception as error:
        return ForkingPickler.dumps(_failed(error)._replace(retiring=reply.retiring))
