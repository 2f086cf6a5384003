"""A forecast as tables for people and as JSON for programs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from medcurate.forecast.against import Against
from medcurate.forecast.plan import Forecast, SourceForecast, beaten_by
from medcurate.lineage import Overlap
from medcurate.units import counted

if TYPE_CHECKING:
    from rich.table import Table


def table(found: Forecast) -> Table:
    """One row a source. copies: whether they may be passed on."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    made = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("source", "images", "licence", "copies"):
        made.add_column(name, overflow="fold", no_wrap=name != "licence")
    for name in ("fetch", "digests", "by hand", "there", "cases", "images out", "masks", "out"):
        made.add_column(name, justify="right", no_wrap=True)
    for row in found.sources:
        made.add_row(*_row(row))
    return made


def _row(row: SourceForecast) -> tuple[str, ...]:
    source, inputs, outputs = row.source, row.inputs, row.outputs
    return (
        source.id,
        f"{source.modality} {source.dimensions}D",
        source.licence.id,
        source.licence.redistribute.replace("unknown", "?"),
        _files(len(inputs.fetch), inputs.fetch_bytes),
        f"{inputs.digests} of {inputs.travelling}" if inputs.travelling else "-",
        _files(len(inputs.by_hand), inputs.by_hand_bytes),
        _there(row),
        _number(outputs.cases),
        _about(outputs.images),
        _about(outputs.masks),
        "?" if outputs.size_bytes is None else size_text(outputs.size_bytes),
    )


def _there(row: SourceForecast) -> str:
    if row.own:
        return _files(row.own.files, row.own.size_bytes)
    return f"{row.inputs.there} of {row.inputs.travelling}" if row.inputs.travelling else "-"


def _files(count: int, size_bytes: int) -> str:
    return f"{count}: {size_text(size_bytes) if size_bytes else '?'}" if count else "-"


def _number(value: int | None) -> str:
    return "?" if value is None else f"{value:,}"


def _about(value: int | None) -> str:
    return "?" if value is None else f"~{value:,}"


def size_text(size_bytes: float) -> str:
    """Decimal units, as disks are sold."""
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:,.0f} {unit}" if unit == "B" else f"{size_bytes:,.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:,.1f} TB"


def time_text(seconds: float) -> str:
    """In the unit that fits."""
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:,.0f} s"


def lines(found: Forecast, against: Against | None = None) -> Iterator[str]:
    """What stands under the table; ``against``: the recipe that it is compared with."""
    yield from _choices(found)
    yield from against.lines() if against else ()
    yield from _shared(found)
    yield from _hands(found)
    rows = found.sources
    unknown = sum(row.inputs.unknown_sizes for row in rows)
    fetch = sum(row.inputs.fetch_bytes for row in rows)
    known = f", {size_text(fetch)}, {time_text(found.download_seconds)} at {_rate(found)}" if fetch else ""
    yield (
        f"to fetch: {counted(sum(len(row.inputs.fetch) for row in rows), 'file')}{known}"
        + (f"; not counting {counted(unknown, 'file')} of unknown size" if unknown else "")
    )
    foretold = [row for row in rows if row.outputs.cases is not None]
    rest = len(rows) - len(foretold)
    images = sum(row.outputs.images or 0 for row in foretold)
    masks = sum(row.outputs.masks or 0 for row in foretold)
    yield (
        f"to write: about {counted(images, 'image')} and {counted(masks, 'mask')}"
        + (f", without {counted(rest, 'source')} of unknown case count" if rest else "")
        + f"; {time_text(found.build_seconds)} on {counted(found.workers, 'core')} by measured rates (docs/scale.md)"
    )
    for disk in found.disks:
        inodes = (
            "" if disk.free_inodes is None else f", {disk.needed_inodes:,} of {disk.free_inodes:,} inodes"
        )
        yield (
            f"disk {disk.path}: at least {size_text(disk.needed_bytes)} of {size_text(disk.free_bytes)} free"
            + inodes
        )


def _rate(found: Forecast) -> str:
    if found.throughput is None:
        return "100 Mbit/s (assumed: nothing large was downloaded into this folder before)"
    count = found.throughput.downloads
    downloads = "the last download" if count == 1 else f"the last {count} downloads"
    return f"{size_text(found.download_bytes_per_second)}/s (measured, {downloads} into this folder)"


def _choices(found: Forecast) -> Iterator[str]:
    for overlap in found.resolved.overlaps:
        yield f"overlap: {overlap.text}"
    for entry in found.resolved.left_out:
        yield f"left out: {entry.source}: {entry.why}"


def _shared(found: Forecast) -> Iterator[str]:
    for row in found.sources:
        by_owner: dict[str, list[str]] = {}
        for path, owner in row.inputs.shared:
            by_owner.setdefault(owner, []).append(path)
        for owner, paths in by_owner.items():
            files = paths[0] if len(paths) == 1 else f"{len(paths)} files"
            yield f"shared: {row.source.id}: {files} of {owner}, counted there"


def _hands(found: Forecast) -> Iterator[str]:
    accept = [row.source.id for row in found.sources if row.accept]
    if accept:
        yield f"terms to accept with --accept-licence: {', '.join(accept)}"
    for row in found.sources:
        if row.own and row.own.problem:
            yield f"not there: {row.own.problem}"
        if row.inputs.by_hand:
            yield (
                f"by hand: {row.source.id}: {counted(len(row.inputs.by_hand), 'file')} "
                f"({row.source.access}); what to do: medcurate download --source {row.source.id}"
            )


def facts(found: Forecast, against: Against | None = None) -> dict[str, Any]:
    """Plain JSON values; ``against``: the recipe that it is compared with."""
    return {
        "recipe": found.resolved.recipe.name,
        "sources": [_source_facts(found, row) for row in found.sources],
        "left_out": [asdict(entry) for entry in found.resolved.left_out],
        "overlaps": [_overlap_facts(overlap) for overlap in found.resolved.overlaps],
        "against": against_facts(against),
        "disks": [asdict(disk) | {"path": str(disk.path), "short": disk.short} for disk in found.disks],
        "download_seconds": found.download_seconds,
        "download_bytes_per_second": found.download_bytes_per_second,
        "download_rate_measured": found.throughput is not None,
        "build_seconds": found.build_seconds,
        "workers": found.workers,
    }


def against_facts(against: Against | None) -> dict[str, Any] | None:
    """What the recipe shares with another one; None where it is compared with none."""
    if against is None:
        return None
    return {
        "recipe": against.recipe,
        "in_both": against.in_both,
        "overlaps": [_overlap_facts(overlap) for overlap in against.overlaps],
    }


def _overlap_facts(overlap: Overlap) -> dict[str, Any]:
    return {
        "relation": overlap.rule.relation,
        "sources": overlap.sources,
        "losers": overlap.losers,
        "joined_by_ids": overlap.by_ids,
        "evidence": overlap.rule.evidence,
    }


def _source_facts(found: Forecast, row: SourceForecast) -> dict[str, Any]:
    source = row.source
    return {
        "id": source.id,
        "modality": source.modality,
        "dimensions": source.dimensions,
        "access": source.access,
        "licence": source.licence.id,
        "commercial": source.licence.commercial,
        "redistribute": source.licence.redistribute,
        "accept_licence": row.accept,
        "beaten_by": beaten_by(found.resolved.overlaps, source.id),
        **asdict(row.inputs),
        "own": asdict(row.own) if row.own else None,
        **{f"expected_{name}": value for name, value in asdict(row.outputs).items()},
    }
