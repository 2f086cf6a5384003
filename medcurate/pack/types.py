"""What pack is given and what it gives back: plain data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medcurate.errors import OutputError
from medcurate.format.record import FileRecord

Progress = Callable[[int, int], None]  # samples packed so far, samples planned


@dataclass(frozen=True, slots=True)
class PackInput:
    """Samples in tars, and the tables that describe them.

    ``manifests``, ``rejects``: Parquet files with the contract's columns; the ``shard`` column is relative
    to ``root``. ``assignments``: Parquet with the columns own, group, split: rows of the group ``own`` get this
    group and split (a build's parts carry an empty split). Groups that it does not name keep theirs; refused cases
    of the others are called as their patient is.
    """

    root: Path
    manifests: tuple[Path, ...]
    rejects: tuple[Path, ...] = ()
    assignments: Path | None = None


@dataclass(frozen=True, slots=True)
class PackRules:
    """What decides the bytes.

    ``where``: SQL condition on manifest columns, "" keeps every mask; ``size_px``: side of the square that
    images and masks are resized to, 0 keeps them; ``seed`` of the shuffle; ``shard_bytes``: a shard is
    closed before it would pass this size.
    """

    where: str = ""
    size_px: int = 0
    seed: int = 0
    shard_bytes: int = 256 << 20

    def as_dict(self) -> dict[str, Any]:
        """For claims and digests."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """One shard: rows [first_row, first_row + rows) of the plan's table."""

    name: str  # "train-000000"
    first_row: int
    rows: int
    samples: int
    estimated_bytes: int


@dataclass(frozen=True, slots=True)
class PackResult:
    """What stands in the output.

    ``files``: size and SHA-256 by path relative to the output. ``written``: cases, slices and masks of the
    manifest, ``rejected`` those of the ledger, ``rejects_added`` those that pack itself refused. ``made``:
    files that this run wrote; the others stood already.
    """

    files: Mapping[str, FileRecord]
    written: Mapping[str, int]
    rejected: Mapping[str, int]
    rejects_added: Mapping[str, int]
    made: tuple[str, ...]


class DamagedInput(OutputError):
    """A sample of the input is damaged: ``path`` is the input tar, ``key`` the first bad sample in it."""

    def __init__(self, path: Path, key: str, detail: str) -> None:
        super().__init__(path, key, detail)
        self.path = path
        self.key = key
        self.detail = detail

    def __str__(self) -> str:
        return (
            f"{self.path}: sample {self.key} is damaged: {self.detail}. Nothing of it was packed. "
            "Mend the input (`medcurate verify` names every damaged file), then run the same command again."
        )
