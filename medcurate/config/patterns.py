"""Patterns of paths: ``*`` for any text inside one name, ``**`` for any folders; all else is literal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache


def matches(patterns: Sequence[str], path: str) -> bool:
    """Whether any of ``patterns`` explains the whole of ``path``; a last ``**`` stands for all files below."""
    return any(_pattern(pattern).fullmatch(path) for pattern in patterns)


@cache
def _pattern(pattern: str) -> re.Pattern[str]:
    pieces = []
    for part in pattern.strip("/").split("/"):
        if part == "**":
            pieces.append("(?:[^/]+/)*")
        else:
            pieces.append("[^/]*".join(re.escape(piece) for piece in part.split("*")) + "/")
    # The last "**" stands for any file at any depth.
    last = "(?:[^/]+/)*[^/]+" if pieces[-1].startswith("(?:") else pieces[-1].removesuffix("/")
    return re.compile("".join(pieces[:-1]) + last, re.DOTALL)
