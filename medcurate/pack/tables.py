"""Manifest, ledger and summary of a packed output, and what they count."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from medcurate.format import MANIFEST_FILE, REJECTS_FILE, SUMMARY_FILE
from medcurate.format.columns import MANIFEST, REJECTS, SUMMARY
from medcurate.format.summary import summary_query
from medcurate.format.tables import write_table
from medcurate.ledger import LEVEL
from medcurate.pack.database import from_parquet, names, save
from medcurate.pack.plan import assigned
from medcurate.pack.shard import ShardJob
from medcurate.pack.types import PackInput

TABLES = (MANIFEST_FILE, REJECTS_FILE, SUMMARY_FILE)  # in the order in which they are written


def write_tables(
    connection: duckdb.DuckDBPyConnection,
    inputs: PackInput,
    out: Path,
    folder: Path,
    jobs: Sequence[ShardJob],
    wanted: Collection[str],
) -> None:
    """Join the shards' rows in shard order, sort the ledger, count the summary: whichever of ``TABLES`` is ``wanted``.

    ``folder``: pack's work folder; ``connection`` may read the tables of ``inputs`` and ``out``.
    """
    if MANIFEST_FILE in wanted:
        write_table(out / MANIFEST_FILE, MANIFEST, (pq.read_table(job.rows_path) for job in jobs))
    if REJECTS_FILE in wanted:
        rows = _sorted_rejects(inputs, jobs)
        write_table(out / REJECTS_FILE, REJECTS, _rows(connection, rows, folder / REJECTS_FILE))
    if SUMMARY_FILE in wanted:
        write_summary(connection, out, folder)


def write_summary(connection: duckdb.DuckDBPyConnection, out: Path, folder: Path) -> None:
    """Commit the summary of the manifest in ``out``; ``connection`` may read that and write in ``folder``."""
    query = summary_query(from_parquet([out / MANIFEST_FILE], MANIFEST))
    write_table(out / SUMMARY_FILE, SUMMARY, _rows(connection, query, folder / SUMMARY_FILE))


def _rows(connection: duckdb.DuckDBPyConnection, query: str, path: Path) -> Iterator[pa.Table]:
    """The rows of ``query``, which wait in ``path`` instead of memory."""
    save(connection, query, path)
    for batch in pq.ParquetFile(path).iter_batches():
        yield pa.Table.from_batches([batch])


def _sorted_rejects(inputs: PackInput, jobs: Sequence[ShardJob]) -> str:
    """A query for the given rows of the ledger and those of pack itself."""
    own = [job.rejects_path for job in jobs if job.rejects_path.is_file()]
    query = f"SELECT * FROM {_given(inputs, jobs)} UNION ALL SELECT * FROM {from_parquet(own, REJECTS)}"
    return f"SELECT * FROM ({query}) ORDER BY {names(REJECTS)}"


def _given(inputs: PackInput, jobs: Sequence[ShardJob]) -> str:
    """A query for the input's ledger: of a selection, the rows of those sources alone that something was chosen of."""
    rows = assigned(inputs, inputs.rejects, REJECTS)
    if not any(job.filtered for job in jobs):
        return rows
    chosen = f"SELECT source FROM {from_parquet([job.plan for job in jobs[:1]], MANIFEST)}"
    return f"(SELECT * FROM {rows} given WHERE source IN ({chosen}))"


def count_written(connection: duckdb.DuckDBPyConnection, out: Path) -> dict[str, int]:
    """Cases, slices and masks of the manifest."""
    rows = from_parquet([out / MANIFEST_FILE], MANIFEST)
    cases = f'SELECT count(*) FROM (SELECT DISTINCT source, "case" FROM {rows})'
    query = f"SELECT ({cases}), count(*) FILTER (annotation = 0), count(*) FROM {rows}"
    return dict(zip(("cases", "slices", "masks"), connection.execute(query).fetchall()[0], strict=True))


def count_rejected(connection: duckdb.DuckDBPyConnection, out: Path) -> dict[str, int]:
    """Cases, slices and masks of the ledger."""
    return _levels(connection, from_parquet([out / REJECTS_FILE], REJECTS))


def count_kept(
    connection: duckdb.DuckDBPyConnection, inputs: PackInput, jobs: Sequence[ShardJob]
) -> dict[str, int]:
    """Cases, slices and masks of what the ledger keeps of the given one: the rest pack itself refused."""
    return _levels(connection, _given(inputs, jobs))


def _levels(connection: duckdb.DuckDBPyConnection, rows: str) -> dict[str, int]:
    found = dict(connection.execute(f"SELECT {LEVEL}, count(*) FROM {rows} GROUP BY ALL").fetchall())
    return {level: found.get(level, 0) for level in ("cases", "slices", "masks")}
