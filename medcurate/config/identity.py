"""What of a source decides the bytes of a dataset, and what only tells people about it."""

from __future__ import annotations

from typing import Any

from medcurate.config.source import Source

TOLD = frozenset({"notes", "evidence", "sa_med2d", "cases", "access"})
"""Keys that no byte of a dataset depends on."""


def identity(source: Source) -> dict[str, Any]:
    """``source`` as plain JSON values without ``TOLD`` and without where its files come from.

    A better note, another mirror or a case count that somebody looked up must not make a dataset another one.
    """
    facts = source.model_dump(mode="json", exclude=set(TOLD))
    for file in facts["files"]:
        del file["origin"]
    return facts
