"""``medcurate plan`` over every packaged source, as a user runs it: process start, checks, tables and all.

Goal: under 2 s. Run: python benchmarks/bench_plan.py [--runs N]
"""

from __future__ import annotations

import argparse
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
        times = []
        for _ in range(runs):
            started = time.perf_counter()
            command = [sys.executable, "-m", "medcurate", "plan", "--recipe", str(recipe), "--data", folder]
            subprocess.run([*command, "--json"], check=False, stdout=subprocess.DEVNULL)
            times.append(time.perf_counter() - started)
    median = statistics.median(times)
    print("| sources | median, s | worst, s | goal, s |\n|---|---|---|---|")
    print(f"| {len(source_ids())} | {median:.2f} | {max(times):.2f} | {GOAL_SECONDS:.1f} |")


if __name__ == "__main__":
    main()
