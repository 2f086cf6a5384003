"""The named queries of ``manifests/queries/`` and their results over one dataset.

A query file is SQL under comment lines ``-- key: value``: title, order, chart (bar, stacked-bar, histogram or
none), x, y, colour (result columns), and default-up-to: the number of masks above which the query runs only
when named, because counting distinct images or patients takes seconds there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medcurate.errors import ConfigError
from medcurate.explore.query import add_view, make, opened, stream, tables
from medcurate.format.summary import AREA_BIN, summary_query
from medcurate.storage import Location, locate

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

CHARTS = ("bar", "stacked-bar", "histogram", "none")
_TABLES = re.compile(r"\bFROM (manifest|rejects|summary|sizes)\b")
_COMMENT = re.compile(r"^-- ([a-z-]+): (.+)$", re.MULTILINE)
_KEYS = {"title", "order", "chart", "x", "y", "colour", "default-up-to"}

# What is not a file of the dataset. A table and no view of the manifest: a query's conditions would go down into its
# scan, and compute every bin twice. One scan for both tables would take longer than the two.
_COUNTED = {
    "summary": "CREATE TEMP TABLE summary AS {summary}",
    "sizes": "CREATE TEMP TABLE sizes AS SELECT modality, {bin} AS area_bin, count(*) AS masks FROM manifest"
    " GROUP BY ALL",
}
_SIZES = "CREATE TEMP VIEW sizes AS SELECT modality, area_bin, sum(masks) AS masks FROM summary GROUP BY ALL"


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
    def tables(self) -> set[str]:
        """Which of manifest, rejects, summary and sizes it reads."""
        return set(_TABLES.findall(self.sql))


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

    Raises ConfigError for an unknown name, no dataset or one without what is counted, StorageError when it cannot be
    read.
    """
    known = named_queries()
    for name in names:
        if name not in known:
            raise ConfigError(f'stats: query "{name}" is unknown; known: {", ".join(known)}')
    files = tables(dataset)
    with opened(files) as connection:
        made = _Tables(connection, files)
        wanted = [known[name] for name in names] or [q for q in known.values() if q.tables <= made.names]
        _check_tables(wanted, made.names, dataset)
        totals = {} if names else _totals(made)
        masks = totals.get("masks", 0)
        left_out = [q for q in wanted if q.default_up_to is not None and masks > q.default_up_to]
        answers = [Answer(q, *made.rows(q.sql, q.tables)) for q in wanted if q not in left_out]
    return Statistics(str(locate(dataset)).rstrip("/").rsplit("/", 1)[-1], totals, answers, left_out)


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


def _check_tables(wanted: Sequence[NamedQuery], here: Set[str], dataset: str | Path) -> None:
    lacking = set[str]().union(*(query.tables for query in wanted)) - here if wanted else {"manifest"}
    if lacking:
        raise ConfigError(
            f"stats: {locate(dataset)} has no {', '.join(sorted(lacking))} to count (tables here: "
            f"{', '.join(sorted(here - _COUNTED.keys()))}). Name a dataset's folder; medcurate query asks any table."
        )


class _Tables:
    """The tables that queries read, each made for the first one that reads it: of a URL its footer costs requests.

    ``summary`` and ``sizes`` both come of the dataset's own summary where it has one, else of the manifest.
    """

    def __init__(self, connection: DuckDBPyConnection, files: Mapping[str, Location]) -> None:
        self._connection = connection
        self._files = files
        self._made: set[str] = set()
        self.names = {*files, *(_COUNTED if files.keys() & {"manifest", "summary"} else ())}

    def rows(self, sql: str, names: Set[str]) -> tuple[tuple[str, ...], list[dict[str, Any]]]:
        """The answer of a query that reads the tables ``names``."""
        self._need(names)
        table = stream(self._connection, sql).read_all()
        return tuple(table.column_names), table.to_pylist()

    def _need(self, names: Set[str]) -> None:
        for name in sorted(names - self._made):
            self._make(name)
            self._made.add(name)

    def _make(self, name: str) -> None:
        if name in self._files:
            self._view(name)
        elif "summary" in self._files:
            self._need({"summary"})
            make(self._connection, _SIZES)
        else:
            self._need({"manifest"})
            counted = _COUNTED[name].format(summary=summary_query(area_bins=False), bin=AREA_BIN)
            make(self._connection, counted)

    def _view(self, name: str) -> None:
        file = self._files[name]
        add_view(self._connection, name, file)
        if name == "summary" and not file.is_local:  # read once, not once for every query
            make(self._connection, "CREATE TEMP TABLE summary AS FROM main.summary")


def _totals(made: _Tables) -> dict[str, int]:
    totals: dict[str, int] = {}
    if "summary" in made.names:
        totals |= made.rows(
            "SELECT coalesce(sum(masks), 0) AS masks, coalesce(sum(first_masks), 0) AS images,"
            " count(DISTINCT source) AS sources, count(DISTINCT modality) AS modalities,"
            " count(DISTINCT organ) AS organs FROM summary",
            {"summary"},
        )[1][0]
    if "rejects" in made.names:
        totals |= made.rows("SELECT count(*) AS refused FROM rejects", {"rejects"})[1][0]
    return totals
