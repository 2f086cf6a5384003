"""The named queries of ``manifests/queries/`` and their results over one dataset.

A query file is SQL under comment lines ``-- key: value``: title, order, chart (bar, stacked-bar, histogram or
none), x, y, colour (result columns), and default-up-to: the number of masks above which the query runs only
when named, because counting distinct images or patients takes seconds there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medcurate.errors import ConfigError
from medcurate.explore.query import connect, stream

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

CHARTS = ("bar", "stacked-bar", "histogram", "none")
_COMMENT = re.compile(r"^-- ([a-z-]+): (.+)$", re.MULTILINE)
_KEYS = {"title", "order", "chart", "x", "y", "colour", "default-up-to"}

# One scan serves most queries. ``first_masks`` counts masks that are the first of their image: added up over
# labels it is the number of images; ``organ_images`` likewise, by organ.
_COUNTS = """
CREATE TEMP TABLE counts AS
SELECT
    source, split, modality, label, count(*) AS masks, count_if(annotation = 0) AS first_masks,
    count_if(organ_first) AS organ_images
FROM manifest
GROUP BY source, split, modality, label
"""
# A label decides its organ and whether it is a lesion, a source its licence. The first rows know most of them,
# so that these columns are seldom read whole: not at all where none is missing.
_FACTS = """
CREATE TEMP TABLE {key}_facts AS
SELECT {key}, {facts} FROM (SELECT {key}, {columns} FROM manifest LIMIT {first_rows}) GROUP BY {key};
INSERT INTO {key}_facts
SELECT {key}, {facts} FROM manifest
WHERE {key} IN (SELECT {key} FROM counts EXCEPT SELECT {key} FROM {key}_facts) GROUP BY {key}
"""
_FIRST_ROWS = 100_000
_DECIDED_BY = {"label": ("organ", "lesion"), "source": ("licence", "commercial")}
_SUMMARY = """
CREATE TEMP TABLE summary AS FROM counts JOIN label_facts USING (label) JOIN source_facts USING (source)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedQuery:
    """One file of ``manifests/queries/``."""

    name: str
    sql: str
    title: str
    order: int
    chart: str = "none"
    x: str = ""
    y: str = ""
    colour: str = ""
    default_up_to: int | None = None

    @property
    def of_rejects(self) -> bool:
        """Whether it reads the ledger instead of the manifest."""
        return "FROM rejects" in self.sql


@dataclass(frozen=True, slots=True)
class Answer:
    """A query with its rows: column name to value, in the order of the query."""

    query: NamedQuery
    columns: tuple[str, ...]
    rows: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Statistics:
    """All answers over one dataset; ``totals``: masks, images, sources, modalities, organs, refused.

    Where queries were named, there are no totals.
    """

    dataset: str  # the last part of its path or URL
    totals: Mapping[str, int]
    answers: Sequence[Answer]
    left_out: Sequence[NamedQuery]  # run only when named, because the dataset is large


def named_queries() -> dict[str, NamedQuery]:
    """Every packaged query by name, in the order in which they are shown. Raises ConfigError."""
    folder = resources.files("medcurate.manifests") / "queries"
    files = [file for file in folder.iterdir() if file.name.endswith(".sql")]
    found = [parse_query(file.name.removesuffix(".sql"), file.read_text(encoding="utf-8")) for file in files]
    return {query.name: query for query in sorted(found, key=lambda query: (query.order, query.name))}


def parse_query(name: str, text: str) -> NamedQuery:
    """A query file's text as a query. Raises ConfigError naming the file and the key."""
    meta = dict(_COMMENT.findall(text))
    where = f"manifests/queries/{name}.sql"
    unknown = sorted(set(meta) - _KEYS)
    if unknown or "title" not in meta:
        raise ConfigError(f"{where}: unknown {unknown}" if unknown else f"{where}: title is missing")
    chart = meta.get("chart", "none")
    if chart not in CHARTS or (chart != "none" and not {"x", "y", "colour"} <= set(meta)):
        raise ConfigError(
            f'{where}: chart "{chart}" must be one of {", ".join(CHARTS)}, with x, y and colour'
        )
    try:
        order, limit = int(meta.get("order", "999")), meta.get("default-up-to")
        default_up_to = int(limit) if limit else None
    except ValueError as error:
        raise ConfigError(f"{where}: order and default-up-to must be whole numbers: {error}") from error
    return NamedQuery(
        name=name,
        sql=_COMMENT.sub("", text).strip(),
        title=meta["title"],
        order=order,
        chart=chart,
        x=meta.get("x", ""),
        y=meta.get("y", ""),
        colour=meta.get("colour", ""),
        default_up_to=default_up_to,
    )


def compute(dataset: str | Path, names: Sequence[str] = ()) -> Statistics:
    """Run the queries ``names`` (default: all that suit the dataset's size) over a dataset's folder or URL.

    Raises ConfigError for an unknown name or no dataset, StorageError when it cannot be read.
    """
    known = named_queries()
    for name in names:
        if name not in known:
            raise ConfigError(f'stats: query "{name}" is unknown; known: {", ".join(known)}')
    with connect(dataset) as connection:
        tables = {row["name"] for row in _rows(connection, "SHOW TABLES")[1]}
        wanted = [known[name] for name in names] or list(known.values())
        wanted = [query for query in wanted if ("rejects" if query.of_rejects else "manifest") in tables]
        if "manifest" in tables and (not names or any("FROM summary" in query.sql for query in wanted)):
            _summarise(connection)
        totals = {} if names else _totals(connection, tables)
        masks = totals.get("masks", 0)
        left_out = [q for q in wanted if q.default_up_to is not None and masks > q.default_up_to]
        answers = [Answer(q, *_rows(connection, q.sql)) for q in wanted if q not in left_out]
    return Statistics(str(dataset).rstrip("/").rsplit("/", 1)[-1], totals, answers, left_out)


def readable(value: object) -> str:
    """A value as people read it: thousands separators, three significant digits below 1000, "-" for null."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)


def _summarise(connection: DuckDBPyConnection) -> None:
    """Make the table ``summary``: counts by source, split, modality and label, with what these decide."""
    connection.execute(_COUNTS)
    for key, columns in _DECIDED_BY.items():
        facts = ", ".join(f"any_value({name}) AS {name}" for name in columns)
        connection.execute(
            _FACTS.format(key=key, facts=facts, columns=", ".join(columns), first_rows=_FIRST_ROWS)
        )
    connection.execute(_SUMMARY)


def _totals(connection: DuckDBPyConnection, tables: set[str]) -> dict[str, int]:
    totals: dict[str, int] = {}
    if "manifest" in tables:
        totals |= _rows(
            connection,
            "SELECT coalesce(sum(masks), 0) AS masks, coalesce(sum(first_masks), 0) AS images,"
            " count(DISTINCT source) AS sources, count(DISTINCT modality) AS modalities,"
            " count(DISTINCT organ) AS organs FROM summary",
        )[1][0]
    if "rejects" in tables:
        totals |= _rows(connection, "SELECT count(*) AS refused FROM rejects")[1][0]
    return totals


def _rows(connection: DuckDBPyConnection, sql: str) -> tuple[tuple[str, ...], list[dict[str, Any]]]:
    table = stream(connection, sql).read_all()
    return tuple(table.column_names), table.to_pylist()
