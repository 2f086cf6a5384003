"""What a source will become: images, masks, bytes and files, from its case count and measured rates."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from medcurate.config.recipe import Recipe
from medcurate.config.source import Source
from medcurate.forecast import rates

N = TypeVar("N", int, float)

_FILES_PER_PART = 4  # samples, rows, ledger, record
_CASES_PER_PART = 256  # of pictures; volumes fill a part by their bytes
_TABLES = 4  # manifest, ledger, summary, record


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """Estimates, None where nobody knows how many cases there are. ``seconds``: of one core."""

    cases: int | None
    images: int | None
    masks: int | None
    size_bytes: int | None
    seconds: float | None


def outputs_of(source: Source, recipe: Recipe, cases: int | None) -> Outputs:
    """What a build of ``cases`` of ``source`` by ``recipe`` will write, before refusals."""
    if cases is None:
        return Outputs(cases=None, images=None, masks=None, size_bytes=None, seconds=None)
    volumes = source.dimensions == 3
    axes = len(dict.fromkeys(recipe.slices.axes)) if volumes else 1
    planes = rates.PLANES_PER_VOLUME * axes if volumes else 1
    images = cases * max(1, len(source.channels)) * planes
    masks = round(images * min(rates.MASKS_PER_IMAGE, len(source.labels) or rates.MASKS_PER_IMAGE))
    return Outputs(
        cases=cases,
        images=images,
        masks=masks,
        size_bytes=images * _rate(rates.SAMPLE_BYTES, source.modality)
        + masks * rates.MANIFEST_BYTES_PER_MASK,
        seconds=images / _rate(rates.SLICES_PER_CORE_SECOND, source.modality),
    )


def _rate(table: Mapping[str, N], modality: str) -> N:
    return table.get(modality, table["default"])


def written_bytes(outputs: Iterable[Outputs]) -> int:
    """Of parts and shards together: both are kept until ``medcurate clean``."""
    return 2 * sum(entry.size_bytes or 0 for entry in outputs)


def written_files(outputs: Iterable[Outputs], recipe: Recipe) -> int:
    """Inodes of parts, shards and tables."""
    known = list(outputs)
    shards = math.ceil(sum(entry.size_bytes or 0 for entry in known) / recipe.shards.size_bytes)
    parts = sum(math.ceil((entry.cases or 0) / _CASES_PER_PART) or 1 for entry in known)
    return shards + _TABLES + parts * _FILES_PER_PART
