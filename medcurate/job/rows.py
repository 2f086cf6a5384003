"""Manifest rows of one image along one axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from medcurate.format.columns import MANIFEST
from medcurate.format.tables import compact, of_codes, value_type

if TYPE_CHECKING:
    import pyarrow as pa


def manifest_table(
    constants: Mapping[str, Any],
    samples: Mapping[str, Sequence[Any]],
    masks: Mapping[str, Any],
    sample_of: npt.NDArray[np.int64],
) -> pa.Table:
    """Rows of masks: ``constants`` hold for all, ``samples`` for a sample (see ``sample_of``), ``masks`` for one.

    ``sample_of`` int (N,): the index of each mask's sample. Every manifest column must be in exactly one group; those
    of ``masks`` are arrays, or None where nothing is known of any. See ``compact``.
    """
    owner = sample_of.astype(np.int32)
    of_samples = {
        name: of_codes(owner, values, value_type(MANIFEST, name)) for name, values in samples.items()
    }
    return compact(MANIFEST, len(owner), {**constants, **of_samples, **masks})
