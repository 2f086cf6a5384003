"""How much is done, how fast, and how long the rest takes."""

from __future__ import annotations

import math

HORIZON_SECONDS = 60.0  # what happened this long ago weighs 1/e in the rate
FIRST_RATE_SECONDS = 1.0  # no rate is told from less
LONGEST_SECONDS = 10 * 365 * 86400.0  # what would take longer has come to a standstill


class Meter:
    """How much is done, how fast, and how long the rest takes. Pure: the time comes with every call.

    The rate is the amount over the time, both weighted by exp(-age / HORIZON_SECONDS): the mean at first,
    the same for single pieces and for bundles of them, and falling while nothing comes.
    """

    def __init__(self, total: int | None, *, done: int, now: float) -> None:
        self.total = total
        self.done = done
        self._started = self._last = now
        self._weighted_amount = 0.0
        self._weighted_seconds = 0.0

    def advance(self, amount: int, now: float) -> None:
        """Count ``amount`` more as done at ``now`` (s, of any clock that never goes back)."""
        fading, elapsed = self._faded(now)
        seconds = max(0.0, now - self._last)
        # It was done little by little since the last call, not at once now.
        self._weighted_amount = self._weighted_amount * fading + amount * (
            elapsed / seconds if seconds else 1
        )
        self._weighted_seconds = self._weighted_seconds * fading + elapsed
        self._last += seconds
        self.done += amount

    def rate(self, now: float) -> float | None:
        """Amount per second; None before anything is done or too early to say."""
        if now - self._started < FIRST_RATE_SECONDS or self._weighted_amount <= 0:
            return None
        fading, elapsed = self._faded(now)
        return self._weighted_amount * fading / (self._weighted_seconds * fading + elapsed)

    def eta_s(self, now: float) -> float | None:
        """Seconds that the rest takes at this rate; None where the total or the rate is not known, or nothing comes."""
        if self.total is None:
            return None
        if self.done >= self.total:
            return 0.0
        rate = self.rate(now)
        seconds = (self.total - self.done) / rate if rate else LONGEST_SECONDS
        return seconds if seconds < LONGEST_SECONDS else None

    def _faded(self, now: float) -> tuple[float, float]:
        """What the past still weighs at ``now``, and the weighted length of the time since the last call."""
        fading = math.exp(-max(0.0, now - self._last) / HORIZON_SECONDS)
        return fading, HORIZON_SECONDS * (1 - fading)
