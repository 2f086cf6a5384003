"""What sources share: shared names of patients, overlaps inside a recipe, and which source wins."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from medcurate.config.lineage import PATIENT, Lineage, Rule
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
    ``by_ids``: whether ids join the patients of all of them; else only exactly equal voxels do.
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


def overlaps(lineage: Lineage, sources: Collection[str]) -> tuple[Overlap, ...]:
    """The rules that hold between ``sources``, in the order of the file, but for what an earlier one says."""
    found: list[Overlap] = []
    for overlap in _overlaps(lineage, set(sources)):
        if not any(set(overlap.sources) <= set(earlier.sources) for earlier in found):
            found.append(overlap)
    return tuple(found)


def _overlaps(lineage: Lineage, sources: set[str]) -> Iterator[Overlap]:
    for rule in lineage.rules:
        present = tuple(name for name in rule.sources if name in sources)
        if len(present) < 2 or (rule.relation == "derived-from" and present[0] != rule.sources[0]):
            continue
        yield Overlap(rule, present, _beaten(rule, present), set(present) <= set(rule.ids))


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
