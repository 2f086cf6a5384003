"""Every value is one object, and a table of the set says of what class it is (RibFrac, LNDb)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from medcurate.config.source import Strict
from medcurate.decoders.instance_parts import by_term, ids, undeclared
from medcurate.decoders.values import blocks, distinct
from medcurate.errors import CaseRejected, Reason
from medcurate.types import LabelFile, LabelFiles, LabelLayer

NEEDS_CLASSES = True  # of [label]

OBJECTS = True  # values number objects


class Options(Strict):
    """``background``: words of the table that are no structure; all others must be keys of [labels]."""

    background: tuple[str, ...] = ()


def check(labels: Mapping[str, str]) -> None:
    """Every word of a table may be a key."""


def decode(files: LabelFiles, labels: Mapping[str, str], options: Options) -> tuple[LabelLayer, ...]:
    """One layer a file and label. Raises CaseRejected (BAD_LABEL) for values without a row and unknown words."""
    layers: list[LabelLayer] = []
    for file, volume in files:
        found = ids(volume)
        terms = _terms(file, labels, options)
        values = np.unique(np.concatenate([np.zeros(1, np.int64), *map(distinct, blocks(found))]))
        for value in values[values != 0].tolist():
            if int(value) not in terms:
                raise undeclared("instance id", int(value), int((found == value).sum()))
        layers += by_term(found, {value: term for value, term in terms.items() if value and term})
    return tuple(layers)


def _terms(file: LabelFile, labels: Mapping[str, str], options: Options) -> dict[int, str]:
    """Term of every value that the table names; "" for background."""
    terms = {}
    for value, word in file.classes:
        if word not in labels and word not in options.background:
            raise CaseRejected(
                Reason.BAD_LABEL, f"the table calls value {value} what the source does not declare"
            )
        terms[value] = labels.get(word, "")
    return terms
