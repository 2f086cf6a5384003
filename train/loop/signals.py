"""Signals of a scheduler: noted when they come, acted upon between batches."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


class StopRequest:
    """Which signal asked this process to stop; 0 while none did."""

    def __init__(self) -> None:
        self.number = 0

    def note(self, number: int, _: FrameType | None) -> None:
        """Remember the signal; a second SIGINT interrupts at once, for a user who does not want to wait.

        torchrun hands a second SIGINT on as SIGTERM.
        """
        if self.number == signal.SIGINT and number in {signal.SIGINT, signal.SIGTERM}:
            raise KeyboardInterrupt
        self.number = number


@contextmanager
def noted_signals() -> Iterator[StopRequest]:
    """Signals only set the request inside the body: of a scheduler, a user, and a terminal that is gone.

    SIGHUP stays ignored where it is: nohup wants the run to outlive its terminal.
    """
    request = StopRequest()
    heeded = [n for n in SIGNALS if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, request.note) for number in heeded}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
