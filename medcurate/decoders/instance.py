"""Every value but 0 is one instance of the only label: nuclei, cells, glands, teeth."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from medcurate.config.source import Strict
from medcurate.decoders.values import as_integers, blocks, stored
from medcurate.errors import CaseRejected, Reason
from medcurate.types import Array, LabelFiles, LabelLayer, Volume

EXACT = float(1 << 53)  # whole floats up to here are exact


class Options(Strict):
    """None."""


MAX_ID = 2**32 - 1  # what the manifest's ``instance`` column holds


def check(labels: Mapping[str, str]) -> None:
    """Raise ValueError unless the only key is "*"."""
    if set(labels) != {"*"}:
        raise ValueError('the instance decoder has one label with the key "*": every value is one of it')


def decode(files: LabelFiles, labels: Mapping[str, str], options: Options) -> tuple[LabelLayer, ...]:
    """One layer a file, ids as stored, up to 32 bits. Raises CaseRejected (BAD_LABEL) for what is no id."""
    return tuple(
        LabelLayer(labels=_ids(volume), terms={0: labels["*"]}, instances=True) for _, volume in files
    )


def _ids(volume: Volume) -> Array:
    content = stored(volume)
    if content.slope != 1 or content.intercept != 0:
        raise CaseRejected(Reason.BAD_LABEL, "instance ids with a slope or an intercept")
    extremes = [0.0]
    for block in blocks(content.voxels):
        low, high = block.min().item(), block.max().item()
        if not low >= 0 or (block.dtype.kind == "f" and not high <= EXACT):
            raise CaseRejected(Reason.BAD_LABEL, "an instance id is negative, NaN or infinite")
        if block.dtype.kind == "f" and not np.array_equal(block, np.rint(block)):
            raise CaseRejected(Reason.BAD_LABEL, "an instance id is no whole number")
        if high > MAX_ID:
            raise CaseRejected(
                Reason.BAD_LABEL, "an instance id is over 32 bits", {"measure": float(high), "bound": MAX_ID}
            )
        extremes.append(high)
    return as_integers(content.voxels, [0, int(max(extremes))])
