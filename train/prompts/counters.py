"""Random numbers without a generator: each is a hash of who draws it, for what, and how often it was drawn before.

So a mask's prompts do not depend on the batch, the rank, the device or the order in which masks are drawn. All
arithmetic is on int64 and wraps, hence equal on every device. Source of the mixing: SplitMix64 (Steele, Lea and
Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014).
"""

from __future__ import annotations

from enum import IntEnum

import torch

_WORD = 1 << 64
_GOLDEN = 0x9E3779B97F4A7C15 - _WORD
_FIRST = 0xBF58476D1CE4E5B9 - _WORD
_SECOND = 0x94D049BB133111EB - _WORD


class What(IntEnum):
    """What a number is drawn for. A value is never given another meaning: old records stay true."""

    KIND = 0
    BOX = 1
    POINTS = 2
    POINT_COUNT = 3
    MASK_ONLY = 4
    SCRIBBLE = 5


def mask_keys(seeds: torch.Tensor, slots: int) -> torch.Tensor:
    """int64 (B,) of images to int64 (B * slots,): one key a mask, by the mask's place in the batch's K masks."""
    places = torch.arange(slots, device=seeds.device)
    return fold(seeds[:, None], places).flatten()


def batch_key(seed: int) -> torch.Tensor:
    """The key, int64 (1,) on the CPU, of what is drawn once for a batch."""
    return torch.tensor([seed])


def fold(keys: torch.Tensor, value: torch.Tensor | int) -> torch.Tensor:
    """Another key for every ``value`` at or above 0, of the common shape of both."""
    step = (value + 1) * _GOLDEN
    return _mix(keys + (_wrapped(step) if isinstance(step, int) else step))


def bits(keys: torch.Tensor, what: What, turn: int, count: int) -> torch.Tensor:
    """int64 (N,) to int64 (N, count) in [0, 2**32): numbers for ``what`` in the interaction's turn ``turn``."""
    streams = fold(fold(keys, turn), int(what))
    return _shifted(fold(streams[:, None], torch.arange(count, device=keys.device)), 32)


def below(numbers: torch.Tensor, bound: torch.Tensor | int) -> torch.Tensor:
    """``numbers`` in [0, 2**32) to whole numbers in [0, bound), 1 <= bound < 2**31; bias at most bound / 2**32."""
    return (numbers * bound) >> 32


def _mix(state: torch.Tensor) -> torch.Tensor:
    state = (state ^ _shifted(state, 30)) * _FIRST
    state = (state ^ _shifted(state, 27)) * _SECOND
    return state ^ _shifted(state, 31)


def _wrapped(number: int) -> int:
    """``number`` as int64 holds it."""
    return (number + _WORD // 2) % _WORD - _WORD // 2


def _shifted(value: torch.Tensor, places: int) -> torch.Tensor:
    """``value`` shifted right with zeros moving in; int64's own shift copies the sign."""
    return (value >> places) & ((1 << (64 - places)) - 1)
