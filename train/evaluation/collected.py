"""What one pass of a model over the selection gave, by prompt and mask."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from medcurate.format import rle
from medcurate.format.columns import Column
from medcurate.format.tables import table
from medcurate.train.evaluation.columns import PREDICTIONS, SCORES
from medcurate.train.evaluation.samples import FACTS
from medcurate.train.evaluation.scoring import Bools, Score

_MEASURED = ("predicted_px", "predicted_iou", "dice", "iou", "nsd", "nsd_px")
_ROWS = 1 << 17  # of a table that is made at once


class Collected:
    """Scores and predicted masks of ``model`` for N masks and every prompt, filled in order by row or by part."""

    def __init__(self, model: str, prompts: Sequence[str], count: int) -> None:
        self.model, self.prompts, self.count = model, tuple(prompts), count
        self._values = {name: np.full((len(prompts), count), np.nan) for name in _MEASURED}
        self._counts: dict[str, list[pa.Array]] = {prompt: [] for prompt in prompts}

    def put(self, prompt: str, row: int, score: Score, predicted_iou: float | None) -> None:
        """Keep the scores of mask ``row``."""
        at = (self.prompts.index(prompt), row)
        for name in _MEASURED:
            value = predicted_iou if name == "predicted_iou" else getattr(score, name)
            self._values[name][at] = np.nan if value is None else value

    def put_masks(self, prompt: str, predicted: Bools) -> None:
        """Keep the next predicted masks, bool (n, H, W), n at least 1."""
        self._counts[prompt].append(pa.array(rle.encode_many(predicted), pa.binary()))

    def values(self, prompt: str, name: str) -> npt.NDArray[np.float64]:
        """float64 (N,): NaN where there is none."""
        found: npt.NDArray[np.float64] = self._values[name][self.prompts.index(prompt)]
        return found

    def to_table(self) -> pa.Table:
        """All of it, one prompt's rows after another's, with NaN where there is no value."""
        values = {name: pa.array(self._values[name].reshape(-1)) for name in _MEASURED}
        chunks = [chunk for prompt in self.prompts for chunk in self._counts[prompt]]
        return pa.table({**values, "counts": pa.chunked_array(chunks, pa.binary())})

    @classmethod
    def of_parts(cls, model: str, prompts: Sequence[str], parts: Iterable[pa.Table], count: int) -> Self:
        """What ``to_table`` gave of consecutive rows, ``count`` in all."""
        whole = cls(model, prompts, count)
        first = 0
        for part in parts:
            rows = len(part) // len(prompts)
            for name, values in whole._values.items():
                values[:, first : first + rows] = part[name].to_numpy().reshape(len(prompts), rows)
            for number, prompt in enumerate(prompts):
                whole._counts[prompt] += part["counts"].slice(number * rows, rows).chunks
            first += rows
        return whole

    def counts(self, prompt: str) -> pa.ChunkedArray:
        """Predicted masks of all N rows as run lengths."""
        return pa.chunked_array(self._counts[prompt], pa.binary())


def score_tables(collected: Collected, facts: pa.Table, more: dict[str, pa.Array]) -> Iterator[pa.Table]:
    """Rows of ``SCORES``. ``facts`` as of ``mask_facts``; ``more``: columns that are equal for all prompts."""
    for prompt in collected.prompts:
        for start in range(0, collected.count, _ROWS):
            part = slice(start, start + _ROWS)
            columns = {name: facts[name][part] for name in FACTS}
            columns |= {name: values[part] for name, values in more.items()}
            columns |= {name: _nullable(collected.values(prompt, name)[part], name) for name in _MEASURED}
            yield _named(SCORES, collected.model, prompt, columns)


def prediction_tables(
    model: str, prompt: str, facts: pa.Table, counts: pa.ChunkedArray
) -> Iterator[pa.Table]:
    """Rows of ``PREDICTIONS``: one a mask."""
    for start in range(0, len(counts), _ROWS):
        part = slice(start, start + _ROWS)
        columns = {name: facts[name][part] for name in ("key", "annotation")}
        yield _named(PREDICTIONS, model, prompt, columns | {"counts": counts[part].cast(pa.string())})


def _named(
    columns: tuple[Column, ...], model: str, prompt: str, values: dict[str, pa.ChunkedArray]
) -> pa.Table:
    rows = len(next(iter(values.values())))
    plain = {
        name: given.combine_chunks() if isinstance(given, pa.ChunkedArray) else given
        for name, given in values.items()
    }
    return table(columns, plain | {"model": [model] * rows, "prompt": [prompt] * rows})


def _nullable(values: npt.NDArray[np.float64], name: str) -> pa.Array:
    found = pa.array(values, pa.float64(), from_pandas=True)  # NaN as null
    return found.cast(pa.uint32()) if name == "predicted_px" else found
