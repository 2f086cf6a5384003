"""Manifest and ledger of a packed output, and what they count."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from medcurate.format import MANIFEST_FILE, REJECTS_FILE
from medcurate.format.columns import MANIFEST, REJECTS
from medcurate.format.tables import write_table
from medcurate.pack.database import database, from_parquet, names, save
from medcurate.pack.plan import assigned
from medcurate.pack.shard import ShardJob
from medcurate.pack.types import PackInput

_LEDGER = "rejects.parquet"


def write_tables(
    inputs: PackInput, out: Path, folder: Path, jobs: Sequence[ShardJob], standing: set[str]
) -> list[str]:
    """Join the shards' rows in shard order, and sort the ledger; tables that stand are left alone.

    ``folder``: pack's work folder. Returns the names of the files written.
    """
    if MANIFEST_FILE not in standing:
        write_table(out / MANIFEST_FILE, MANIFEST, (pq.read_table(job.rows_path) for job in jobs))
    if REJECTS_FILE not in standing:
        write_table(out / REJECTS_FILE, REJECTS, _sorted_rejects(inputs, folder, jobs))
    return [name for name in (MANIFEST_FILE, REJECTS_FILE) if name not in standing]


def _sorted_rejects(inputs: PackInput, folder: Path, jobs: Sequence[ShardJob]) -> Iterator[pa.Table]:
    own = [job.rejects_path for job in jobs if job.rejects_path.is_file()]
    given = assigned(inputs, inputs.rejects, REJECTS)
    query = f"SELECT * FROM {given} UNION ALL SELECT * FROM {from_parquet(own, REJECTS)}"
    path = folder / _LEDGER
    with database(folder, _tables(inputs)) as connection:
        save(connection, f"SELECT * FROM ({query}) ORDER BY {names(REJECTS)}", path)
    for batch in pq.ParquetFile(path).iter_batches():
        yield pa.Table.from_batches([batch])


def _tables(inputs: PackInput) -> list[Path]:
    return [*inputs.rejects, *([inputs.assignments] if inputs.assignments else [])]


def count_written(out: Path, folder: Path) -> dict[str, int]:
    """Cases, slices and masks of the manifest."""
    manifest = out / MANIFEST_FILE
    with database(folder, [manifest]) as connection:
        rows = from_parquet([manifest], MANIFEST)
        cases = f'SELECT count(*) FROM (SELECT DISTINCT source, "case" FROM {rows})'
        query = f"SELECT ({cases}), count(*) FILTER (annotation = 0), count(*) FROM {rows}"
        return dict(zip(("cases", "slices", "masks"), connection.execute(query).fetchall()[0], strict=True))


def count_rejects_added(inputs: PackInput, out: Path, folder: Path) -> dict[str, int]:
    """Slices and masks that pack refused: what its stage has in the new ledger beyond the given ones."""
    ledger = out / REJECTS_FILE
    counts = []
    with database(folder, [*inputs.rejects, ledger]) as connection:
        for paths in ([ledger], inputs.rejects):
            query = (
                "SELECT count(*) FILTER (instance IS NULL), count(*) FILTER (instance IS NOT NULL) "
                f"FROM {from_parquet(paths, REJECTS)} WHERE stage = 'pack'"
            )
            counts.append(connection.execute(query).fetchall()[0])
    return {"slices": counts[0][0] - counts[1][0], "masks": counts[0][1] - counts[1][1]}
