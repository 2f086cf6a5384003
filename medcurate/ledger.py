"""The ledger: what was refused, as rows of ``rejects.parquet``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from medcurate.format.columns import REJECTS
from medcurate.format.tables import compact, table
from medcurate.types import Reject

if TYPE_CHECKING:
    import pyarrow as pa

_LEVELS = {"slice": "slices", "mask": "masks"}  # by stage; every other stage of a build refuses cases

# SQL: ``level`` of any ledger's row; a pack refuses slices and masks, of which only masks have an instance.
LEVEL = f"""CASE {" ".join(f"WHEN stage = '{stage}' THEN '{level}'" for stage, level in _LEVELS.items())}
            WHEN stage = 'pack' AND instance IS NULL THEN 'slices' WHEN stage = 'pack' THEN 'masks' ELSE 'cases' END"""

_LEDGER_MEASURES = ("area_px", "area_mm2", "area_fraction", "x0", "y0", "x1", "y1", "measure", "bound")
_LEDGER_INTEGERS = {"area_px", "x0", "y0", "x1", "y1"}
_ABSENT = {column.name: "" if column.type in {"dictionary", "string"} else None for column in REJECTS}


def level(stage: str) -> str:
    """As what a row of a build's ledger counts in the counting law."""
    return _LEVELS.get(stage, "cases")


def rejects_table(rows: Iterable[tuple[str, str, str, Reject]]) -> pa.Table:
    """Ledger rows of (source, case, group, reject)."""
    records = [_ledger_row(source, case, group, reject) for source, case, group, reject in rows]
    return table(REJECTS, {column.name: [record[column.name] for record in records] for column in REJECTS})


def columns_table(number: int, columns: Mapping[str, Any]) -> pa.Table:
    """``number`` ledger rows by columns, each an array or the one value of all rows; in little memory.

    Columns that are not given are empty or null, as those of a ``Reject`` are.
    """
    return compact(REJECTS, number, {**_ABSENT, **columns})


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
