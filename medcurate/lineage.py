"""What sources share: shared names of patients, overlaps inside a recipe, and which source wins."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from medcurate.config.lineage import PATIENT, Lineage, Rule
from medcurate.config.source import Source
from medcurate.errors import ConfigError

_COMPLETE = frozenset({"same-patients", "contains"})
_WORDS = {
    "same-patients": "holds the same patients as",
    "contains": "contains",
    "derived-from": "is made of images of",
    "shares-some": "shares patients with",
}


@dataclass(frozen=True, slots=True)
class Overlap:
    """A rule that speaks of several ``sources`` of one recipe (in the rule's order).

    ``losers``: those that the rule's winner stands for; empty where it names no winner, or that is not there.
    ``by_ids``: whether ids join the patients of all of them, by rules or by one namespace of the sources themselves;
    else only exactly equal voxels do.
    """

    rule: Rule
    sources: tuple[str, ...]
    losers: tuple[str, ...]
    by_ids: bool

    @property
    def text(self) -> str:
        """One line for people."""
        first, *others = self.sources
        joined = "patients are joined by their ids" if self.by_ids else "joined only where voxels are equal"
        winner = "".join(f"; {name} wins" for name in self.sources if self.losers and name not in self.losers)
        return f"{first} {_WORDS[self.rule.relation]} {', '.join(others)} ({joined}{winner})"


def overlaps(
    lineage: Lineage, sources: Collection[str], namespaces: Mapping[str, str] | None = None
) -> tuple[Overlap, ...]:
    """The rules that hold between ``sources``, in the order of the file, but for what a stronger one says.

    ``namespaces``: of the sources' own patient ids, by source, where they are not their own.
    """
    found = list(_overlaps(lineage, set(sources), namespaces or {}))
    return tuple(one for one in found if not any(_covers(other, one) for other in found if other is not one))


def patient_names(sources: Iterable[Source]) -> tuple[list[str], dict[str, str]]:
    """The ids of ``sources``, and the namespace of each one's patients: what ``overlaps`` is asked about."""
    known = list(sources)
    return [source.id for source in known], {source.id: source.namespace for source in known}


def _overlaps(lineage: Lineage, sources: set[str], namespaces: Mapping[str, str]) -> Iterator[Overlap]:
    shared = {source: rule.patients for rule in lineage.rules for source in rule.ids}
    for rule in lineage.rules:
        present = tuple(name for name in rule.sources if name in sources)
        if len(present) < 2 or (rule.relation == "derived-from" and present[0] != rule.sources[0]):
            continue
        known_as = {shared.get(name) or namespaces.get(name, name) for name in present}
        yield Overlap(rule, present, _beaten(rule, present), len(known_as) == 1)


def _covers(other: Overlap, one: Overlap) -> bool:
    """Whether ``other`` says all that ``one`` does; whichever comes first in the file, one of two is not covered."""
    if not _pairs(one) <= _pairs(other):
        return False
    return _weakness(other) < _weakness(one)


def _pairs(overlap: Overlap) -> set[frozenset[str]]:
    """Which two sources share something: of a derived set those that it is made of share nothing by that."""
    first, *others = overlap.sources
    if overlap.rule.relation == "derived-from":
        return {frozenset({first, other}) for other in others}
    return {frozenset(pair) for pair in combinations(overlap.sources, 2)}


def _weakness(overlap: Overlap) -> tuple[object, ...]:
    """Smaller for what says more: by the relation, a winner, ids, the number of sources; the rest only decides."""
    rule = overlap.rule
    return (
        list(_WORDS).index(rule.relation),
        not overlap.losers,
        not overlap.by_ids,
        -len(overlap.sources),
        rule.sources,
        rule.note,
    )


def _beaten(rule: Rule, present: tuple[str, ...]) -> tuple[str, ...]:
    """Those that the winner of ``rule`` stands for, among those that are ``present``."""
    winner = rule.wins
    if winner and winner not in present and rule.relation == "contains":
        winner = present[0]  # of a chain of editions the largest that is there holds those inside it
    return tuple(name for name in present if name != winner) if winner in present else ()


def dropped(found: Sequence[Overlap]) -> dict[str, Overlap]:
    """Which sources a recipe without doubles leaves out, and why; a source that lost takes no other along."""
    gone: dict[str, Overlap] = {}
    for overlap in found:
        if any(name not in gone and name not in overlap.losers for name in overlap.sources):
            for name in overlap.losers:
                gone.setdefault(name, overlap)
    return gone


def shared_patient(lineage: Lineage, source: str, patient: str) -> tuple[str, str] | None:
    """(namespace, id) under which several sources know ``patient`` of ``source``; None where none does.

    Raises ConfigError where a rule that speaks of all patients does not understand the id.
    """
    rule = next((rule for rule in lineage.rules if source in rule.ids), None)
    if rule is None:
        return None
    match = re.search(rule.ids[source], patient)
    if match is None:
        if rule.relation in _COMPLETE:
            raise ConfigError(
                f'{source}: the patient "{patient}" does not fit ids.{source} = {rule.ids[source]!r} of '
                "lineage.toml. Mend that pattern, or case.pattern of the source."
            )
        return None
    found = match[PATIENT]
    return rule.patients, (found.lstrip("0") or "0") if found.isdecimal() else found


def group_facts(lineage: Lineage, sources: Sequence[str]) -> dict[str, Mapping[str, str]]:
    """What of ``lineage`` decides the groups of ``sources``: part of a dataset's identity."""
    return {
        source: {"patients": rule.patients, "ids": rule.ids[source]}
        for source in sorted(sources)
        for rule in lineage.rules
        if source in rule.ids
    }
