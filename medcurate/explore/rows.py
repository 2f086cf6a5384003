"""Rows of a query for people and for programs: a table on the terminal, CSV, JSON or Parquet.

CSV and JSON are written batch by batch and depend on the rows alone.
"""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from medcurate.commit import committed
from medcurate.errors import ConfigError
from medcurate.explore.stats import Answer, Statistics, readable

MAX_SHOWN = 50
MAX_SHOWN_STATISTICS = 12
_RECORDS = 10  # rows shown one value a line where the columns are too many for the terminal


def write(reader: pa.RecordBatchReader, form: str, out: Path | None) -> None:
    """Write all rows as csv, json or parquet, to ``out`` (all or nothing) or to standard output.

    Raises ConfigError for a table or Parquet without a file, and for what the form cannot hold.
    """
    writers = {"csv": _csv, "json": _json, "parquet": _parquet}
    if form not in writers:
        raise ConfigError("query: a table is for the terminal; give --format csv, json or parquet with -o.")
    if form == "parquet" and out is None:
        raise ConfigError("query: --format parquet needs a file: add -o FILE.parquet")
    try:
        with _target(out) as stream, _dates():
            writers[form](reader, stream)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ConfigError(f"query: {form} cannot hold this result ({error}); use --format json.") from error


def show(reader: pa.RecordBatchReader, console: Console | None = None) -> None:
    """Print the first rows as a table, or as records where it would not fit, and say how many there are."""
    console = console or Console()
    shown: list[tuple[Any, ...]] = []
    total = 0
    for batch in reader:
        head = batch.slice(0, max(MAX_SHOWN - total, 0))
        with _dates():
            shown.extend(zip(*(column.to_pylist() for column in head), strict=True))  # names may be equal
        total += batch.num_rows
    columns = [*reader.schema.names]
    cells = [[_plain(value) for value in row] for row in shown]
    if _table_width(columns, cells) > console.width and len(columns) > 1:
        cells = cells[:_RECORDS]
        _print_records(console, columns, cells)
    else:
        numeric = [pa.types.is_integer(f.type) or pa.types.is_floating(f.type) for f in reader.schema]
        console.print(_table(columns, cells, numeric))
    note = f"{total:,} row{'' if total == 1 else 's'}"
    if total > len(cells):
        note += f", the first {len(cells)} shown; for all: --format csv, json or parquet with -o FILE"
    console.print(Text(note, style="dim"))


def show_statistics(statistics: Statistics, *, whole: bool, console: Console | None = None) -> None:
    """Print totals and one table a query; ``whole``: all rows instead of the first few."""
    console = console or Console()
    totals = "   ".join(f"[bold]{count:,}[/bold] {name}" for name, count in statistics.totals.items())
    console.print(f"[bold]{escape(statistics.dataset)}[/bold]   {totals}", highlight=False)
    for answer in statistics.answers:
        console.print()
        _print_answer(console, answer, len(answer.rows) if whole else MAX_SHOWN_STATISTICS)
    if statistics.left_out:
        names = ", ".join(query.name for query in statistics.left_out)
        note = f"\nLeft out at this size, because they count distinct values: {names}. Run them with --name."
        console.print(Text(note, style="dim"))


def statistics_json(statistics: Statistics) -> str:
    """All answers as one JSON object: dataset, totals, and title and rows of each query by name."""
    queries = {a.query.name: {"title": a.query.title, "rows": a.rows} for a in statistics.answers}
    value = {"dataset": statistics.dataset, "totals": statistics.totals, "queries": queries}
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def _print_answer(console: Console, answer: Answer, limit: int) -> None:
    if not answer.rows:
        console.print(Text.assemble((answer.query.title, "bold"), ": none"))
        return
    rows = answer.rows[:limit]
    cells = [[readable(row[name]) for name in answer.columns] for row in rows]
    numeric = [isinstance(rows[0][name], int | float) for name in answer.columns]
    table = _table([name.replace("_", " ") for name in answer.columns], cells, numeric)
    table.title = answer.query.title
    table.title_justify = "left"
    table.title_style = "bold"
    console.print(table)
    if len(answer.rows) > limit:
        more = f"{len(answer.rows) - limit:,} more rows: --name {answer.query.name}, --json or --html FILE"
        console.print(Text(more, style="dim"))


def _table(columns: Sequence[str], cells: Sequence[Sequence[str]], numeric: Sequence[bool]) -> Table:
    table = Table(header_style="bold", border_style="dim")
    for name, right in zip(columns, numeric, strict=True):
        table.add_column(Text(name), justify="right" if right else "left", overflow="fold")
    for line in cells:
        table.add_row(*map(Text, line))
    return table


def _print_records(console: Console, columns: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    width = max(map(len, columns))
    for number, line in enumerate(cells, 1):
        console.print(Text(f"row {number}", style="bold"))
        for name, value in zip(columns, line, strict=True):
            console.print(Text(f"  {name:<{width}}  {value}"))


def _csv(reader: pa.RecordBatchReader, stream: IO[bytes]) -> None:
    import pyarrow.csv as pc

    if nested := [f.name for f in reader.schema if pa.types.is_nested(f.type)]:
        raise ConfigError(f"query: CSV cannot hold {', '.join(nested)}; use --format json.")
    with pc.CSVWriter(stream, reader.schema) as writer:
        for batch in reader:
            writer.write_batch(batch)


def _json(reader: pa.RecordBatchReader, stream: IO[bytes]) -> None:
    names = Counter(reader.schema.names)
    if repeated := [name for name, count in names.items() if count > 1]:
        raise ConfigError(
            f"query: several columns are called {', '.join(repeated)}, of which JSON keeps one; name them with AS."
        )
    separator = "[\n"
    for batch in reader:
        for row in batch.to_pylist():
            text = json.dumps(_as_json(row), ensure_ascii=False, default=str)
            stream.write(f"{separator}{text}".encode())
            separator = ",\n"
    stream.write(b"[]\n" if separator == "[\n" else b"\n]\n")


def _parquet(reader: pa.RecordBatchReader, stream: IO[bytes]) -> None:
    import pyarrow.parquet as pq

    with pq.ParquetWriter(stream, reader.schema, compression="zstd") as writer:
        for batch in reader:
            writer.write_batch(batch)


def _as_json(value: Any) -> Any:
    """JSON has no NaN and no infinity: null stands for them. A decimal is a number where no digit is lost."""
    if isinstance(value, Decimal):
        number = float(value)
        value = number if Decimal(repr(number)) == value else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _as_json(item) for name, item in value.items()}
    return [_as_json(item) for item in value] if isinstance(value, list | tuple) else value


def _plain(value: object) -> str:
    """A cell of a query's table: as it is, so that it can be copied into another query."""
    return "-" if value is None else str(value)


def _table_width(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> int:
    """Characters that the table needs: every column with its padding and one rule."""
    lines = [columns, *cells]
    return 1 + sum(3 + max(len(line[number]) for line in lines) for number in range(len(columns)))


@contextmanager
def _dates() -> Iterator[None]:
    try:
        yield
    except OverflowError as error:
        raise ConfigError(
            f"query: {error}: a date or time before year 1, after 9999, or infinite. Show it as text, with ::VARCHAR."
        ) from error


@contextmanager
def _target(out: Path | None) -> Iterator[IO[bytes]]:
    if out is not None:
        with committed(out) as stream:
            yield stream
        return
    yield sys.stdout.buffer
    sys.stdout.buffer.flush()
