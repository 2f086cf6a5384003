"""Ctrl-C at a program that is still loading its modules: exit code 130 and no traceback."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

INTERRUPTED = 128 + signal.SIGINT  # what typer makes of a KeyboardInterrupt, too
TOLD = "interrupted; run the same command again to continue"


@contextmanager
def ended_by_interrupt(told: str = "") -> Iterator[None]:
    """SIGINT ends the process at once while the body runs, which has begun nothing that wants to be undone.

    ``told``: a line for standard error. An exception raised amid an import may be swallowed there, or come out as a
    traceback of the importing modules.
    """

    def end(_: int, __: FrameType | None) -> NoReturn:
        os.write(2, f"{told}\n".encode() if told else b"")
        os._exit(INTERRUPTED)

    usual = signal.getsignal(signal.SIGINT)
    if usual is signal.default_int_handler:  # a shell may have it ignored
        signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
