"""Whatever a third-party parser raises on hostile bytes becomes a refusal of the case."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from medcurate.errors import CaseRejected, Reason


@contextmanager
def refusing(reason: Reason, detail: str) -> Iterator[None]:
    """Any exception becomes CaseRejected naming its class, never its text, which may quote a header.

    MemoryError passes: it is about the worker, not about the file.
    """
    try:
        yield
    except (CaseRejected, MemoryError):
        raise
    except Exception as error:
        raise CaseRejected(reason, f"{detail} ({type(error).__name__})") from error
