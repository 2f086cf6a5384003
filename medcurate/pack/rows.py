"""Manifest rows of a packed shard, gathered sample by sample and changed column by column."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from medcurate.errors import Reason
from medcurate.format.columns import MANIFEST
from medcurate.format.tables import first_in_sample
from medcurate.pack.edit import Edited
from medcurate.pack.inputs import Stored
from medcurate.types import Reject

LedgerRow = tuple[str, str, str, Reject]  # source, case, group, what was refused

_LEDGER_MEASURES = ("area_px", "area_mm2", "area_fraction", "x0", "y0", "x1", "y1")


@dataclass(frozen=True, slots=True)
class SampleRows:
    """A sample of the plan: rows [first, first + count) and where its bytes lie."""

    first: int
    count: int
    stored: Stored


def samples_of(rows: pa.Table) -> list[SampleRows]:
    """The samples of a planned shard, in order; rows of a sample are neighbours."""
    ends = pc.run_end_encode(rows["key"].combine_chunks()).run_ends.to_numpy()
    starts = np.concatenate([[0], ends[:-1]])
    first = rows.select(Stored._fields).take(starts)
    columns = (first[name].to_pylist() for name in Stored._fields)
    return [
        SampleRows(start, end - start, Stored(*facts))
        for start, end, facts in zip(starts.tolist(), ends.tolist(), zip(*columns, strict=True), strict=True)
    ]


@dataclass(slots=True)
class PackedRows:
    """What became of the ``planned`` rows of one shard."""

    planned: pa.Table
    size_px: int
    kept: list[int] = field(default_factory=list)  # of the planned rows
    measures: list[dict[str, int | bool] | None] = field(default_factory=list)  # of each kept row
    masks: list[int] = field(default_factory=list)  # of each written sample, as the three below
    offsets: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    digests: list[int] = field(default_factory=list)
    lost: list[LedgerRow] = field(default_factory=list)

    def add(self, sample: SampleRows, edited: Edited) -> None:
        """Note which masks ``edited`` keeps, and the lost ones for the ledger."""
        self.kept.extend(sample.first + position for position in edited.kept)
        self.measures.extend(edited.measures or [None] * len(edited.kept))
        if len(edited.kept) < sample.count:
            lost = sorted(set(range(sample.count)) - set(edited.kept))
            self.lost += [self._lost_mask(sample.first + position) for position in lost]
        if edited.blob is None:
            self.lost.append(self._lost_slice(sample.first))

    def place(self, masks: int, offset: int, size: int, digest: int) -> None:
        """Note where a sample with ``masks`` masks was written."""
        for values, value in (
            (self.masks, masks),
            (self.offsets, offset),
            (self.sizes, size),
            (self.digests, digest),
        ):
            values.append(value)

    def table(self, shard: str) -> pa.Table:
        """The rows of the shard named ``shard``, with the manifest's columns."""
        changed = len(self.kept) < self.planned.num_rows
        rows = self.planned.take(pa.array(self.kept, pa.int64())) if changed else self.planned
        counts = np.array(self.masks, np.int64)
        owner = np.repeat(np.arange(len(counts)), counts)
        values: dict[str, Any] = {name: rows[name] for name in rows.column_names}
        values |= {
            "shard": pa.array([shard]).take(pa.array(np.zeros(len(self.kept), np.int64))),
            "offset": np.repeat(np.array(self.offsets, np.int64), counts),
            "size": np.repeat(np.array(self.sizes, np.int64), counts),
            "digest": np.repeat(np.array(self.digests, np.uint64), counts),
            "annotation": _numbered(counts),
            "organ_first": first_in_sample(owner, rows["organ"].to_pylist()),
        }
        if any(self.measures):
            values |= self._remeasured(rows)
        return pa.table({column.name: values[column.name] for column in MANIFEST})

    def _remeasured(self, rows: pa.Table) -> dict[str, Any]:
        resized = np.array([measure is not None for measure in self.measures])
        values = {
            name: np.array([
                old if measure is None else measure[name]
                for old, measure in zip(rows[name].to_pylist(), self.measures, strict=True)
            ])
            for name in ("area_px", "x0", "y0", "x1", "y1", "touches_border")
        }
        height, width = rows["height"].to_numpy(), rows["width"].to_numpy()
        row_mm, col_mm = _floats(rows, "row_spacing_mm"), _floats(rows, "col_spacing_mm")
        new_row_mm, new_col_mm = row_mm * height / self.size_px, col_mm * width / self.size_px
        changed = {
            "height": self.size_px,
            "width": self.size_px,
            "row_spacing_mm": new_row_mm,
            "col_spacing_mm": new_col_mm,
            "area_mm2": values["area_px"] * (new_row_mm * new_col_mm),
            "area_fraction": values["area_px"] / self.size_px**2,
        }
        old = {"height": height, "width": width, "row_spacing_mm": row_mm, "col_spacing_mm": col_mm}
        old |= {name: _floats(rows, name) for name in ("area_mm2", "area_fraction")}
        for name, new in changed.items():
            column = np.where(resized, new, old[name])
            values[name] = pa.array(column, from_pandas=True) if column.dtype.kind == "f" else column
        return values

    def _lost_mask(self, row: int) -> LedgerRow:
        facts = self.planned.slice(row, 1).to_pylist()[0]
        measures = {name: facts[name] for name in _LEDGER_MEASURES if facts[name] is not None}
        detail = f"covers no pixel of the {self.size_px} x {self.size_px} grid by half"
        return self._ledger_row(
            facts,
            reason=Reason.LOST_BY_RESIZE,
            detail=detail,
            label=facts["label"],
            instance=facts["instance"],
            measures=measures | {"measure": 0, "bound": 1},
        )

    def _lost_slice(self, row: int) -> LedgerRow:
        return self._ledger_row(self.planned.slice(row, 1).to_pylist()[0], reason=Reason.NO_MASK_LEFT)

    @staticmethod
    def _ledger_row(facts: dict[str, Any], **about: Any) -> LedgerRow:
        where = {name: facts[name] for name in ("channel", "axis", "slice_index")}
        return facts["source"], facts["case"], facts["group"], Reject(stage="pack", **where, **about)


def _numbered(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """0, 1, … inside each group of ``counts``."""
    starts = np.cumsum(counts) - counts
    return np.arange(counts.sum()) - np.repeat(starts, counts)


def _floats(rows: pa.Table, name: str) -> npt.NDArray[np.float64]:
    """A nullable column with NaN for null."""
    values: npt.NDArray[np.float64] = rows[name].cast(pa.float64()).to_numpy()
    return values
