"""One structure, drawn bright on dark (or dark on bright): masks of 0 and 255, also as lossy JPEG."""

from __future__ import annotations

from collections.abc import Mapping

from medcurate.decoders.binary import BinaryOptions, foreground, pack
from medcurate.types import LabelFiles, LabelLayer


class Options(BinaryOptions):
    """Foreground is strictly above ``above``, in the file's own units: 127 for 0/255, 0 for 0/1."""

    above: float


def check(labels: Mapping[str, str]) -> None:
    """Raise ValueError unless there is exactly one label; its key is free, "*" by custom."""
    if len(labels) != 1:
        raise ValueError(f"the threshold decoder has one label, not {len(labels)}; write one key in [labels]")


def decode(files: LabelFiles, labels: Mapping[str, str], options: Options) -> tuple[LabelLayer, ...]:
    """The foreground of every file; several files overlap in layers. Raises CaseRejected."""
    (term,) = labels.values()
    masks = ((term, foreground(volume, options.above, inverted=options.inverted)) for _, volume in files)
    return pack(masks, len(files), union=options.several == "union")
