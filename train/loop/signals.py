"""Signals of a scheduler: noted when they come, acted upon between batches."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class StopRequest:
    """Which signal asked this process to stop; 0 while none did."""

    def __init__(self) -> None:
        self.number = 0

    def note(self, number: int, _: FrameType | None) -> None:
        """Remember the signal; a second SIGINT interrupts at once, for a user who does not want to wait."""
        if number == signal.SIGINT and self.number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = number


@contextmanager
def noted_signals() -> Iterator[StopRequest]:
    """SIGTERM, SIGINT and SIGUSR1 (what Slurm sends on --signal) only set the request inside the body."""
    request = StopRequest()
    before = {number: signal.signal(number, request.note) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
