"""`stats` and a four-predicate `query` on a manifest of 20 M masks, against polars and pyarrow.

    python benchmarks/bench_manifest.py [--rows 20000000] [--folder DIR]

Every arm has a process of its own: imports and one untimed run come first, then five timed runs, the arms of
one task in turn. Reported are the median, the spread, and the process' peak resident memory. All arms of a
task must give the same numbers.
Needs about 50 bytes of disk a row; what it generated in a temporary folder is removed at the end.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import measure

RUNS = 5
BARE = "without-summary"  # the folder's tables once more, by links
ORGANS = "SELECT modality, organ, count(*) AS masks FROM manifest GROUP BY ALL"
FOUR = (
    "SELECT count(*) AS masks, sum(area_px) AS area_px FROM manifest"
    " WHERE modality = 'ct' AND lesion AND area_fraction > 0.01 AND commercial"
)


def medcurate_stats(folder: Path) -> Callable[[], Any]:
    """All default queries, as `medcurate stats` runs them."""
    from medcurate.explore.stats import compute

    return lambda: compute(folder).totals["masks"]


def medcurate_stats_counted(folder: Path) -> Callable[[], Any]:
    """The same over tables that have no summary, which are counted anew."""
    return medcurate_stats(folder / BARE)


def medcurate_named(folder: Path, name: str) -> Callable[[], Any]:
    """One named query, as `medcurate stats --name` runs it."""
    from medcurate.explore.stats import compute

    return lambda: len(compute(folder, [name]).answers[0].rows)


def medcurate_query(folder: Path, sql: str) -> Callable[[], Any]:
    """One query, as `medcurate query` runs it: connection, views and locks included."""
    from medcurate.explore.query import run

    return lambda: _numbers(run(folder, sql).to_pylist())


def polars_organs(folder: Path) -> Callable[[], Any]:
    """Masks by modality and organ with polars, lazily."""
    import polars as pl

    scan = pl.scan_parquet(folder / "manifest.parquet")
    return lambda: _numbers(scan.group_by("modality", "organ").agg(masks=pl.len()).collect().to_dicts())


def polars_four(folder: Path) -> Callable[[], Any]:
    """The four predicates with polars, lazily."""
    import polars as pl

    fits = (
        (pl.col("modality") == "ct")
        & pl.col("lesion")
        & (pl.col("area_fraction") > 0.01)
        & pl.col("commercial")
    )
    kept = pl.scan_parquet(folder / "manifest.parquet").filter(fits)
    wanted = kept.select(masks=pl.len(), area_px=pl.col("area_px").cast(pl.Int64).sum())
    return lambda: _numbers(wanted.collect().to_dicts())


def polars_stats(folder: Path) -> Callable[[], Any]:
    """The default queries with polars, collected together so that it may share its scans."""
    import polars as pl

    scan = pl.scan_parquet(folder / "manifest.parquet")
    first = (pl.col("annotation") == 0).sum()
    bins = ((pl.col("area_fraction").log10() * 2).floor()).alias("bin")
    plans = [
        scan.group_by("modality").agg(pl.len(), first, pl.col("source").n_unique()),
        scan.group_by("modality", "organ").agg(pl.len()),
        scan.group_by("modality", bins).agg(pl.len()),
        scan.group_by("label", "organ", "lesion").agg(pl.len()),
        scan.group_by("source", "split").agg(pl.len(), first),
        scan.group_by("licence", "commercial").agg(pl.len(), first),
        pl.scan_parquet(folder / "rejects.parquet").group_by("reason", "stage").agg(pl.len()),
    ]
    return lambda: int(pl.collect_all(plans)[0]["len"].sum())


def pyarrow_organs(folder: Path) -> Callable[[], Any]:
    """Masks by modality and organ with pyarrow, from two columns."""
    import pyarrow.parquet as pq

    def count() -> Any:
        table = pq.read_table(folder / "manifest.parquet", columns=["modality", "organ"])
        found = table.group_by(["modality", "organ"]).aggregate([([], "count_all")])
        return _numbers(found.rename_columns({"count_all": "masks"}).to_pylist())

    return count


def pyarrow_four(folder: Path) -> Callable[[], Any]:
    """The four predicates with pyarrow's dataset scanner."""
    import pyarrow.compute as pc
    import pyarrow.dataset as ds

    fits = (pc.field("modality") == "ct") & pc.field("lesion") & (pc.field("area_fraction") > 0.01)
    fits &= pc.field("commercial")

    def count() -> Any:
        kept = ds.dataset(folder / "manifest.parquet").to_table(columns=["area_px"], filter=fits)
        return _numbers([{"masks": kept.num_rows, "area_px": pc.sum(kept["area_px"]).as_py()}])

    return count


