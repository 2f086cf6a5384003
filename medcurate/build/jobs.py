"""Cases to jobs: small cases are bundled by bytes, so that a part is neither a file a case nor a source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from medcurate.config.ontology import Ontology
from medcurate.config.recipe import Recipe
from medcurate.config.source import Source
from medcurate.config.terms import UNMAPPED
from medcurate.job.spec import Job, Term, job_id
from medcurate.types import Case

BUNDLE_BYTES = 128 << 20  # of input files, as stored
BUNDLE_CASES = 256


def terms_of(source: Source, ontology: Ontology) -> dict[str, Term]:
    """What the source's labels say in rows, by ontology label id."""
    terms = {}
    for name in sorted({*source.labels.values(), *source.regions}):
        if name.startswith(UNMAPPED):
            terms[name] = Term(label=name, organ="", region="", laterality="", lesion=False, snomed="")
            continue
        label = ontology.labels[name]
        terms[name] = Term(
            label=name,
            organ=label.organ,
            region=ontology.region_of(name),
            laterality=label.laterality,
            lesion=label.lesion,
            snomed=label.snomed,
        )
    return terms


def jobs_of(
    source: Source,
    root: Path,
    cases: Sequence[Case],
    recipe: Recipe,
    terms: Mapping[str, Term],
    parts: Path,
    tools: Any,
) -> Iterator[Job]:
    """Jobs of one source, independent of all other sources, so that adding a source keeps their parts."""
    for bundle in bundles(cases):
        identifier = job_id(source, recipe, terms, bundle, tools)
        yield Job(
            id=identifier, source=source, root=root, recipe=recipe, terms=terms, cases=bundle, parts=parts
        )


def bundles(
    cases: Sequence[Case], size_bytes: int = BUNDLE_BYTES, most: int = BUNDLE_CASES
) -> Iterator[tuple[Case, ...]]:
    """Consecutive cases, closed when the next one would pass ``size_bytes`` or ``most``; never empty."""
    bundle: list[Case] = []
    total = 0
    for case in cases:
        if bundle and (total + case.size_bytes > size_bytes or len(bundle) == most):
            yield tuple(bundle)
            bundle, total = [], 0
        bundle.append(case)
        total += case.size_bytes
    if bundle:
        yield tuple(bundle)
