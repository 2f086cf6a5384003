"""One run at a time writes into a folder: two would mix their checkpoints, and each the other's recipe into its own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from medcurate.errors import OutputError
from medcurate.lock import holder, locked
from medcurate.train.launch import Hopeless
from medcurate.train.loop import checkpoint
from medcurate.train.loop.world import World

GONE_S = 10.0  # within which a process that was killed has let go
_POLL_S = 0.2


class FolderInUse(Hopeless):
    """Another run writes into the folder."""

    said_by = "me"


class OthersRefused(Hopeless):
    """The leading process may not write."""

    said_by = "others"


@contextmanager
def held(out: Path, found: Path | None, world: World) -> Iterator[None]:
    """The folder of a run, which goes on from the checkpoint ``found``, for these processes alone.

    What killed writers left there is removed. Raises FolderInUse and OthersRefused, on all processes together.
    """
    with ExitStack() as stack:
        refusal = _refusal(stack, out, found) if world.leads else ""
        (refused,) = world.total([bool(refusal)])
        if refusal:
            raise FolderInUse(refusal)
        if refused:
            raise OthersRefused(f"{out}: the first process may not write there, and says why.")
        yield


def _refusal(stack: ExitStack, out: Path, found: Path | None) -> str:
    """Why nothing may be written into ``out``; empty once ``stack`` holds it."""
    if who := _taken(stack, out):
        return (
            f"{out} is in use by {who}. Wait for it to end, or stop it; a run of its own needs another --out."
        )
    checkpoint.remove_leftovers(out)
    if checkpoint.latest(out) == found:
        return ""
    return f"{out}: another process has trained there since this one began. Run the same command again: it continues."


def _taken(stack: ExitStack, out: Path) -> str | None:
    """Who holds ``out`` for longer than the dead do; None once ``stack`` does.

    Where there is nothing to hold it by (a file system without locks, a folder that cannot be written, of which others
    tell), nobody is kept out.
    """
    until, unheld = time.monotonic() + GONE_S, 0
    while True:
        try:
            stack.enter_context(locked(out, "training"))
            return None
        except OutputError:
            who = holder(out)
            unheld = 0 if who else unheld + 1  # once only: it was let go in between
            if unheld > 1 or time.monotonic() >= until:
                return who
        time.sleep(_POLL_S)
