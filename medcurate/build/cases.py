"""A source's folder to cases: pairing, ids, patients, errata. Paths and ids only, no pixels."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from medcurate.build.losses import lost_members
from medcurate.build.readings import Tables, found_by, read_tables
from medcurate.config.lineage import NO_LINEAGE, Lineage
from medcurate.config.source import Source
from medcurate.errors import ConfigError, DataMissing, Reason
from medcurate.format.keys import pseudonym
from medcurate.lineage import shared_patient
from medcurate.pairings.found import OTHER_CASE, Found
from medcurate.types import Case, Reject
from medcurate.unpack.record import Refused
from medcurate.zips import inside


@dataclass(frozen=True, slots=True, kw_only=True)
class Discovery:
    """Cases of one source, sorted by id; what cannot become a case; and the original name of every id.

    ``idle_errata``: errata that name none of all these, as ``errata[1] (id)``, the id written as cases' are.
    """

    cases: tuple[Case, ...]
    rejects: tuple[tuple[str, str, Reject], ...]  # case id, group, reject
    names: dict[str, str] = field(default_factory=dict)
    idle_errata: tuple[str, ...] = ()


def discover(source: Source, root: Path, lineage: Lineage = NO_LINEAGE) -> Discovery:
    """Find the cases of ``source`` in its folder; ``lineage`` names patients that other sources know too.

    Raises DataMissing when there is nothing at all, ConfigError for names that a pattern does not understand.
    """
    cases: list[Case] = []
    rejects: list[tuple[str, str, Reject]] = []
    names: dict[str, str] = {}
    errata = {erratum.case: erratum.reason for erratum in source.errata}
    found = _not_used([(entry, p.split) for p in source.pairings for entry in found_by(source, p, root)])
    if not found:
        patterns = "; ".join(f"{p.kind} {p.options}" for p in source.pairings)
        raise DataMissing(
            f"{source.id}: no case found in {root.resolve()} by {patterns}. Put the files there, name the folder above "
            f'"{source.id}" with --data, or mend the source.'
        )
    _check_pattern(source, [entry.name for entry, _ in found if entry.images])
    tables = read_tables(source, root)
    raw_ids = [_ids(source, tables, entry) for entry, _ in found]
    repeated = {raw for raw, count in Counter(raw for raw, _ in raw_ids).items() if count > 1}
    shares = Counter(path for entry, _ in found for path in dict.fromkeys(_paths(entry)))
    for (entry, split), (raw, patient) in zip(found, raw_ids, strict=True):
        known = (
            lineage if entry.images else NO_LINEAGE
        )  # a label alone may be called otherwise than cases are
        identifier, group = _written(source, raw), _group(source, patient, known)
        names[identifier] = entry.name.encode(errors="backslashreplace").decode()
        problem = _problem(entry, raw, errata, repeated)
        if problem:
            rejects.append((identifier, group, problem))
        else:
            official = tables.split(raw) or entry.split or split
            case = _case(source, tables.labelled(entry, raw), identifier, group, official)
            cases.append(replace(case, size_bytes=_size_bytes(root, case, shares)))
    for lost in lost_members(source, root, [entry.name for entry, _ in found if entry.problem]):
        identifier = _written(source, lost.member)
        names[identifier] = lost.member
        rejects.append((identifier, _group(source, lost.member, NO_LINEAGE), _lost(lost)))
    return Discovery(
        cases=tuple(sorted(cases, key=lambda c: c.id)),
        rejects=tuple(rejects),
        names=names,
        idle_errata=_idle_errata(source, {raw for raw, _ in raw_ids}),
    )


def _not_used(found: list[tuple[Found, str]]) -> list[tuple[Found, str]]:
    """Without what one row or pairing passed over for its letters and another one names as it is written."""
    passed = {entry.name for entry, _ in found if entry.problem == OTHER_CASE}
    if not passed:  # of nearly all sources, some of which have millions of files
        return found
    used = {
        name
        for entry, _ in found
        for path in _paths(entry)
        for place in (path, *path.parents)
        if (name := place.as_posix()) in passed
    }
    return [each for each in found if each[0].problem != OTHER_CASE or each[0].name not in used]


def _idle_errata(source: Source, known: Collection[str]) -> tuple[str, ...]:
    return tuple(
        f"errata[{number}] ({_written(source, erratum.case)})"
        for number, erratum in enumerate(source.errata)
        if erratum.case not in known
    )


def _check_pattern(source: Source, names: Sequence[str]) -> None:
    """A name that the pattern misses would make its case a patient of its own, in any split."""
    missed = [name for name in names if not re.search(source.case.pattern, name)]
    if missed:
        raise ConfigError(
            f'{source.id}: case.pattern "{source.case.pattern}" does not match {len(missed)} of {len(names)} case '
            f'names, such as "{missed[0]}". Mend the pattern, or empty it if every case is another patient.'
        )


def _ids(source: Source, tables: Tables, entry: Found) -> tuple[str, str]:
    """(case, patient): as the pattern reads them, else the table, else the layout, else the name itself."""
    match = re.search(source.case.pattern, entry.name) if source.case.pattern else None
    groups = {key: text for key, text in (match.groupdict() if match else {}).items() if text}
    # A file that was passed over beside a case is not that case, which would be refused as one of two.
    case = entry.name if entry.problem == OTHER_CASE else groups.get("case", entry.name)
    return case, groups.get("group") or tables.patient(case, entry) or entry.group or case


def _written(source: Source, identifier: str, namespace: str = "") -> str:
    keep = source.case.identifiers == "keep" and _is_text(identifier)
    return identifier if keep else pseudonym(namespace or source.namespace, identifier)


def _group(source: Source, patient: str, lineage: Lineage) -> str:
    """The patient as all sources know it: by the shared name where lineage has one, else by the source's own."""
    namespace, name = shared_patient(lineage, source.id, patient) or (source.namespace, patient)
    return f"{namespace}:{_written(source, name, namespace)}"


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


def _lost(member: Refused) -> Reject:
    return Reject(
        stage="pair", reason=Reason.CORRUPT, detail=f"a member of its archive was left out: {member.detail}"
    )


def _paths(entry: Found) -> Iterator[Path]:
    for image in entry.images:
        yield from image.paths
    for label in entry.labels:
        yield from label.paths


def _is_text(name: str) -> bool:
    """Whether ``name`` was decoded from UTF-8; Python keeps other bytes as surrogates, which no table holds."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def _case(source: Source, entry: Found, identifier: str, group: str, split: str) -> Case:
    return Case(
        source=source.id, id=identifier, group=group, images=entry.images, labels=entry.labels, split=split
    )


def _size_bytes(root: Path, case: Case, shares: Mapping[Path, int]) -> int:
    """Bytes of the case's files, of a pack its share: cases are bundled by what they cost."""
    return sum(inside.facts(root / path).size_bytes // shares[path] for path in case.paths)
