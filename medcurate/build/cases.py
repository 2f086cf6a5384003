"""A source's folder to cases: pairing, ids, patients, errata. Paths and ids only, no pixels."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from medcurate.config.source import Source
from medcurate.errors import ConfigError, DataMissing, Reason
from medcurate.format.keys import pseudonym
from medcurate.pairings import PAIRINGS
from medcurate.pairings.found import Found, Names
from medcurate.registry import load
from medcurate.types import Case, Reject


@dataclass(frozen=True, slots=True, kw_only=True)
class Discovery:
    """Cases of one source, sorted by id; what cannot become a case; and the original name of every id."""

    cases: tuple[Case, ...]
    rejects: tuple[tuple[str, str, Reject], ...]  # case id, group, reject
    names: dict[str, str] = field(default_factory=dict)


def discover(source: Source, root: Path) -> Discovery:
    """Find the cases of ``source`` in its folder. Raises DataMissing when there is nothing at all."""
    cases: list[Case] = []
    rejects: list[tuple[str, str, Reject]] = []
    names: dict[str, str] = {}
    errata = {erratum.case: erratum.reason for erratum in source.errata}
    found = list(_found(source, root))
    if not found:
        patterns = "; ".join(f"{p.kind} {p.options}" for p in source.pairings)
        raise DataMissing(
            f"{source.id}: no case found in {root.resolve()} by {patterns}. Put the files there, name the folder above "
            f'"{source.id}" with --data, or mend the source.'
        )
    _check_pattern(source, [entry.name for entry, _ in found])
    raw_ids = [_ids(source, entry.name) for entry, _ in found]
    repeated = {raw for raw, count in Counter(raw for raw, _ in raw_ids).items() if count > 1}
    for (entry, split), (raw, patient) in zip(found, raw_ids, strict=True):
        identifier, group = _written(source, raw), f"{source.namespace}:{_written(source, patient)}"
        names[identifier] = entry.name.encode(errors="backslashreplace").decode()
        problem = _problem(entry, raw, errata, repeated)
        if problem:
            rejects.append((identifier, group, problem))
        else:
            cases.append(_case(source, root, entry, identifier, group, split))
    return Discovery(cases=tuple(sorted(cases, key=lambda c: c.id)), rejects=tuple(rejects), names=names)


def _found(source: Source, root: Path) -> Iterator[tuple[Found, str]]:
    names = Names(
        channels=tuple(c.name for c in source.channels),
        components=tuple(c.component for c in source.channels),
        labels=tuple(source.labels),
    )
    for pairing in source.pairings:
        module = load(PAIRINGS, pairing.kind, "pairing")
        for entry in module.find(root, module.Options(**pairing.options), names):
            yield entry, pairing.split


def _check_pattern(source: Source, names: Sequence[str]) -> None:
    """A name that the pattern misses would make its case a patient of its own, in any split."""
    missed = [name for name in names if not re.search(source.case.pattern, name)]
    if missed:
        raise ConfigError(
            f'{source.id}: case.pattern "{source.case.pattern}" does not match {len(missed)} of {len(names)} case '
            f'names, such as "{missed[0]}". Mend the pattern, or empty it if every case is another patient.'
        )


def _ids(source: Source, name: str) -> tuple[str, str]:
    """(case, patient) as the source's pattern reads them from ``name``; the name itself where it is silent."""
    match = re.search(source.case.pattern, name) if source.case.pattern else None
    groups = {key: text for key, text in (match.groupdict() if match else {}).items() if text}
    case = groups.get("case", name)
    return case, groups.get("group", case)


def _written(source: Source, identifier: str) -> str:
    keep = source.case.identifiers == "keep" and _is_text(identifier)
    return identifier if keep else pseudonym(source.namespace, identifier)


def _problem(entry: Found, raw: str, errata: dict[str, str], repeated: set[str]) -> Reject | None:
    if raw in errata:
        return Reject(stage="pair", reason=Reason.ERRATUM, detail=errata[raw])
    if not all(_is_text(path.as_posix()) for path in _paths(entry)):
        return Reject(stage="pair", reason=Reason.UNREADABLE, detail="a file name is not UTF-8; rename it")
    if entry.problem:
        return Reject(stage="pair", reason=Reason.UNPAIRED, detail=entry.problem)
    if raw in repeated:
        return Reject(stage="pair", reason=Reason.DUPLICATE_KEY, detail="several cases have this id")
    return None


def _paths(entry: Found) -> Iterator[Path]:
    for image in entry.images:
        yield from image.paths
    for label in entry.labels:
        yield from label.paths


def _is_text(name: str) -> bool:
    """Whether ``name`` was decoded from UTF-8; Python keeps other bytes as surrogates, which no table holds."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def _case(source: Source, root: Path, entry: Found, identifier: str, group: str, split: str) -> Case:
    case = Case(
        source=source.id, id=identifier, group=group, images=entry.images, labels=entry.labels, split=split
    )
    return replace(case, size_bytes=sum((root / path).stat().st_size for path in case.paths))
