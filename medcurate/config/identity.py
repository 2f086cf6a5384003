"""What of a source decides the bytes of a dataset, and what only tells people about it."""

from __future__ import annotations

from typing import Any

from medcurate.config.source import Source

TOLD = frozenset({"notes", "evidence", "sa_med2d", "cases", "access"})
"""Keys that no byte of a dataset depends on."""

_FOLDER = ("into", "include", "modalities")
"""Of a folder that its host lists: what decides which files are in it."""


def identity(source: Source) -> dict[str, Any]:
    """``source`` as plain JSON values without ``TOLD`` and without where its files come from.

    A better note, another mirror or a case count that somebody looked up must not make a dataset another one.
    """
    facts = source.model_dump(mode="json", exclude=set(TOLD))
    for file in facts["files"]:
        del file["origin"]
    facts["folders"] = [{name: each[name] for name in _FOLDER} for each in facts["folders"]]
    if not facts["folders"]:  # most sources have none; their datasets stay what they were
        del facts["folders"]
    return facts
