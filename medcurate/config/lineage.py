"""The ``Lineage`` model: which sources hold the same patients, and by which ids those correspond."""

from __future__ import annotations

import re
from collections import Counter
from typing import Annotated, Literal

from pydantic import Field, model_validator

from medcurate.config.source import Id
from medcurate.tables import Strict

Relation = Literal["same-patients", "contains", "derived-from", "shares-some"]
PATIENT = "patient"
"""The named group of a pattern of ``ids``."""


class Rule(Strict):
    """One overlap of ``sources``.

    ``same-patients``: all hold the same patients. ``contains``: each holds all patients of those named after
    it. ``derived-from``: the images of the first come from the others. ``shares-some``: some patients are in
    several of them.

    ``wins``: the source that stays where a recipe wants no patient twice; "" where neither can stand for the
    other. ``patients``: the namespace of the patients that all sources of ``ids`` share; ``ids``: by source, a
    regular expression that is searched in the source's own patient id and whose group ``patient`` is the
    shared one (digits lose leading zeros).
    """

    relation: Relation
    sources: Annotated[tuple[Id, ...], Field(min_length=2)]
    wins: str = ""
    patients: str = ""
    ids: dict[str, str] = Field(default={})
    note: str = ""
    evidence: Annotated[tuple[str, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _fitting(self) -> Rule:
        named = {*self.ids, *({self.wins} if self.wins else ())}
        if strange := sorted(named - set(self.sources)):
            raise ValueError(f"{', '.join(strange)}: not among sources")
        if len(set(self.sources)) < len(self.sources):
            raise ValueError("a source is named twice")
        if bool(self.patients) != bool(self.ids):
            raise ValueError("patients and ids go together")
        for source, pattern in self.ids.items():
            _check_pattern(source, pattern)
        return self


def _check_pattern(source: str, pattern: str) -> None:
    try:
        groups = re.compile(pattern).groupindex
    except re.error as error:
        raise ValueError(f"ids.{source}: not a regular expression: {error}") from error
    if set(groups) != {PATIENT}:
        raise ValueError(f"ids.{source}: needs the named group (?P<{PATIENT}>…) and no other")


class Lineage(Strict):
    """``manifests/lineage.toml``. ``sets``: every set that a rule names, with its title."""

    sets: dict[Id, str]
    rules: tuple[Rule, ...]

    @model_validator(mode="after")
    def _consistent(self) -> Lineage:
        unknown = sorted({name for rule in self.rules for name in rule.sources} - set(self.sets))
        if unknown:
            raise ValueError(f"{', '.join(unknown)}: named by a rule but not in [sets]")
        counts = Counter(source for rule in self.rules for source in rule.ids)
        if twice := [source for source, count in counts.items() if count > 1]:
            raise ValueError(f"{', '.join(twice)}: has ids in two rules; a patient has one shared name")
        return self


NO_LINEAGE = Lineage(sets={}, rules=())
