"""A few threads that write members, with a bound on how much waits and the first error kept."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Any

_THREADS = 2
_WAITING = 32


class Pool:
    """Runs tasks in threads. The first error of one is raised by the next ``submit`` or at the end."""

    def __init__(self, threads: int = _THREADS) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="unpack")
        self._slots = threading.Semaphore(_WAITING)
        self._error: BaseException | None = None

    def submit(self, work: Callable[..., None], *arguments: Any, dropped: Callable[[], None]) -> None:
        """Run ``work(*arguments)`` in a thread, as soon as few enough wait; ``dropped()`` where it never runs."""
        self._slots.acquire()
        if self._error:
            self._slots.release()
            dropped()
            raise self._error
        self._executor.submit(work, *arguments).add_done_callback(partial(self._done, dropped))

    def _done(self, dropped: Callable[[], None], future: Future[None]) -> None:
        if future.cancelled():
            dropped()
        else:
            self._error = self._error or future.exception()
        self._slots.release()

    def join(self) -> None:
        """Wait for all tasks. Raises the first error of one."""
        self._executor.shutdown(wait=True)
        if self._error:
            raise self._error

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.join()
        else:
            self._executor.shutdown(wait=True, cancel_futures=True)
