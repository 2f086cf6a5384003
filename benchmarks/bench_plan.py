"""``medcurate plan`` over every packaged source, as a user runs it: process start, checks, tables and all.

Goal: under 2 s. Processor time stands beside it, because other processes stretch the clock.
Run: python benchmarks/bench_plan.py [--runs N]
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from medcurate.library import source_ids

GOAL_SECONDS = 2.0
RECIPE = """
name = "all"
title = "Every packaged source"
sources = [{sources}]
intensity = {{ default = {{ rule = "minmax" }} }}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / "all.toml"
        recipe.write_text(RECIPE.format(sources=", ".join(f'"{name}"' for name in source_ids())))
        command = [sys.executable, "-m", "medcurate", "plan", "--recipe", str(recipe), "--data", folder]
        times, busy = zip(*(_run([*command, "--json"]) for _ in range(runs)), strict=True)
    print("| sources | median, s | worst, s | of the processor, s | goal, s |\n|---|---|---|---|---|")
    print(
        f"| {len(source_ids())} | {statistics.median(times):.2f} | {max(times):.2f} "
        f"| {statistics.median(busy):.2f} | {GOAL_SECONDS:.1f} |"
    )


def _run(command: list[str]) -> tuple[float, float]:
    """Seconds of the clock and of the processor. A disk that is too small for all sets is no failure here."""
    before = _busy()
    started = time.perf_counter()
    subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started, _busy() - before


def _busy() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
