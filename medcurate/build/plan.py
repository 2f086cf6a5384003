"""What a build will do: cases of every source, as jobs, with what cannot become a case."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medcurate.build.cases import Discovery, discover
from medcurate.build.fetch import OFFLINE, Network, ensure, searching
from medcurate.build.jobs import jobs_of, terms_of
from medcurate.build.vocabulary import with_class_names
from medcurate.commit import write_json
from medcurate.job.spec import Job
from medcurate.library import Resolved

PLAN_FILE = "plan.json"
NAMES_FILE = "names.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourcePlan:
    """The work that one source asks for."""

    source: str
    root: Path
    discovery: Discovery
    jobs: tuple[Job, ...]

    @property
    def digest(self) -> str:
        """Identifies the cases and everything that decides their parts' bytes, but for file contents."""
        refused = [f"{case} {reject.reason}" for case, _, reject in self.discovery.rejects]
        return hashlib.sha256("\n".join([*(job.id for job in self.jobs), *refused]).encode()).hexdigest()


def plan(
    resolved: Resolved, data: Path, parts: Path, tools: Mapping[str, str], network: Network = OFFLINE
) -> tuple[SourcePlan, ...]:
    """Have all files, find all cases and bundle them. Raises DataMissing, DownloadError."""
    plans = []
    roots = ensure(resolved.sources, data, resolved.homes, network)
    for source, root in zip(resolved.sources, roots, strict=True):
        with searching(source, data, root):
            source = with_class_names(source, root, resolved.ontology)
            discovery = discover(source, root, resolved.lineage)
        terms = terms_of(source, resolved.ontology)
        jobs = tuple(jobs_of(source, root, discovery.cases, resolved.recipe, terms, parts, tools))
        plans.append(SourcePlan(source=source.id, root=root, discovery=discovery, jobs=jobs))
    return tuple(plans)


def write_plan(work: Path, plans: tuple[SourcePlan, ...], out: Path) -> None:
    """Leave in the work folder what ``status`` shows, and the original names behind pseudonyms."""
    facts: dict[str, Any] = {
        entry.source: {
            "cases": len(entry.discovery.cases),
            "refused": len(entry.discovery.rejects),
            "bytes": sum(job.size_bytes for job in entry.jobs),
            "jobs": [job.id for job in entry.jobs],
        }
        for entry in plans
    }
    write_json(work / PLAN_FILE, {"out": out.name, "sources": facts})
    write_json(work / NAMES_FILE, {entry.source: entry.discovery.names for entry in plans}, mode=0o600)
