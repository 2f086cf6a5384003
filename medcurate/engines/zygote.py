"""The zygote: a process that imports what workers need once, and forks a worker whenever it is asked to.

A fresh interpreter per worker would import the same libraries again: most of a second each, for every
worker of every step and for every one that replaces a crashed one. A fork of the driver would copy its locks
in whatever state its threads hold them, and its open files. The zygote has one thread and no file but those
it is given; it is a program of its own, so the user's ``__main__`` is never run again.

The driver sends orders; a worker's end is told through a pipe of that worker alone. When the driver is gone,
the zygote ends, and the kernel ends its workers with it.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import Any, NamedTuple

from medcurate.engines.worker import DRIVER_SIGNALS, Note, serve

ORDER_BYTES = 1 << 16  # more than any order has


class Start(NamedTuple):
    """Fork worker ``number``; with it come its three files: pipe, note and where to tell its end.

    ``modules`` are imported first, unless they are already.
    """

    number: int
    modules: tuple[str, ...]


class Kill(NamedTuple):
    """End worker ``number`` unless it has ended. The driver knows no process ids: they are reused."""

    number: int


class Ended(NamedTuple):
    """What became of a worker: its exit status (negative: a signal), or why it could not be forked."""

    exit_code: int = 0
    errno: int = 0


class _Worker(NamedTuple):
    pid: int
    end: Connection[Any, Any]


def main() -> None:
    """Serve the driver, which is at file descriptor 0, until it is gone."""
    for number in DRIVER_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, DRIVER_SIGNALS)
    driver = socket.socket(fileno=os.dup(0))
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    Zygote(driver).run()


class Zygote:
    """The living workers, and the orders about them that come from ``driver``."""

    def __init__(self, driver: socket.socket) -> None:
        self._driver = driver
        self._workers: dict[int, _Worker] = {}
        self._woken, self._waker = socket.socketpair()
        self._waker.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)

    def run(self) -> None:
        """Obey until the driver is gone."""
        while True:
            readable, _, _ = select.select([self._driver, self._woken], [], [])
            if self._woken in readable:
                self._woken.recv(4096)
                self._tell_ends()
            if self._driver in readable:
                packed, handles, _, _ = socket.recv_fds(self._driver, ORDER_BYTES, 3)
                if not packed:
                    return
                self._obey(ForkingPickler.loads(packed), handles)

    def _obey(self, order: Start | Kill, handles: Sequence[int]) -> None:
        if isinstance(order, Start):
            self._start(order, *handles)
        elif order.number in self._workers:
            os.kill(self._workers[order.number].pid, signal.SIGKILL)

    def _start(self, order: Start, pipe: int, note: int, end: int) -> None:
        _import(order.modules)
        telling = Connection(end, readable=False)
        zygote_pid = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            _tell(telling, Ended(errno=error.errno or 0))
        else:
            if pid == 0:
                telling.close()
                self._become_worker(pipe, note, zygote_pid)
            self._workers[order.number] = _Worker(pid, telling)
        os.close(pipe)
        os.close(note)

    def _become_worker(self, pipe: int, note: int, zygote_pid: int) -> None:
        """Serve jobs in the process just forked, and end it. It keeps nothing of the zygote or of others."""
        exit_code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for own in (self._driver, self._woken, self._waker):
                own.close()
            for other in self._workers.values():
                other.end.close()
            serve(Connection(pipe), Note(note), zygote_pid)
            exit_code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            with suppress(OSError):
                sys.stdout.flush()
            os._exit(exit_code)

    def _tell_ends(self) -> None:
        for number, worker in list(self._workers.items()):
            pid, status = os.waitpid(worker.pid, os.WNOHANG)
            if pid:
                del self._workers[number]
                _tell(worker.end, Ended(os.waitstatus_to_exitcode(status)))


def _import(modules: Sequence[str]) -> None:
    if all(name in sys.modules for name in modules):
        return
    for name in modules:
        # The worker that needs it imports it again, and tells the driver what is wrong.
        with suppress(Exception):
            import_module(name)
    gc.freeze()  # a worker's garbage collector need not touch, and so copy, what all workers share


def _tell(end: Connection[Any, Any], what: Ended) -> None:
    with suppress(BrokenPipeError):  # nobody wants to know any more
        end.send(what)
    end.close()
