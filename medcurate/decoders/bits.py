"""Every bit of a value is one object, so that objects may overlap (PENGWIN's X-rays)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from medcurate.config.source import Strict
from medcurate.decoders.instance_parts import blank, check_disjoint, ids, undeclared, whole
from medcurate.types import LabelFiles, LabelLayer

MOST = 32  # bits of a value

OBJECTS = True  # values number objects


class Options(Strict):
    """None."""


def check(labels: Mapping[str, str]) -> None:
    """Raise ValueError unless every key is a bit ("3") or a range of bits ("11..20") and no two meet."""
    check_disjoint(list(labels))
    if any(whole(key).stop > MOST for key in labels):
        raise ValueError(f"bits are numbered from 0 to {MOST - 1}")


def decode(files: LabelFiles, labels: Mapping[str, str], options: Options) -> tuple[LabelLayer, ...]:
    """One layer a file and bit that is set anywhere, a blank one where none is; ids are bits' numbers plus 1.

    Raises CaseRejected (BAD_LABEL) for bits that no key names.
    """
    terms = {bit: term for key, term in labels.items() for bit in whole(key)}
    layers: list[LabelLayer] = []
    for _, volume in files:
        found = ids(volume).astype(np.uint32)
        used = int(np.bitwise_or.reduce(found, axis=None))
        if not used:
            layers.append(blank(found))
        for bit in (bit for bit in range(MOST) if used >> bit & 1):
            drawn = (found >> np.uint32(bit) & np.uint32(1)).astype(np.bool_)
            if bit not in terms:
                raise undeclared("bit", bit, int(drawn.sum()))
            layers.append(LabelLayer(labels=drawn * np.uint8(bit + 1), terms={0: terms[bit]}, instances=True))
    return tuple(layers)
