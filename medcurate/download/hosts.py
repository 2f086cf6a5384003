"""How many connections one host gets at a time, and when it asked to be left alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from medcurate.download.types import Policy

_GLANCE_SECONDS = 0.2  # how soon a waiting download notices that it shall stop


class StoppedError(Exception):
    """The command was interrupted."""


class Hosts:
    """Shared by all downloads of a command. ``stop`` ends every wait with StoppedError."""

    def __init__(self, policy: Policy) -> None:
        self.stop = threading.Event()
        self._per_host = policy.per_host
        self._turns: dict[str, threading.Semaphore] = {}
        self._free_at: dict[str, float] = {}
        self._lock = threading.Lock()

    @contextmanager
    def turn(self, host: str) -> Iterator[None]:
        """Hold one of the host's connections, once it has rested as long as it asked to."""
        with self._lock:
            turns = self._turns.setdefault(host, threading.Semaphore(self._per_host))
        while not turns.acquire(timeout=_GLANCE_SECONDS):
            self.check()
        try:
            self.wait(self._free_at.get(host, 0.0) - time.monotonic())
            yield
        finally:
            turns.release()

    def rest(self, host: str, seconds: float) -> None:
        """Ask nothing of ``host`` for so long."""
        with self._lock:
            self._free_at[host] = max(self._free_at.get(host, 0.0), time.monotonic() + seconds)

    def wait(self, seconds: float) -> None:
        """Sleep, unless the command is interrupted. Raises StoppedError."""
        if self.stop.wait(max(seconds, 0.0)):
            raise StoppedError

    def check(self) -> None:
        """Raises StoppedError when the command was interrupted."""
        if self.stop.is_set():
            raise StoppedError
