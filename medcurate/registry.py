"""Kinds by name: a table from kind to module, loaded on first use so that start-up stays light."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import ModuleType

from medcurate.errors import ConfigError


def load(table: Mapping[str, str], kind: str, what: str) -> ModuleType:
    """The module registered for ``kind``. Raises ConfigError naming the known kinds."""
    if kind not in table:
        raise ConfigError(f'{what} "{kind}" is unknown; known: {", ".join(sorted(table))}')
    return import_module(table[kind])
