"""The selection cut into parts, and what of them is finished: files that a killed evaluation leaves to the next one."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from medcurate.commit import committed
from medcurate.errors import ConfigError
from medcurate.train.stream.index import Index

FOLDER = ".parts"
"""Of an evaluation's output: the lock of who works there and, until it is finished, a folder for each pass."""

_PART_MASKS = 128


@dataclass(frozen=True, slots=True)
class Part:
    """Samples [start, stop) of the index, whose masks are ``rows`` ones from ``first_row`` on."""

    number: int
    start: int
    stop: int
    first_row: int
    rows: int


def cut(index: Index) -> list[Part]:
    """Parts of about as many masks, in order: the same however many processes share them.

    What the model sees together never crosses a part, so neither does anything that rounding depends on.
    """
    found: list[Part] = []
    start = first_row = rows = 0
    for number in range(len(index)):
        rows += len(index.annotations(number))
        if rows >= _PART_MASKS or number == len(index) - 1:
            found.append(Part(len(found), start, number + 1, first_row, rows))
            start, first_row, rows = number + 1, first_row + rows, 0
    return found


def clear(folder: Path) -> None:
    """Remove all passes from ``folder``; the lock, which the caller holds, stays."""
    for one in folder.iterdir():
        if one.is_dir():
            shutil.rmtree(one)


@dataclass(frozen=True, slots=True)
class Shelf:
    """Tables by number in ``folder``, each there as a whole or not at all."""

    folder: Path
    name: str

    def has(self, number: int) -> bool:
        """Whether table ``number`` is finished."""
        return self._path(number).is_file()

    def put(self, number: int, table: pa.Table) -> None:
        """Commit table ``number``. Raises OutputError."""
        with committed(self._path(number)) as stream:
            pq.write_table(table, stream, compression="zstd")

    def get(self, number: int) -> pa.Table:
        """Table ``number``. Raises ConfigError where the disk has damaged it."""
        try:
            return pq.read_table(self._path(number))
        except (pa.ArrowException, OSError) as error:
            raise ConfigError(
                f"{self._path(number)}: cannot be read ({error}); remove {self.folder} and run the same command again."
            ) from error

    def _path(self, number: int) -> Path:
        return self.folder / f"{self.name}-{number:06d}.parquet"
