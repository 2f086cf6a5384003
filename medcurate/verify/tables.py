"""Manifest, ledger and summary: their schema, and what must hold across all rows, by queries in bounded memory."""

from __future__ import annotations

import glob
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from medcurate.format import MANIFEST_FILE, REJECTS_FILE, SPLITS, SUMMARY_FILE
from medcurate.format.columns import MANIFEST, REJECTS, SUMMARY, Column, schema
from medcurate.format.record import DatasetRecord
from medcurate.format.summary import summary_query
from medcurate.ledger import LEVEL

_MEMORY_LIMIT = "512MB"
_SHOWN_PER_RULE = 20

_OPTIONAL = {"area_mm2", "row_spacing_mm", "col_spacing_mm", "intensity_low", "intensity_high", "commercial"}
_OPTIONAL |= {"slice_index", "slice_count"}
_REQUIRED = tuple(column.name for column in MANIFEST if column.name not in _OPTIONAL)

# What a label or a source decides, so that all its rows say the same.
_DECIDED = {
    "label": ("organ", "region", "laterality", "lesion", "snomed"),
    "source": ("licence", "commercial", "synthetic"),
}

# Each gives (a description of one violation), and must give none.
_RULES = (
    f"""SELECT DISTINCT 'rows of ' || coalesce(shard, 'no shard') || ' lack a value that every row must have'
        FROM manifest WHERE {" OR ".join(f'"{name}" IS NULL' for name in _REQUIRED)}""",
    """SELECT 'the key ' || key || ' stands in several shards' FROM manifest
       GROUP BY key HAVING min(shard) <> max(shard)""",
    """SELECT 'the group ' || "group" || ' is in several splits: '
       || string_agg(DISTINCT split, ', ' ORDER BY split)
       FROM manifest GROUP BY "group" HAVING min(split) <> max(split)""",
    """SELECT 'the case ' || "case" || ' of ' || source || ' is in several groups' FROM manifest
       GROUP BY source, "case" HAVING min("group") <> max("group")""",
    """SELECT 'the key ' || key || ' has ' || count_if(organ_first) || ' first masks of ' || organ
       FROM manifest GROUP BY key, organ HAVING count_if(organ_first) <> 1""",
    """SELECT DISTINCT shard || ' holds samples of split "' || split || '"' FROM manifest
       WHERE NOT starts_with(shard, 'shards/' || split || '-')""",
    """SELECT 'mask ' || annotation || ' of ' || key || ' has an impossible box or area'
       FROM manifest WHERE NOT (x0 < x1 AND y0 < y1 AND x1 <= width AND y1 <= height
       AND area_px BETWEEN 1 AND (x1::BIGINT - x0) * (y1::BIGINT - y0))""",
    """SELECT DISTINCT 'the sample ' || key || ' has an impossible spacing or plane' FROM manifest
       WHERE row_spacing_mm <= 0 OR col_spacing_mm <= 0 OR slice_index >= slice_count""",
    *(
        f"""SELECT 'rows of the {key} ' || {key} || ' do not agree on {", ".join(facts)}'
            FROM (SELECT DISTINCT {key}, {", ".join(facts)} FROM manifest WHERE {key} IS NOT NULL)
            GROUP BY {key} HAVING count(*) > 1"""
        for key, facts in _DECIDED.items()
    ),
)
_ANSWERS = {"yes": True, "no": False}  # to commercial use, as the manifest has them; null for others


def manifest_problems(folder: Path, record: DatasetRecord) -> Iterator[str]:
    """Rules across all rows, and agreement with the record's shards, sources and counts."""
    with _database({folder / MANIFEST_FILE: MANIFEST}) as connection:
        for rule in _RULES:
            yield from _violations(connection, rule)
        known = {"shard": set(record.files), "source": set(record.sources), "split": set(SPLITS)}
        for column, names in known.items():
            found = connection.execute(f"SELECT DISTINCT {column} FROM manifest").fetchall()
            for name in sorted({str(value) for (value,) in found} - names)[:_SHOWN_PER_RULE]:
                yield f'rows have the {column} "{name}", which the dataset does not have'
        query = "SELECT DISTINCT source, licence, commercial FROM manifest ORDER BY ALL"
        yield from _licence_problems(record, connection.execute(query).fetchall())
        query = "SELECT count(*) FILTER (annotation = 0), count(*) FROM manifest"
        counted = dict(zip(("slices", "masks"), connection.execute(query).fetchall()[0], strict=True))
        yield from _count_problems(record, "written", counted)


