"""How fast downloads into a folder of data came: noted when they end, for estimates of later ones."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from medcurate.commit import write_json
from medcurate.errors import OutputError
from medcurate.progress import emit

FILE = "download-rates.json"
LEAST_BYTES = 10_000_000  # less tells of the time to connect
_KEPT = 20


@dataclass(frozen=True, slots=True)
class Throughput:
    """Bytes and seconds of ``downloads`` commands together."""

    received_bytes: int
    seconds: float
    downloads: int

    @property
    def bytes_per_second(self) -> float:
        """Over all of them."""
        return self.received_bytes / self.seconds


def note(data: Path, received_bytes: int, seconds: float) -> None:
    """Keep what one command received, if that tells anything, beside the last ones.

    Where it cannot be kept that is told and no error: nothing but an estimate depends on it.
    """
    if received_bytes < LEAST_BYTES or seconds <= 0:
        return
    entry = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "received_bytes": received_bytes,
        "seconds": round(seconds, 3),
    }
    try:
        write_json(data / FILE, [*_entries(data), entry][-_KEPT:])
    except OutputError as error:
        emit("download rate not kept", why=str(error))


def measured(data: Path) -> Throughput | None:
    """Of the last downloads into ``data``; None where there were none."""
    entries = _entries(data)
    if not entries:
        return None
    return Throughput(
        received_bytes=sum(entry["received_bytes"] for entry in entries),
        seconds=sum(entry["seconds"] for entry in entries),
        downloads=len(entries),
    )


def _entries(data: Path) -> list[dict[str, Any]]:
    """What can be read of the file: nothing but an estimate depends on it."""
    try:
        entries = json.loads((data / FILE).read_bytes())
    except (OSError, ValueError):
        return []
    return [entry for entry in entries if _is_entry(entry)] if isinstance(entries, list) else []


def _is_entry(entry: object) -> bool:
    return isinstance(entry, dict) and all(
        isinstance(entry.get(name), int | float) and entry[name] > 0 for name in ("received_bytes", "seconds")
    )
