"""Folders that are used when none is given."""

from __future__ import annotations

import os
from pathlib import Path


def default_data_folder() -> Path:
    """``$XDG_CACHE_HOME/medcurate/data``, or ``~/.cache/medcurate/data``."""
    return cache_folder() / "data"


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/medcurate``, or ``~/.cache/medcurate`` (XDG Base Directory Specification)."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(cache) if os.path.isabs(cache) else Path.home() / ".cache"
    return base / "medcurate"