def _numbers(rows: list[dict[str, Any]]) -> str:
    return json.dumps(sorted([str(row[name]) for name in sorted(row)] for row in rows))


class Arm:
    """One way of doing one thing, in a process of its own that runs it on request."""

    def __init__(self, make: Callable[..., Callable[[], Any]], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make, arguments))
        self._process.start()
        theirs.close()
        self.answer = self._pipe.recv()
        self.seconds: list[float] = []

    def run(self) -> None:
        """One timed run."""
        self._pipe.send("run")
        self.seconds.append(self._pipe.recv())

    def finish(self) -> int:
        """End the process; its peak resident memory in bytes."""
        self._pipe.send("peak")
        peak = int(self._pipe.recv())
        self._process.join()
        return peak


def _serve(pipe: Connection, make: Callable[..., Callable[[], Any]], arguments: Sequence[Any]) -> None:
    work = make(*arguments)
    pipe.send(work())
    while pipe.recv() == "run":
        start = time.perf_counter()
        work()
        pipe.send(time.perf_counter() - start)
    status = Path("/proc/self/status").read_text(encoding="ascii")
    pipe.send(1024 * int(status.split("VmHWM:")[1].split()[0]))


def report(folder: Path, rows: int) -> None:
    """Print the table; raises SystemExit when two arms disagree."""
    from medcurate.explore.stats import named_queries

    size = (folder / "manifest.parquet").stat().st_size
    print(measure.machine())
    print(
        f"{rows:,} masks, manifest {size / 1e6:,.0f} MB, {len(os.sched_getaffinity(0))} CPUs, {RUNS} runs\n"
    )
    print("| what | arm | median s | min-max s | peak MB |\n|---|---|---|---|---|")
    _arms(
        "stats, all default queries",
        [
            ("medcurate", medcurate_stats, ()),
            ("medcurate, no summary", medcurate_stats_counted, ()),
            ("polars", polars_stats, ()),
        ],
        folder,
    )
    for query in named_queries().values():
        label = f"stats --name {query.name}" + (
            " (left out by default)" if rows > (query.default_up_to or rows) else ""
        )
        _arms(label, [("medcurate", medcurate_named, (query.name,))], folder)
    organs = [
        ("medcurate", medcurate_query, (ORGANS,)),
        ("polars", polars_organs, ()),
        ("pyarrow", pyarrow_organs, ()),
    ]
    _arms("query: modality x organ", organs, folder)
    four = [
        ("medcurate", medcurate_query, (FOUR,)),
        ("polars", polars_four, ()),
        ("pyarrow", pyarrow_four, ()),
    ]
    _arms("query: four predicates", four, folder)


def _arms(what: str, made: Sequence[tuple[str, Callable[..., Any], tuple[Any, ...]]], folder: Path) -> None:
    arms = {name: Arm(make, folder, *arguments) for name, make, arguments in made}
    for _ in range(RUNS):
        for arm in arms.values():
            arm.run()
    for name, arm in arms.items():
        spread = f"{min(arm.seconds):.3f}-{max(arm.seconds):.3f}"
        peak_mb = arm.finish() / 1e6
        print(
            f"| {what} | {name} | {statistics.median(arm.seconds):.3f} | {spread} | {peak_mb:,.0f} |",
            flush=True,
        )
    if len({arm.answer for arm in arms.values()}) != 1:
        raise SystemExit(f"the arms of {what} disagree")


def main() -> None:
    """Generate what is not there yet, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--folder", type=Path, help="keep the generated tables here and use them again")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        if not (folder / "rejects.parquet").exists():
            from manifest_data import write_manifest, write_rejects

            write_manifest(folder / "manifest.parquet", options.rows)
            write_rejects(folder / "rejects.parquet", options.rows // 10)
        if not (folder / BARE).exists():
            from manifest_data import write_record

            (folder / BARE).mkdir()
            for name in ("manifest.parquet", "rejects.parquet"):
                os.link(folder / name, folder / BARE / name)
            print(f"its summary was written in {write_record(folder):.2f} s")
        report(folder, options.rows)


if __name__ == "__main__":
    main()
