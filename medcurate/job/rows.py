"""Columns of manifest and ledger rows, made from arrays: nothing here runs once per mask in Python."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from medcurate.format.columns import MANIFEST, REJECTS
from medcurate.format.tables import table
from medcurate.types import Reject

if TYPE_CHECKING:
    import pyarrow as pa

_LEDGER_MEASURES = ("area_px", "area_mm2", "area_fraction", "x0", "y0", "x1", "y1", "measure", "bound")
_LEDGER_INTEGERS = {"area_px", "x0", "y0", "x1", "y1"}


def manifest_table(
    constants: Mapping[str, Any],
    samples: Mapping[str, Sequence[Any]],
    masks: Mapping[str, Any],
    sample_of: npt.NDArray[np.int64],
) -> pa.Table:
    """Rows of masks: ``constants`` hold for all, ``samples`` for a sample (spread by ``sample_of``), ``masks`` for one.

    ``sample_of`` int (N,): the index of each mask's sample. Every manifest column must be in exactly one group.
    """
    owners = sample_of.tolist()
    columns: dict[str, Any] = {name: [value] * len(owners) for name, value in constants.items()}
    for name, values in samples.items():
        columns[name] = [values[owner] for owner in owners]
    columns.update(masks)
    return table(MANIFEST, columns)


def rejects_table(rows: Iterable[tuple[str, str, str, Reject]]) -> pa.Table:
    """Ledger rows of (source, case, group, reject)."""
    records = [_ledger_row(source, case, group, reject) for source, case, group, reject in rows]
    return table(REJECTS, {column.name: [record[column.name] for record in records] for column in REJECTS})


def _ledger_row(source: str, case: str, group: str, reject: Reject) -> dict[str, Any]:
    row: dict[str, Any] = {
        "source": source,
        "case": case,
        "group": group,
        "channel": reject.channel,
        "stage": reject.stage,
        "reason": str(reject.reason),
        "detail": reject.detail,
        "axis": reject.axis,
        "slice_index": reject.slice_index,
        "label": reject.label,
        "instance": reject.instance,
    }
    for name in _LEDGER_MEASURES:
        value = reject.measures.get(name)
        row[name] = int(value) if value is not None and name in _LEDGER_INTEGERS else value
    return row
