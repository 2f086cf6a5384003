"""Sample keys and pseudonyms: unique, dot-free, at most 90 bytes, never a patient's name.

The parts of a key are joined by two hyphens, so no part may hold two in a row, begin or end with one:
otherwise case "a--b" and case "a" with channel "b" would share a key.
"""

from __future__ import annotations

import hashlib
import re

# USTAR names hold 100 bytes; the longest extension is ".json", and a split prefix may be added by tools.
MAX_KEY_BYTES = 90
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+|-{2,}|^-|-$")


def safe(text: str) -> str:
    """``text`` in the alphabet of keys; a short hash is added when anything had to be replaced."""
    cleaned = _UNSAFE.sub("_", text)
    return cleaned if cleaned == text else f"{cleaned}-{_short_hash(text)}"


def sample_key(source: str, case: str, channel: str, axis: str, slice_index: int) -> str:
    """``source--case[--channel][--z0042]``, shortened by a hash of the case where it would be too long."""
    tail = [safe(channel)] if channel else []
    if axis:
        tail.append(f"{axis}{slice_index:04d}")
    key = "--".join([safe(source), safe(case), *tail])
    if len(key) <= MAX_KEY_BYTES:
        return key
    identity = _short_hash("\0".join((source, case, channel)), 16)
    return "--".join([safe(source)[:30].rstrip("-"), identity, *(tail[-1:] if axis else [])])


def pseudonym(source: str, identifier: str) -> str:
    """A stable stand-in for an identifier that may name a patient.

    It cannot be turned back, but who can guess the identifier can check the guess.
    """
    return "p" + _short_hash(f"{source}/{identifier}", 16)


def _short_hash(text: str, digits: int = 12) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:digits]
