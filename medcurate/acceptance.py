"""Terms that somebody accepted: asked for once, kept with the date beside the sources' files."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from medcurate.choice import needs_acceptance
from medcurate.commit import write_json
from medcurate.config.source import Source
from medcurate.errors import ConfigError

FILE = "accepted-licences.json"
ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """Which terms of a source were accepted, and when (UTC, the day)."""

    licence: str
    url: str
    date: str


def accept(sources: Sequence[Source], named: Sequence[str], data: Path) -> dict[str, Acceptance]:
    """The acceptance of every one of ``sources`` that needs one, by id; those in ``named`` are accepted now.

    ``named``: ids, or ``ALL``. What is accepted is kept in ``data``, so later commands need not be told again,
    until the source states another licence.

    Raises ConfigError where one is missing, naming the terms, and where ``named`` has an id that is not used.
    """
    if unknown := sorted(set(named) - {ALL} - {source.id for source in sources}):
        raise ConfigError(
            f"--accept-licence {unknown[0]}: no source of that id is used; used: "
            f"{', '.join(source.id for source in sources)}"
        )
    kept = _read(data / FILE)
    today = datetime.now(UTC).date().isoformat()
    found: dict[str, Acceptance] = {}
    missing = []
    for source in sources:
        before = kept.get(source.id)
        if before is not None and before.licence == source.licence.id:
            found[source.id] = before
        elif ALL in named or source.id in named:
            found[source.id] = Acceptance(licence=source.licence.id, url=source.licence.url, date=today)
        elif needs_acceptance(source):
            missing.append(source)
    if missing:
        raise ConfigError(_question(missing))
    wanted = {source.id: found[source.id] for source in sources if needs_acceptance(source)}
    if any(kept.get(name) != entry for name, entry in wanted.items()) and _writable(data):
        everything = {name: asdict(entry) for name, entry in sorted({**kept, **wanted}.items())}
        write_json(data / FILE, everything)
    return wanted


def _question(missing: Sequence[Source]) -> str:
    sources = "1 source has" if len(missing) == 1 else f"{len(missing)} sources have"
    lines = [
        f"{sources} terms to accept. Read them, then say that you accept them with "
        f"--accept-licence ID for each, or --accept-licence {ALL}:"
    ]
    for source in missing:
        terms = source.licence.url or source.homepage or "ask its owner"
        lines.append(f"  {source.id}: {source.licence.id}, {_access(source)}; {terms}")
    return "\n".join(lines)


def _access(source: Source) -> str:
    return f"access {'' if source.access in {'open', 'unknown'} else 'by '}{source.access}"


def _read(path: Path) -> Mapping[str, Acceptance]:
    """What was accepted before. Raises ConfigError where the file is damaged."""
    try:
        return {name: Acceptance(**facts) for name, facts in json.loads(path.read_bytes()).items()}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path}: damaged ({error}). Remove it and accept the terms again.") from error


def _writable(folder: Path) -> bool:
    """Data may be mounted read-only; then the terms are accepted for this command."""
    while not folder.exists():
        folder = folder.parent
    return os.access(folder, os.W_OK)
