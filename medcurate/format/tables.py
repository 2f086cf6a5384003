"""Tables of the contract's columns, written so that equal rows are equal bytes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from medcurate.commit import committed
from medcurate.format.columns import Column, schema

if TYPE_CHECKING:
    import pyarrow as pa

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


def write_table(path: Path, columns: tuple[Column, ...], tables: Iterable[pa.Table]) -> int:
    """Commit ``tables`` as one Parquet file in row groups of ROW_GROUP_ROWS; returns the number of rows.

    Memory is bounded by one row group and the largest table.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    target = schema(columns)
    rows, pending, pending_rows = 0, [], 0
    with committed(path) as stream, pq.ParquetWriter(stream, target, compression="zstd") as writer:
        for piece in tables:
            pending.append(piece.cast(target))
            pending_rows += piece.num_rows
            rows += piece.num_rows
            if pending_rows >= ROW_GROUP_ROWS:
                joined = pa.concat_tables(pending).unify_dictionaries()
                whole = pending_rows - pending_rows % ROW_GROUP_ROWS
                writer.write_table(joined.slice(0, whole), row_group_size=ROW_GROUP_ROWS)
                pending, pending_rows = [joined.slice(whole)], pending_rows - whole
        if pending_rows or not rows:
            writer.write_table(pa.concat_tables(pending or [target.empty_table()]).unify_dictionaries())
    return rows
