"""A worker process, as the driver sees it, and the zygote that all workers of the driver are forked from."""

from __future__ import annotations

import atexit
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from multiprocessing import Pipe
from multiprocessing.reduction import ForkingPickler

from medcurate.engines.worker import DRIVER_SIGNALS
from medcurate.engines.zygote import Ended, Kill, Start

# One worker, one CPU. Libraries read these when they are loaded, so the zygote is started with them.
ONE_THREAD = (
    "OMP_NUM_THREADS",  # OpenMP, and Arrow's CPU pool
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "POLARS_MAX_THREADS",
    "ARROW_IO_THREADS",
    "OPENCV_FOR_THREADS_NUM",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
)
_ENVIRONMENT = {
    **dict.fromkeys(ONE_THREAD, "1"),
    # Arrow's own allocator takes 1 GiB at its first use, however little is needed; malloc does not.
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    # Arrow brings jemalloc, which starts a thread as soon as it is loaded; a process that forks has one.
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}
_PROGRAM = (
    "import sys; sys.path[:] = sys.argv[1:]; del sys.argv[1:]; "
    "from medcurate.engines.zygote import main; main()"
)


class Process:
    """A worker process from its start to its end. Raises OSError when the zygote cannot be started.

    ``pipe`` and ``note``: the worker's ends, which it gets copies of; ``modules``: what it will import.
    """

    def __init__(self, pipe: int, note: int, modules: tuple[str, ...]) -> None:
        self._end, far_end = Pipe(duplex=False)
        with far_end:
            self._number = _ZYGOTE.fork(modules, (pipe, note, far_end.fileno()))

    def kill(self) -> None:
        """Begin to end the process; one that has ended is left alone."""
        _ZYGOTE.kill(self._number)

    def wait(self, seconds: float | None = None) -> Ended | None:
        """How the process ended; None if it has not after ``seconds``. To be asked once.

        Workers die with their zygote, which nothing but the system ends before the driver: by SIGKILL.
        """
        if not self._end.poll(seconds):
            return None
        try:
            ended: Ended = self._end.recv()
        except EOFError:
            ended = Ended(-signal.SIGKILL)
        return ended

    def close(self) -> None:
        """Free what the driver holds."""
        self._end.close()


class _Zygote:
    """The one zygote of this process: started when first needed, and anew should it be killed."""

    def __init__(self) -> None:
        self._numbers = count()
        self._orders: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self.forget()
        os.register_at_fork(after_in_child=self.forget)

    def fork(self, modules: tuple[str, ...], handles: Sequence[int]) -> int:
        """Order a worker; returns its number, which no other worker has ever had."""
        order = Start(next(self._numbers), modules)
        with self._lock:
            if not self._send(order, handles):
                self.stop()
                self._start()
                self._send(order, handles)
        return order.number

    def kill(self, number: int) -> None:
        """Order a worker's end. Where no zygote listens, there is no worker either."""
        with self._lock:
            self._send(Kill(number))

    def stop(self) -> None:
        """End the zygote, and with it all workers."""
        orders, process = self._orders, self._process
        self._orders = self._process = None
        if process:
            process.kill()
            process.wait()
        if orders:
            orders.close()

    def forget(self) -> None:
        """Begin anew: a fork of this process must not talk to the zygote, nor keep it from ending."""
        # Reentrant: the garbage collector may close an abandoned run, and so kill workers, at any point.
        self._lock = threading.RLock()
        if self._orders:
            self._orders.close()
        self._orders = self._process = None

    def _start(self) -> None:
        near_end, far_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        path = [entry or os.getcwd() for entry in sys.path if isinstance(entry, str)]
        with far_end, _signals_blocked():
            self._orders = near_end
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, *path],
                stdin=far_end.fileno(),
                env={**os.environ, **_ENVIRONMENT},
            )

    def _send(self, order: Start | Kill, handles: Sequence[int] = ()) -> bool:
        """Whether there is a zygote that got ``order``; one message is sent whole or not at all."""
        if self._orders is None:
            return False
        with suppress(BrokenPipeError, ConnectionResetError):
            socket.send_fds(self._orders, [ForkingPickler.dumps(order)], handles)
            return True
        return False


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Start a process that is deaf to the driver's signals from its first instruction on.

    The driver loses none: they are delivered at the end of the body.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, DRIVER_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_ZYGOTE = _Zygote()
atexit.register(_ZYGOTE.stop)
