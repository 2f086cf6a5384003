"""Ctrl-C at a program of the trainer while it loads torch, which takes seconds: one line and exit code 130."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

INTERRUPTED = 128 + signal.SIGINT
TOLD = "interrupted; run the same command again to continue"


@contextmanager
def ended_by_interrupt() -> Iterator[None]:
    """SIGINT ends the process at once while the body runs, which has begun nothing that wants to be undone.

    An exception raised amid an import may be swallowed there, or come out as a traceback of the importing modules.
    """
    usual = signal.getsignal(signal.SIGINT)
    if usual is signal.default_int_handler:  # a shell may have it ignored
        signal.signal(signal.SIGINT, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)


def _end(_: int, __: FrameType | None) -> NoReturn:
    if (
        "TORCHELASTIC_RUN_ID" not in os.environ
    ):  # a launcher, which has the signal too, speaks for its processes
        os.write(2, f"{TOLD}\n".encode())
    os._exit(INTERRUPTED)
