"""What crosses the engine: a job going in, a small record coming out. Both are plain data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medcurate.commit import TEMP_PREFIX
from medcurate.config.identity import identity
from medcurate.config.recipe import Recipe
from medcurate.config.source import Source
from medcurate.types import Case, Reject


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """What an ontology label says in a row."""

    label: str
    organ: str
    region: str
    laterality: str
    lesion: bool
    snomed: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A bundle of cases of one source. ``condemned``: cases that killed a worker, with their rejection."""

    id: str
    source: Source
    root: Path  # the source's folder
    recipe: Recipe
    terms: Mapping[str, Term]  # by ontology label id
    cases: tuple[Case, ...]
    parts: Path  # the folder that the part is committed to
    condemned: Mapping[str, Reject] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        """Bytes of all input files, as stored."""
        return sum(case.size_bytes for case in self.cases)


def job_id(
    source: Source, recipe: Recipe, terms: Mapping[str, Term], cases: tuple[Case, ...], tools: Any
) -> str:
    """Hash of everything that decides the part's bytes, but for the files' contents (see ``PartRecord.inputs``).

    The recipe's name, source list, split and shard rules are left out: they act after the parts.
    """
    facts = {
        "source": identity(source),
        "recipe": recipe.model_dump(mode="json", include={"slices", "intensity", "masks", "limits"}),
        "terms": {name: [t.organ, t.region, t.laterality, t.lesion, t.snomed] for name, t in terms.items()},
        "tools": tools,
        "cases": [
            [case.id, case.group, case.size_bytes, *(path.as_posix() for path in case.paths), *_entries(case)]
            for case in cases
        ],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:20]


def _entries(case: Case) -> list[list[Any]]:
    """What is read of each file, where a case does not read files whole or a table says what they mean."""
    images = [[image.channel, image.entry] for image in case.images if image.entry]
    labels = [[label.label, label.entry, label.rater, label.classes] for label in case.labels]
    return images + [facts for facts in labels if any(facts[1:])]


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseFacts:
    """What planning must know of a written case: voxel digests join duplicates into one group."""

    case: str
    group: str
    split: str
    digests: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartRecord:
    """``<job id>.json``: written after the part's files, so its presence means that the part is whole."""

    job: str
    source: str
    tar_bytes: int
    rows_bytes: int
    rows_sha256: str
    rejects_bytes: int
    rejects_sha256: str
    counts: Mapping[str, Mapping[str, int]]  # cases, slices, masks -> discovered, written, rejected
    reasons: Mapping[str, int]  # ledger rows by reason code
    cases: tuple[CaseFacts, ...]
    inputs: tuple[tuple[str, str, int, int], ...]  # path, SHA-256, bytes, mtime_ns
    seconds: float


def tar_path(parts: Path, job: str) -> Path:
    """The part's samples."""
    return parts / f"{job}.tar"


def rows_path(parts: Path, job: str) -> Path:
    """The part's manifest rows; their ``shard`` is the tar's name, ``split`` is empty."""
    return parts / f"{job}.manifest.parquet"


def rejects_path(parts: Path, job: str) -> Path:
    """The part's ledger rows."""
    return parts / f"{job}.rejects.parquet"


def record_path(parts: Path, job: str) -> Path:
    """The part's record."""
    return parts / f"{job}.json"


def progress_path(parts: Path, job: str) -> Path:
    """The counts of a job that is running, for ``status`` alone: of a killed one it is swept with all it left."""
    return parts / f"{TEMP_PREFIX}{job}.progress"


def read_progress(path: Path) -> Mapping[str, Mapping[str, int]] | None:
    """As ``PartRecord.counts`` the cases so far; None where none is told."""
    try:
        counts: Mapping[str, Mapping[str, int]] | None = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return counts


def read_part_record(path: Path) -> PartRecord:
    """Read a committed record. Raises ValueError, KeyError or TypeError when it is not one."""
    value = json.loads(path.read_bytes())
    value["cases"] = tuple(CaseFacts(**{**c, "digests": tuple(c["digests"])}) for c in value["cases"])
    value["inputs"] = tuple((p, d, s, m) for p, d, s, m in value["inputs"])
    return PartRecord(**value)
