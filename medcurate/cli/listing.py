"""The verb ``sources`` without a name: every packaged source as a row, or as JSON with all its facts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medcurate.cli.options import JsonOption
from medcurate.cli.tables import echo_json, echo_table, line_width

if TYPE_CHECKING:
    from medcurate.config.source import Source

WIDE = 150  # characters a line from which titles are shown
TITLE_LENGTH = 28


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """What of a source has to travel. ``size_bytes``: the sum of the known sizes."""

    count: int
    by_hand: int
    digests: int
    sizes: int
    size_bytes: int


def files_of(source: Source) -> Files:
    """Files that are fetched or placed by hand; generated and packaged ones are none.

    A folder that its host lists counts as one, of unknown size and digest.
    """
    from medcurate.download.instructions import automatic

    files = [file for file in source.files if not file.origin.generator and not file.origin.package]
    sizes = [file.size_bytes for file in files if file.size_bytes is not None]
    return Files(
        count=len(files) + len(source.folders),
        by_hand=sum(not automatic(file.origin) for file in files),
        digests=sum(bool(file.sha256 or file.md5) for file in files),
        sizes=len(sizes),
        size_bytes=sum(sizes),
    )


def list_sources(
    context: typer.Context,
    modality: Annotated[str, typer.Option(help="Only sources with images of this modality: ct, mr, …")] = "",
    access: Annotated[
        str, typer.Option(help="Only sources whose files are had so: open, registration, kaggle, …")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """List the known sources, or show one: sources show ID."""
    if context.invoked_subcommand:
        return
    sources = _chosen(modality, access)
    if as_json:
        echo_json([summary(source) for source in sources])
        return
    wide = line_width() >= WIDE
    head = HEAD if wide else HEAD[:1] + HEAD[2:]
    rows = [row(source) for source in sources]
    echo_table(
        head,
        rows if wide else [cells[:1] + cells[2:] for cells in rows],
        right=RIGHT,
        whole=WHOLE if wide else (),
    )
    typer.echo(f"{len(sources)} sources. Details: medcurate sources show ID")


def _chosen(modality: str, access: str) -> list[Source]:
    """Those that the filters leave. Raises ConfigError for words that stand for nothing."""
    from medcurate.checks import modalities
    from medcurate.library import load_source, ontology, source_ids

    every = [load_source(name) for name in source_ids()]
    _known("--modality", modality, set(ontology().modalities))
    _known("--access", access, {source.access for source in every})
    return [
        source for source in every if modality in {"", *modalities(source)} and access in {"", source.access}
    ]


def _known(option: str, word: str, words: set[str]) -> None:
    from medcurate.errors import ConfigError

    if word and word not in words:
        raise ConfigError(f'{option}: "{word}" is none of {", ".join(sorted(words))}')


HEAD = ("source", "title", "images", "licence", "copies", "access", "size", "digests")
RIGHT = ("size", "digests")
WHOLE = ("licence",)


def row(source: Source) -> tuple[str, ...]:
    """The cells of ``HEAD``. copies: whether they may be passed on; digests: known of how many files."""
    files = files_of(source)
    return (
        source.id,
        _short(source.title),
        f"{source.modality} {source.dimensions}D",
        source.licence.id,
        {"unknown": "?"}.get(source.licence.redistribute, source.licence.redistribute),
        source.access,
        size_cell(files),
        f"{files.digests}/{files.count}" if files.count else "-",
    )


def size_cell(files: Files) -> str:
    """Decimal units; "?" where no size is known, ">" where some are not, "-" where nothing travels."""
    from medcurate.forecast.show import size_text

    if not files.count:
        return "-"
    if not files.sizes:
        return "?"
    return ("" if files.sizes == files.count else ">") + size_text(files.size_bytes)


def _short(title: str) -> str:
    return title if len(title) <= TITLE_LENGTH else title[: TITLE_LENGTH - 1].rstrip(" ,:") + "…"


def summary(source: Source) -> dict[str, Any]:
    """All that the table shows, and what a program may want to choose by."""
    from medcurate.checks import modalities

    return {
        "id": source.id,
        "title": source.title,
        "homepage": source.homepage,
        "modality": source.modality,
        "modalities": sorted(modalities(source)),
        "sequence": source.sequence,
        "dimensions": source.dimensions,
        "synthetic": source.synthetic,
        "access": source.access,
        "cases": source.cases,
        "licence": source.licence.id,
        "commercial": source.licence.commercial,
        "redistribute": source.licence.redistribute,
        "files": asdict(files_of(source)),
        "labels": sorted(set(source.labels.values())),
        "sa_med2d": list(source.sa_med2d),
    }
