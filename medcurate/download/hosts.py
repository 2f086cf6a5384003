"""How many connections one host gets at a time, when it asked to be left alone, and whether anything comes from it.

What one file learns of a host the others need not learn again: thousands of files of a host that is down would
otherwise be waited for one after the other, for hours.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from medcurate.download.types import Policy, RefusedError, TransientError

_GLANCE_SECONDS = 0.2  # how soon a waiting download notices that it shall stop


class StoppedError(Exception):
    """The command was interrupted."""


class Hosts:
    """Shared by all downloads of a command. ``stop`` ends every wait with StoppedError."""

    def __init__(self, policy: Policy) -> None:
        self.stop = threading.Event()
        self._per_host = policy.per_host
        self._patience_s = policy.patience_s
        self._host_patience_s = policy.host_patience_s
        self._turns: dict[str, threading.Semaphore] = {}
        self._free_at: dict[str, float] = {}
        self._given_up_at: dict[str, float] = {}  # for a first file, and nothing came of another since
        self._unreachable: dict[str, str] = {}  # why
        self._lock = threading.Lock()

    @contextmanager
    def turn(self, host: str) -> Iterator[None]:
        """Hold one of the host's connections, once it has rested as long as it asked to.

        Raises RefusedError where that is longer than anybody waits, at all where the host is lost, and where nobody
        was there for another file.
        """
        with self._lock:
            turns = self._turns.setdefault(host, threading.Semaphore(self._per_host))
        while not turns.acquire(timeout=_GLANCE_SECONDS):
            self.check()
        try:
            self.wait(self._rest_s(host))
            yield
        finally:
            turns.release()

    def rest(self, host: str, seconds: float) -> None:
        """Ask nothing of ``host`` for so long."""
        with self._lock:
            self._free_at[host] = max(self._free_at.get(host, 0.0), time.monotonic() + seconds)

    def _rest_s(self, host: str) -> float:
        with self._lock:
            rest_s = self._free_at.get(host, 0.0) - time.monotonic()
            why = self._unreachable.get(host)
        lost = self.lost(host)
        if why is not None and lost:
            raise RefusedError(f"{why} (not asked again)")
        if rest_s > self._patience_s or (lost and rest_s > 0):
            raise RefusedError(f"it asks to wait {math.ceil(rest_s):,} s")
        return rest_s

    def give_up(self, host: str, error: TransientError) -> None:
        """Nothing came of a file for as long as it is waited for, last because of ``error``."""
        with self._lock:
            self._given_up_at.setdefault(host, time.monotonic())
            if error.unreachable:
                self._unreachable[host] = str(error)

    def works(self, host: str) -> None:
        """Something came of a file: all of it, or as much as counts as progress."""
        with self._lock:
            self._given_up_at.pop(host, None)
            self._unreachable.pop(host, None)

    def lost(self, host: str) -> bool:
        """Whether file after file was given up for so long that no further one is waited for."""
        with self._lock:
            since = self._given_up_at.get(host)
        return since is not None and time.monotonic() - since >= self._host_patience_s

    def wait(self, seconds: float) -> None:
        """Sleep, unless the command is interrupted. Raises StoppedError."""
        if self.stop.wait(max(seconds, 0.0)):
            raise StoppedError

    def check(self) -> None:
        """Raises StoppedError when the command was interrupted."""
        if self.stop.is_set():
            raise StoppedError
