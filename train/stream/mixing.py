"""Random numbers by counter: a number depends on what it is for, never on who asks or when.

Source: Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators" (OOPSLA 2014), the
SplitMix64 finaliser.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

UInt64s = npt.NDArray[np.uint64]
_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def mixed(seed: int, *words: npt.ArrayLike) -> UInt64s:
    """64 well-mixed bits for each tuple of ``words`` (whole numbers, broadcast together), at least 1-d.

    ``words`` count in their order: (1, 2) and (2, 1) differ.
    """
    state = _finished(np.array([seed & _MASK], np.uint64))
    for word in words:
        steps = np.atleast_1d(np.asarray(word)).astype(np.uint64) * np.uint64(_GOLDEN)
        state = _finished(state + steps + np.uint64(_GOLDEN))
    return state


def below(bits: UInt64s, limits: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Whole numbers in [0, limit), limits of at most 2**31, from the upper half of ``bits``."""
    scaled = (bits >> np.uint64(32)) * np.asarray(limits).astype(np.uint64)
    return (scaled >> np.uint64(32)).astype(np.int64)


def _finished(state: UInt64s) -> UInt64s:
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
