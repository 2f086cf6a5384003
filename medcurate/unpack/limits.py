"""How much an archive may cost: members, bytes, bytes out for a byte in, refusals, time."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from medcurate.progress import amount_text


class Stop(Exception):
    """Unpacking ends here; the text continues "ARCHIVE: " and ends without a full stop.

    ``damage``: the archive is broken rather than too large, so that a nested one may be left out alone.
    """

    def __init__(self, text: str, *, damage: bool = True) -> None:
        super().__init__(text)
        self.damage = damage


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of one archive together with those nested in it.

    ``ratio``: bytes out for a byte in, judged only once more than ``grace_bytes`` came out: labels may well
    be pressed to a thousandth. ``refused``: members left out; above it the archive is no good at all.
    """

    members: int = 20_000_000
    size_bytes: int = 20 * 10**12
    ratio: float = 250.0
    grace_bytes: int = 256 << 20
    refused: int = 10_000
    seconds: float = 48 * 3600.0
    nesting: int = 3


def too_many_refused(limits: Limits, detail: str, *, damage: bool) -> Stop:
    """What to raise above the bound of members left out; ``detail``: of the last one."""
    remedy = "" if damage else ". Mend the unpack table of its source, or get the archive again"
    return Stop(
        f"more than {limits.refused:,} members had to be left out, the last: {detail}{remedy}", damage=damage
    )


class Budget:
    """Counts what unpacking costs; safe for threads. Every method raises Stop above a bound."""

    def __init__(self, limits: Limits, stored_bytes: int) -> None:
        self.limits = limits
        self._stored_bytes = stored_bytes
        self._out_bytes = 0
        self._members = 0
        self._deadline = time.monotonic() + limits.seconds
        self._lock = threading.Lock()

    def member(self) -> int:
        """Count one more member, wanted or not; returns its number."""
        self._members += 1
        if self._members > self.limits.members:
            raise Stop(f"more than {self.limits.members:,} members", damage=False)
        self._check_time()
        return self._members

    def spend(self, size_bytes: int) -> None:
        """Count ``size_bytes`` more that come out."""
        with self._lock:
            self._out_bytes += size_bytes
            total = self._out_bytes
        self.passing(total)

    def passing(self, total_bytes: int) -> None:
        """Judge ``total_bytes`` that came out of a stream, written or passed over, and the time, without counting."""
        self.check(total_bytes)
        self._check_time()

    def _check_time(self) -> None:
        if time.monotonic() > self._deadline:
            raise Stop(f"it took more than {self.limits.seconds:,.0f} s", damage=False)

    def check(self, total_bytes: int, stored_bytes: int | None = None) -> None:
        """Judge ``total_bytes`` out of ``stored_bytes`` (default: the whole archive) without counting them."""
        limits = self.limits
        stored = self._stored_bytes if stored_bytes is None else stored_bytes
        if total_bytes > limits.size_bytes:
            raise Stop(
                f"TOO_LARGE: it holds more than {amount_text(limits.size_bytes, 'B')}, the limit",
                damage=False,
            )
        if total_bytes > max(limits.grace_bytes, limits.ratio * stored):
            raise Stop(
                f"TOO_LARGE: {amount_text(total_bytes, 'B')} or more come out of {amount_text(stored, 'B')}, "
                f"more than {limits.ratio:g} bytes for one, which is how archives are made that fill disks. "
                "If its publisher made it so, raise ratio in its unpack table",
                damage=False,
            )
