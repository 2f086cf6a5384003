"""Verbs that look at a dataset: ``query``, ``stats``, ``preview``."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from medcurate.errors import ConfigError

DatasetArgument = Annotated[
    str, typer.Argument(metavar="DATASET", help="Folder or URL (https, s3) of a dataset, or a Parquet file.")
]


class Format(StrEnum):
    """How ``query`` writes rows."""

    table = "table"
    csv = "csv"
    json = "json"
    parquet = "parquet"


def register(app: typer.Typer) -> None:
    """Add the verbs to ``app``."""
    app.command("query")(query)
    app.command("stats")(stats)
    app.command("preview")(preview)


def query(
    dataset: DatasetArgument,
    sql: Annotated[
        str,
        typer.Argument(
            metavar="SQL",
            help="One SELECT over `manifest`, `rejects` and `summary`; of an evaluation over `scores`, `volumes`, "
            "`predictions` and `prompts`.",
        ),
    ],
    format_: Annotated[
        Format | None,
        typer.Option(
            "--format", help="Of the rows.", show_default="by -o, else table on a terminal, else csv"
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write to this file.")] = None,
) -> None:
    """Ask a dataset's tables in SQL (DuckDB's dialect), read-only.

    Columns named like words of SQL need double quotes: "group", "case", "offset".
    """
    from medcurate.explore import rows
    from medcurate.explore.query import connect, stream

    chosen = format_ or _format_of(out)
    with connect(dataset) as connection:
        reader = stream(connection, sql)
        if chosen is Format.table and out is None:
            rows.show(reader)
        else:
            rows.write(reader, chosen.value, out)


def stats(
    dataset: DatasetArgument,
    name: Annotated[
        list[str] | None,
        typer.Option(metavar="QUERY", help="Only this query, such as licences; may be repeated."),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write one self-contained page to this file.")] = None,
    png: Annotated[Path | None, typer.Option(help="Write the charts to this picture.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print all rows as JSON.")] = False,
) -> None:
    """Count what a dataset holds: modalities, organs, sizes, sources, splits, licences, refusals."""
    from medcurate.commit import committed, require_page_name, require_picture_name
    from medcurate.explore import rows
    from medcurate.explore.stats import compute

    if html:
        require_page_name("--html", html)
    if png:
        require_picture_name("--png", png)
    found = compute(dataset, name or ())
    if html or png:
        from medcurate.explore import page
    if html:
        with committed(html) as stream:
            stream.write(page.html(found).encode())
    if png:
        with committed(png) as stream:
            stream.write(page.png(found))
    if json:
        sys.stdout.write(rows.statistics_json(found))
    else:
        rows.show_statistics(found, whole=bool(name))
        _show_lineage(dataset)
    for written in filter(None, (html, png)):
        typer.echo(f"written: {written}", err=True)


def _show_lineage(dataset: str) -> None:
    """What the sources of a dataset on this machine share, and which were left out when it was built."""
    from medcurate.format import DATASET_FILE
    from medcurate.format.record import read_record

    if not (Path(dataset) / DATASET_FILE).is_file():
        return
    lineage = read_record(Path(dataset)).lineage
    for text in lineage.get("overlaps", ()):
        typer.echo(f"overlap: {text}")
    for source, why in lineage.get("left_out", {}).items():
        typer.echo(f"left out: {source}: {why}")


def preview(
    dataset: Annotated[
        str, typer.Argument(metavar="DATASET", help="Folder or URL (https, s3) of a dataset.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The picture (PNG) to write.")],
    where: Annotated[
        str, typer.Option(help="SQL condition on the manifest, such as \"organ = 'liver'\".")
    ] = "",
    count: Annotated[int, typer.Option(min=1, max=400, help="Samples to show.")] = 24,
    columns: Annotated[int, typer.Option(min=1, max=40, help="Tiles in a row.")] = 6,
    seed: Annotated[int, typer.Option(help="Another seed shows other samples.")] = 0,
) -> None:
    """Draw a contact sheet: samples of every modality and organ with their masks outlined."""
    from medcurate.commit import committed, require_picture_name
    from medcurate.explore.preview import sheet

    require_picture_name("--out", out)
    picture = sheet(dataset, where=where, count=count, columns=columns, seed=seed)
    with committed(out) as stream:
        stream.write(picture)
    typer.echo(f"written: {out}", err=True)


def _format_of(out: Path | None) -> Format:
    """What the ending of ``out`` says. Raises ConfigError for one that says nothing, before anything is computed."""
    suffix = out.suffix.lower().lstrip(".") if out else ""
    files = (Format.csv, Format.json, Format.parquet)
    if suffix in files:
        return Format(suffix)
    if suffix:
        known = ", ".join(f".{name}" for name in files)
        raise ConfigError(
            f"--out {out}: .{suffix} is no format of rows; end the name in {known}, or give --format"
        )
    return Format.table if out is None and sys.stdout.isatty() else Format.csv
