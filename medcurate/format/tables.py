"""Tables of the contract's columns, written so that equal rows are equal bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from medcurate.commit import committed, output_error
from medcurate.format.columns import Column, schema

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

ROW_GROUP_ROWS = 131_072


def table(columns: tuple[Column, ...], values: Mapping[str, Sequence[Any]]) -> pa.Table:
    """Columns in contract order; every column must be given. Raises KeyError or pyarrow.ArrowInvalid."""
    import pyarrow as pa

    target = schema(columns)
    arrays = []
    for entry in target:
        given = values[entry.name]
        if pa.types.is_dictionary(entry.type):
            arrays.append(pa.array(given, pa.string()).dictionary_encode())
        else:
            arrays.append(pa.array(given, entry.type))
    return pa.table(arrays, schema=target)


def first_in_sample(sample_of: npt.NDArray[np.int64], values: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Which masks are the first of their sample with their value; ``sample_of`` (N,): each mask's sample."""
    first = np.zeros(len(sample_of), np.bool_)
    if len(first):
        _, codes = np.unique(np.asarray(values), return_inverse=True)
        _, places = np.unique(sample_of * (int(codes.max()) + 1) + codes, return_index=True)
        first[places] = True
    return first


def compact(columns: tuple[Column, ...], number: int, given: Mapping[str, Any]) -> pa.Table:
    """``number`` rows in little memory; their types become those of ``columns`` when they are written.

    ``given``: every column, as an array or as the one value of all rows (None where that is null).
    """
    import pyarrow as pa

    once = pa.array(np.zeros(number, np.int32))  # every row points at the one value
    arrays = {}
    for column in columns:
        value = given[column.name]
        if isinstance(value, np.ndarray):
            value = pa.array(value)
        elif not isinstance(value, pa.Array):
            value = of_codes(once, [value], value_type(columns, column.name))
        arrays[column.name] = value
    return pa.table(arrays)


def of_codes(codes: Any, values: Sequence[Any], type_: pa.DataType | None = None) -> pa.DictionaryArray:
    """A column by indices into ``values``, which may repeat. ``codes``: integers, numpy or Arrow."""
    import pyarrow as pa

    place = {value: number for number, value in enumerate(dict.fromkeys(values))}
    if len(place) < len(values):
        codes = np.array([place[value] for value in values], np.int32)[codes]
    return pa.DictionaryArray.from_arrays(codes, pa.array(list(place), type_ or pa.string()))


def value_type(columns: tuple[Column, ...], name: str) -> pa.DataType:
    """The type of a column's values, "dictionary" or not."""
    import pyarrow as pa

    type_ = schema(columns).field(name).type
    return type_.value_type if pa.types.is_dictionary(type_) else type_


class TableWriter:
    """Rows as they come to one Parquet file: less than a row group and one added table are in memory."""

    def __init__(self, path: Path, parquet: pq.ParquetWriter, target: pa.Schema, row_group_rows: int) -> None:
        self._path = path
        self._parquet = parquet
        self._target = target
        self._row_group_rows = row_group_rows
        self._pending: list[pa.Table] = []
        self._pending_rows = 0
        self.rows = 0

    def add(self, piece: pa.Table) -> None:
        """Append rows. Raises OutputError; a row group that could not be written spoils the file."""
        import pyarrow as pa

        self._pending.append(piece.cast(self._target))
        self._pending_rows += piece.num_rows
        self.rows += piece.num_rows
        if self._pending_rows >= self._row_group_rows:
            joined = pa.concat_tables(self._pending).unify_dictionaries()
            whole = self._pending_rows - self._pending_rows % self._row_group_rows
            self._write(joined.slice(0, whole))
            self._pending, self._pending_rows = [joined.slice(whole)], self._pending_rows - whole

    def detach(self) -> None:
        """Copy the rows that wait, so that they keep no larger table in memory that they were cut from."""
        import pyarrow as pa

        if self._pending:
            waiting = pa.concat_tables(self._pending).unify_dictionaries()
            self._pending = [waiting.take(pa.array(np.arange(waiting.num_rows)))]

    def finish(self) -> None:
        """Write the last row group; an empty one where there are no rows at all."""
        import pyarrow as pa

        if self._pending_rows or not self.rows:
            pending = self._pending or [self._target.empty_table()]
            self._write(pa.concat_tables(pending).unify_dictionaries())

    def _write(self, rows: pa.Table) -> None:
        try:
            self._parquet.write_table(rows, row_group_size=self._row_group_rows)
        except OSError as error:
            raise output_error(error, self._path) from error


@contextmanager
def table_writer(
    path: Path, columns: tuple[Column, ...], row_group_rows: int = ROW_GROUP_ROWS
) -> Iterator[TableWriter]:
    """A writer whose Parquet file is committed as ``path`` if the body ends without an exception."""
    import pyarrow.parquet as pq

    target = schema(columns)
    with committed(path) as stream, pq.ParquetWriter(stream, target, compression="zstd") as parquet:
        writer = TableWriter(path, parquet, target, row_group_rows)
        yield writer
        writer.finish()


def write_table(path: Path, columns: tuple[Column, ...], tables: Iterable[pa.Table]) -> int:
    """Commit ``tables`` as one Parquet file in row groups of ROW_GROUP_ROWS; returns the number of rows.

    Memory is bounded by one row group and the largest table.
    """
    with table_writer(path, columns) as writer:
        for piece in tables:
            writer.add(piece)
    return writer.rows
