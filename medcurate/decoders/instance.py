"""Every value is one object: of the only label (nuclei, cells, glands, teeth), or of that of its range."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from pydantic import field_validator

from medcurate.config.source import Strict
from medcurate.decoders.instance_parts import MAX_ID as MAX_ID
from medcurate.decoders.instance_parts import check_disjoint, ids, undeclared, whole
from medcurate.decoders.values import blocks, dense
from medcurate.types import Array, LabelFiles, LabelLayer

ANY = "*"

OBJECTS = True  # values number objects


class Options(Strict):
    """``ignore``: values or ranges that may occur and are no object; 0 needs no mention."""

    ignore: tuple[str, ...] = ()

    @field_validator("ignore")
    @classmethod
    def _ranges(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        check_disjoint(list(value))
        return value


def check(labels: Mapping[str, str]) -> None:
    """Raise ValueError unless the only key is "*", or all are values or ranges that do not meet."""
    if set(labels) == {ANY}:
        return
    if ANY in labels:
        raise ValueError('the key "*" stands for every value: other keys beside it have none left')
    check_disjoint(list(labels))


def decode(files: LabelFiles, labels: Mapping[str, str], options: Options) -> tuple[LabelLayer, ...]:
    """One layer a file, or a file and key; ids as stored, up to 32 bits.

    Raises CaseRejected (BAD_LABEL) for what is no id or declared by no key.
    """
    ranges = [whole(text) for text in options.ignore]
    if ANY in labels:
        return tuple(
            LabelLayer(labels=_without(ids(volume), ranges), terms={0: labels[ANY]}, instances=True)
            for _, volume in files
        )
    keyed = [(whole(key), term) for key, term in labels.items()]
    layers = []
    for _, volume in files:
        found = dense(ids(volume))
        _refuse_others(found, [*ranges, *(values for values, _ in keyed)])
        layers += [
            LabelLayer(labels=_within(found, values), terms={0: term}, instances=True)
            for values, term in keyed
        ]
    return tuple(layers)


def _without(found: Array, ranges: list[range]) -> Array:
    """``found`` itself where nothing is ignored."""
    if not ranges:
        return found
    kept = found.copy(order="K")
    for block in blocks(kept):
        for values in ranges:
            block[(block >= values.start) & (block < values.stop)] = 0
    return kept


def _within(found: Array, values: range) -> Array:
    labels = np.zeros_like(found)
    for block, out in zip(blocks(found), blocks(labels), strict=True):
        np.copyto(out, block, where=(block >= values.start) & (block < values.stop))
    return labels


def _refuse_others(found: Array, declared: list[range]) -> None:
    count, smallest = 0, MAX_ID
    for block in blocks(found):
        odd = block != 0
        for values in declared:
            odd &= (block < values.start) | (block >= values.stop)
        if odd.any():
            count += int(odd.sum())
            smallest = min(smallest, int(block[odd].min()))
    if count:
        raise undeclared("instance id", smallest, count)
