"""Every class has files of its own, named after it: keys of [labels] are the tokens of file names."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from medcurate.decoders.binary import BinaryOptions, foreground, pack, sole_value
from medcurate.types import LabelFiles, LabelLayer, Volume


class Options(BinaryOptions):
    """Foreground of a file is strictly above ``above``; of the classes ``inverted_labels`` it is the rest.

    ``above``: None takes files of 0 and one value above it, whichever that is, and refuses all others.
    """

    above: float | None = None
    inverted_labels: tuple[str, ...] = ()  # keys of [labels]


def check(labels: Mapping[str, str]) -> None:
    """Raise ValueError where a key cannot be part of a file's path."""
    for key in labels:
        if not key or key.startswith("/") or "*" in key or ".." in key.split("/"):
            raise ValueError(f'"{key}" cannot stand in a file name; keys of [labels] replace {{label}} there')


def decode(files: LabelFiles, labels: Mapping[str, str], options: Options) -> tuple[LabelLayer, ...]:
    """Disjoint classes share a layer, overlapping ones keep all their voxels. Raises CaseRejected."""
    masks = (
        (labels[file.label], _mask(volume, options, inverted=_inverted(options, file.label)))
        for file, volume in files
    )
    return pack(masks, len(files), union=options.several == "union")


def _mask(volume: Volume, options: Options, *, inverted: bool) -> npt.NDArray[np.bool_]:
    if options.above is None:
        return sole_value(volume, inverted=inverted)
    return foreground(volume, options.above, inverted=inverted)


def _inverted(options: Options, label: str) -> bool:
    return options.inverted != (label in options.inverted_labels)
