"""Every colour but the background is one object of the only label (teeth)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from medcurate.config.source import Strict
from medcurate.decoders.colour_map import Colour, packed_colours
from medcurate.decoders.values import distinct
from medcurate.types import Array, LabelFiles, LabelLayer, Volume

OBJECTS = True  # values number objects


class Options(Strict):
    """``background``: colours that are no object."""

    background: tuple[Colour, ...] = ("#000000",)


def check(labels: Mapping[str, str]) -> None:
    """Raise ValueError unless the only key is "*"."""
    if set(labels) != {"*"}:
        raise ValueError(
            'the colour-instance decoder has one label with the key "*": every colour is one of it'
        )


def decode(files: LabelFiles, labels: Mapping[str, str], options: Options) -> tuple[LabelLayer, ...]:
    """One layer a file; objects are numbered in the order of their colours. Raises CaseRejected (BAD_LABEL)."""
    background = np.array([int(colour[1:], 16) for colour in options.background], np.uint32)
    return tuple(
        LabelLayer(labels=_ids(volume, background), terms={0: labels["*"]}, instances=True)
        for _, volume in files
    )


def _ids(volume: Volume, background: Array) -> Array:
    packed = packed_colours(volume)
    colours = np.setdiff1d(distinct(packed), background)
    place = np.minimum(np.searchsorted(colours, packed), max(0, len(colours) - 1))
    drawn = colours[place] == packed if len(colours) else np.zeros(packed.shape, np.bool_)
    return np.where(drawn, place + 1, 0).astype(np.uint32)
