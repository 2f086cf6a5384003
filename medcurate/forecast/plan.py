"""``medcurate plan``: all sources of a recipe, what stands in the way, and whether disk and inodes suffice."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from medcurate.build.fetch import neighbours
from medcurate.choice import needs_acceptance
from medcurate.config.source import Source
from medcurate.download.throughput import Throughput, measured
from medcurate.download.twins import Twins
from medcurate.errors import ConfigError
from medcurate.forecast import rates
from medcurate.forecast.inputs import Inputs, Others, inputs_of
from medcurate.forecast.outputs import Outputs, outputs_of, written_bytes, written_files
from medcurate.forecast.own import Own, own_files
from medcurate.library import Resolved
from medcurate.lineage import Overlap


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceForecast:
    """One row of the plan. ``accept``: whether a build needs ``--accept-licence`` for it; ``own``: its files, where it
    declares none."""

    source: Source
    inputs: Inputs
    outputs: Outputs
    accept: bool
    own: Own | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """One file system that the build writes to: what it needs there, at least, and what is free."""

    path: Path
    needed_bytes: int
    free_bytes: int
    needed_inodes: int
    free_inodes: int | None  # None where the file system does not count them

    @property
    def short(self) -> str:
        """What is missing, in words; "" where it suffices."""
        if self.needed_bytes > self.free_bytes:
            return f"about {self.needed_bytes:,} bytes are needed and {self.free_bytes:,} are free"
        if self.free_inodes is not None and self.needed_inodes > self.free_inodes:
            return f"about {self.needed_inodes:,} inodes are needed and {self.free_inodes:,} are free"
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Everything that ``plan`` tells."""

    resolved: Resolved
    sources: tuple[SourceForecast, ...]
    disks: tuple[Disk, ...]
    workers: int
    throughput: Throughput | None  # of earlier downloads into the same folder

    @property
    def download_bytes_per_second(self) -> float:
        """As measured, else as assumed: ``rates.DOWNLOAD_BYTES_PER_SECOND``."""
        return self.throughput.bytes_per_second if self.throughput else rates.DOWNLOAD_BYTES_PER_SECOND

    @property
    def download_seconds(self) -> float:
        """For files of known size."""
        return sum(entry.inputs.fetch_bytes for entry in self.sources) / self.download_bytes_per_second

    @property
    def build_seconds(self) -> float:
        """By measured rates, if ``workers`` share the work evenly; for sources of known case count."""
        return sum(entry.outputs.seconds or 0.0 for entry in self.sources) / self.workers

    def check(self) -> None:
        """Raises ConfigError where a disk is short."""
        problems = [f"{disk.path}: {disk.short}" for disk in self.disks if disk.short]
        if problems:
            raise ConfigError(
                "\n".join(problems) + "\nFree space there, give folders on other disks (--data, --out), or "
                "take sources out of the recipe."
            )


def forecast(resolved: Resolved, data: Path, out: Path, workers: int) -> Forecast:
    """Look at names and sizes only (and at DICOM headers of a lab's own collection).

    Raises ConfigError where a record of downloads is damaged.
    """
    others = Others(Twins((source, data / source.id) for source in neighbours(resolved.sources, data)))
    rows = tuple(_row(source, data, resolved, others) for source in resolved.sources)
    disks = tuple(_disks(_needs(rows, resolved, data, out)))
    return Forecast(resolved=resolved, sources=rows, disks=disks, workers=workers, throughput=measured(data))


def _row(source: Source, data: Path, resolved: Resolved, others: Others) -> SourceForecast:
    folder = data / source.id
    inputs = inputs_of(source, folder, others)
    others.add(source, folder, inputs)
    own = own_files(source, data, resolved.homes[source.id])
    cases = own.cases if own and own.cases is not None else source.cases
    return SourceForecast(
        source=source,
        inputs=inputs,
        outputs=outputs_of(source, resolved.recipe, cases),
        accept=needs_acceptance(source),
        own=own,
    )


def beaten_by(overlaps: Sequence[Overlap], source: str) -> tuple[str, ...]:
    """The sources that stand for ``source``, by the rules' winners."""
    return tuple(
        winner
        for overlap in overlaps
        if source in overlap.losers
        for winner in overlap.sources
        if winner not in overlap.losers
    )


def _needs(
    rows: Sequence[SourceForecast], resolved: Resolved, data: Path, out: Path
) -> Iterator[tuple[Path, int, int]]:
    """(folder, bytes, inodes) that are still to be written."""
    inputs = [row.inputs for row in rows]
    outputs = [row.outputs for row in rows]
    packed = sum(entry.unpack_bytes for entry in inputs)
    travelling = sum(entry.fetch_bytes + entry.by_hand_bytes for entry in inputs)
    unpacked_files = sum(
        (row.outputs.cases or 0) * (max(1, len(row.source.channels)) + 1)
        for row in rows
        if row.inputs.unpack_bytes
    )
    absent = sum(len(entry.fetch) + len(entry.by_hand) for entry in inputs)
    yield data, round(travelling + packed * rates.UNPACKED_PER_ARCHIVE), absent + unpacked_files
    yield out, written_bytes(outputs), written_files(outputs, resolved.recipe)


def _disks(needs: Iterator[tuple[Path, int, int]]) -> Iterator[Disk]:
    """Needs by file system; folders that do not exist yet lie where their nearest parent does."""
    by_device: dict[int, list[tuple[Path, int, int]]] = {}
    for folder, size_bytes, inodes in needs:
        there = _existing(folder)
        by_device.setdefault(there.stat().st_dev, []).append((there, size_bytes, inodes))
    for entries in by_device.values():
        path = entries[0][0]
        facts = os.statvfs(path)
        yield Disk(
            path=path,
            needed_bytes=sum(size_bytes for _, size_bytes, _ in entries),
            free_bytes=facts.f_bavail * facts.f_frsize,
            needed_inodes=sum(inodes for *_, inodes in entries),
            free_inodes=facts.f_favail if facts.f_files else None,
        )


def _existing(folder: Path) -> Path:
    folder = folder.resolve()
    while not folder.exists():
        folder = folder.parent
    return folder
