"""Verbs of the group ``catalogue``."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Add the group's verbs to ``app``."""