def rejects_problems(folder: Path, record: DatasetRecord) -> Iterator[str]:
    """Agreement of the ledger with the record's counts."""
    with _database({folder / REJECTS_FILE: REJECTS}) as connection:
        rows = connection.execute(f"SELECT {LEVEL}, count(*) FROM rejects GROUP BY ALL").fetchall()
        yield from _count_problems(
            record, "rejected", {kind: dict(rows).get(kind, 0) for kind in ("cases", "slices", "masks")}
        )


def summary_problems(folder: Path, _: DatasetRecord) -> Iterator[str]:
    """Rows of the summary that the manifest does not give, and those that it gives and the summary lacks."""
    with _database({folder / MANIFEST_FILE: MANIFEST, folder / SUMMARY_FILE: SUMMARY}) as connection:
        connection.execute(f"CREATE TEMP TABLE counted AS {summary_query()}")
        for what, rows, others in (
            ("the manifest does not give its row ", "summary", "counted"),
            ("lacks a row that the manifest gives: ", "counted", "summary"),
        ):
            query = f"SELECT '{what}' || x::VARCHAR FROM (FROM {rows} EXCEPT ALL FROM {others}) x"
            yield from _violations(connection, query)


def schema_problem(path: Path, columns: tuple[Column, ...]) -> str | None:
    """Why ``path`` is no table of these columns; None if it is one."""
    try:
        found = pq.read_schema(path)
    except (OSError, pa.ArrowInvalid) as error:
        return f"is not a readable Parquet file ({str(error).splitlines()[0]})"
    if not found.equals(schema(columns)):
        wrong = [c.name for c in columns if c.name not in found.names] or ["order or types"]
        return f"has other columns than the format says: {', '.join(wrong)}"
    return None


def record_problems(record: DatasetRecord) -> Iterator[str]:
    """The counting law, of what the record itself counts."""
    for kind, counts in record.counts.items():
        rest = [counts.get(name, 0) for name in ("written", "rejected", "not_selected")]
        if counts.get("discovered", sum(rest)) != sum(rest):
            yield f"its counts do not add up: {kind} {counts}"


def _licence_problems(
    record: DatasetRecord, found: Sequence[tuple[str | None, str | None, bool | None]]
) -> Iterator[str]:
    """Rows (source, licence, commercial) that do not say what the record says of their source."""
    for source, licence, commercial in found:
        stated = record.sources.get(str(source), {}).get("licence")
        if not isinstance(stated, Mapping):
            continue
        expected = stated.get("id"), _ANSWERS.get(str(stated.get("commercial")))
        if (licence, commercial) != expected:
            yield (
                f"rows of the source {source} have the licence {licence} (commercial use: {commercial}); "
                f"dataset.json says {expected[0]} ({expected[1]})"
            )


def _count_problems(record: DatasetRecord, what: str, counted: Mapping[str, int]) -> Iterator[str]:
    for kind, count in counted.items():
        stated = record.counts.get(kind, {}).get(what)
        if stated != count:
            yield f"has {count} {kind} {what}; dataset.json says {stated}"


def _violations(connection: duckdb.DuckDBPyConnection, rule: str) -> Iterator[str]:
    for (text,) in connection.execute(f"{rule} ORDER BY ALL LIMIT {_SHOWN_PER_RULE}").fetchall():
        yield str(text)


@contextmanager
def _database(tables: Mapping[Path, tuple[Column, ...]]) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection with these files as tables, by their names; it spills into the system's temporary folder."""
    with (
        tempfile.TemporaryDirectory(prefix="medcurate-") as spill,
        duckdb.connect(config={"memory_limit": _MEMORY_LIMIT, "temp_directory": spill}) as connection,
    ):
        for path, columns in tables.items():
            names = ", ".join(f'"{column.name}"' for column in columns)
            literal = glob.escape(str(path)).replace("'", "''")
            source = f"read_parquet(['{literal}'], hive_partitioning = false)"
            connection.execute(f"CREATE VIEW {path.stem} AS SELECT {names} FROM {source}")
        yield connection
