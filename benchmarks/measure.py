"""What all benchmarks share: medians of interleaved arms, sizes on disk, a line about the machine."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path


def interleaved(
    arms: Mapping[str, Callable[[], object]],
    runs: int,
    clock: Callable[[], float] = time.perf_counter,
    before: Callable[[str], object] = lambda name: None,
) -> dict[str, list[float]]:
    """Seconds of every arm, run in turn ``runs`` times after one warm-up each, so that drift hits all alike.

    ``before``: gets the name of the arm that comes next and makes room for it; its time does not count.
    What is left to be written by then is written before the arm starts: an fsync would wait for it.
    """
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(runs + 1):
        for name, work in arms.items():
            before(name)
            os.sync()
            started = clock()
            work()
            if number:
                seconds[name].append(clock() - started)
    return seconds


def ratio(slow: list[float], fast: list[float]) -> float:
    """Median of the pairwise ratios slow / fast."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def tree_bytes(folder: Path) -> tuple[int, int, int]:
    """(files, bytes of content, bytes of disk blocks) below ``folder``."""
    facts = [path.stat() for path in folder.rglob("*") if path.is_file()]
    return len(facts), sum(s.st_size for s in facts), sum(s.st_blocks * 512 for s in facts)


def machine() -> str:
    """One line: processor, cores, Python."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    names = {line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name")}
    return f"{', '.join(sorted(names))}, {os.cpu_count()} cores, Python {platform.python_version()}"
