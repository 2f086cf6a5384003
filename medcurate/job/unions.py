"""Masks made of masks: what several raters agree on, and regions that unite structures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from medcurate.decoders.binary import pack
from medcurate.types import LabelLayer

Mask = npt.NDArray[np.bool_]


def agreed(
    readings: Iterable[Sequence[LabelLayer]], terms: Iterable[str], count: int, rule: str
) -> tuple[LabelLayer, ...]:
    """What ``count`` raters agree on, term by term and voxel by voxel; each reading is let go of after its turn.

    ``rule``: "majority" (more than half of them), "union" (any of them) or "intersection" (all of them).
    """
    needed = {"majority": count // 2 + 1, "union": 1, "intersection": count}[rule]
    wanted = tuple(dict.fromkeys(terms))
    votes: dict[str, npt.NDArray[np.uint8]] = {}
    for layers in readings:
        for term in wanted:
            mask = covered(layers, {term})
            votes[term] = votes[term] + mask if term in votes else mask.astype(np.uint8)
    return pack(((term, votes.pop(term) >= needed) for term in wanted), len(wanted), union=True)


def with_regions(
    layers: tuple[LabelLayer, ...], regions: Mapping[str, Sequence[str]]
) -> tuple[LabelLayer, ...]:
    """``layers``, and one mask more for every region: the voxels of any of its terms."""
    if not regions:
        return layers
    return layers + pack(_united(layers, regions), len(regions), union=True)


def _united(layers: Sequence[LabelLayer], regions: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, Mask]]:
    for region, terms in regions.items():
        yield region, covered(layers, set(terms))


def covered(layers: Sequence[LabelLayer], terms: set[str]) -> Mask:
    """Where any layer shows one of ``terms``; same shape and memory order as the first layer."""
    mask: Mask = np.zeros_like(layers[0].labels, np.bool_)
    for layer in layers:
        if layer.instances:
            if layer.terms[0] in terms:
                mask |= layer.labels != 0
            continue
        values = [value for value, term in layer.terms.items() if term in terms]
        if values:
            mask |= np.isin(layer.labels, values)
    return mask
