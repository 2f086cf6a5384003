"""Ledger rows of the masks and planes that one image does not keep along one axis."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from medcurate.errors import Reason
from medcurate.format.tables import of_codes
from medcurate.job.labels import AxisMasks
from medcurate.ledger import columns_table

if TYPE_CHECKING:
    import pyarrow as pa

_MASKS = 1 << 15  # looked at together: more than that of noise is never a table


def refused_rows(found: AxisMasks, facts: Mapping[str, str]) -> Iterator[pa.Table]:
    """Rows of bounded number: the refused masks in the table's order, then the planes that keep no mask.

    ``facts``: the image's source, case, group and channel.
    """
    facts = {**facts, "axis": found.axis or ""}
    kept = found.kept
    for start in range(0, len(found.table), _MASKS):
        rows = start + np.flatnonzero(~kept[start : start + _MASKS])
        if len(rows):
            yield _masks(found, rows, facts)
    if len(found.bare):
        yield _planes(found, facts)


def _masks(found: AxisMasks, rows: np.ndarray[Any, np.dtype[np.int64]], facts: Mapping[str, str]) -> pa.Table:
    table = found.table
    area_px = table.area_px[rows]
    label = table.label.take(rows)
    reason, measure, bound = found.verdict.reasons(table, rows)
    return columns_table(
        len(rows),
        {
            **facts,
            "stage": "mask",
            "reason": of_codes(reason.code, reason.names),
            "slice_index": table.plane[rows],
            "label": of_codes(label.code, label.names),
            "area_px": area_px,
            "area_mm2": found.area_mm2(area_px),
            "area_fraction": area_px / (found.height * found.width),
            "measure": measure,
            "bound": bound,
            **{name: getattr(table, name)[rows] for name in ("instance", "x0", "y0", "x1", "y1")},
        },
    )


def _planes(found: AxisMasks, facts: Mapping[str, str]) -> pa.Table:
    measure, bound = found.aspect or (None, None)
    reason = Reason.ASPECT if found.aspect else Reason.NO_MASK_LEFT
    measures = {"measure": measure, "bound": bound}
    return columns_table(
        len(found.bare),
        {**facts, "stage": "slice", "reason": reason, "slice_index": found.bare, **measures},
    )
