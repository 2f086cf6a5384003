"""One file of a host's list, and the list."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from medcurate.config.source import Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A file as its host lists it. ``path``: below the folder that was asked for, "/" between names.

    ``archive``: whether it is an archive, made on request, that stands for a folder of its own name;
    ``restricted``: whether its host gives it to some people only. Digests are hexadecimal.
    """

    path: str
    origin: Origin
    size_bytes: int | None = None
    sha256: str | None = None
    md5: str | None = None
    archive: bool = False
    restricted: bool = False


@dataclass(frozen=True, slots=True)
class Contents:
    """``revision``: the commit or version that was listed, "" where the host knows none."""

    revision: str
    entries: Iterable[Entry]


def below_resource(path: str, resource: str) -> str | None:
    """``path`` without the folder ``resource`` before it; None where it lies elsewhere."""
    if not resource:
        return path
    head = resource.strip("/") + "/"
    return path.removeprefix(head) if path.startswith(head) else None


def field(value: Any, *names: str) -> Any:
    """What lies at ``names`` in nested JSON objects; None where that is absent or of another shape."""
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value
