"""Forks a process that downloads for every line on standard input, and tells its id; for tests that kill it.

A line is JSON: ``folder``, ``files`` (as in a source), ``die_at`` (the how-many-th rename or fsync kills the
process before it happens; 0: none).
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
from pathlib import Path

from download_kit import fetch

from medcurate.progress import configure


def dying(call, counter, die_at: int):
    def wrapped(*args, **options):
        if next(counter) == die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*args, **options)

    return wrapped


def work(order: dict) -> int:
    counter = itertools.count(1)
    for name in ("replace", "fsync", "unlink"):
        setattr(os, name, dying(getattr(os, name), counter, order["die_at"]))
    return 0 if not fetch(Path(order["folder"]), *order["files"]).errors else 1


def tell(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


def main() -> None:
    configure("plain")
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            os._exit(work(json.loads(line)))
        tell(pid)
        _, status = os.waitpid(pid, 0)
        tell(os.waitstatus_to_exitcode(status))


main()
