"""Which of a recipe's sources are used: those whose licence allows what is wanted, and no patient twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from medcurate.config.lineage import Lineage
from medcurate.config.recipe import LineageRule
from medcurate.config.source import UNRESOLVED, Licence, Source
from medcurate.errors import ConfigError
from medcurate.lineage import Overlap, dropped, overlaps, patient_names

Use = Literal["any", "share-alike", "commercial"]
USES: tuple[Use, ...] = get_args(Use)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A source of the recipe that is not used; ``why`` is a sentence's end: "its licence …"."""

    source: str
    why: str


@dataclass(frozen=True, slots=True)
class Choice:
    """``sources`` in the recipe's order; ``overlaps`` between all whose licence fits."""

    sources: tuple[Source, ...]
    left_out: tuple[LeftOut, ...] = ()
    overlaps: tuple[Overlap, ...] = ()


def allows(licence: Licence, use: Use) -> bool:
    """Whether ``licence`` says yes to ``use``; unknown is no.

    ``commercial``: commercial use. ``share-alike``: that what is made of it may be passed on, if only under
    the same terms. ``any``: always.
    """
    answers = {"any": "yes", "commercial": licence.commercial, "share-alike": licence.redistribute}
    return answers[use] == "yes"


def needs_acceptance(source: Source) -> bool:
    """Whether somebody must have agreed to something: access that is not open, or terms nobody looked up.

    Files that a lab put in place itself (no [[files]] and no [[folders]]) are its own matter.
    """
    return source.access != "open" or (
        source.licence.id == UNRESOLVED and bool(source.files or source.folders)
    )


def fitting(sources: Sequence[Source], use: Use) -> tuple[tuple[Source, ...], tuple[LeftOut, ...]]:
    """Those whose licence allows ``use``, and the others. Raises ConfigError where none is left."""
    kept = tuple(source for source in sources if allows(source.licence, use))
    left_out = tuple(
        LeftOut(source.id, _licence_text(source.licence, use))
        for source in sources
        if not allows(source.licence, use)
    )
    if not kept:
        names = ", ".join(entry.source for entry in left_out)
        raise ConfigError(
            f"--licence {use}: no source is left; left out: {names}. Licences: medcurate sources"
        )
    return kept, left_out


def choose(sources: Sequence[Source], use: Use, lineage: Lineage, rule: LineageRule) -> Choice:
    """Apply the licence filter, then the recipe's ``lineage`` rule.

    Raises ConfigError where ``rule`` is "refuse" and sources share patients, and where nothing is left.
    """
    kept, left_out = fitting(sources, use)
    found = overlaps(lineage, *patient_names(kept))
    if found and rule == "refuse":
        lines = "\n  ".join(overlap.text for overlap in found)
        raise ConfigError(
            f'lineage = "refuse", but sources share patients:\n  {lines}\nTake one of each out of sources, '
            'or write lineage = "drop" or "warn".'
        )
    if rule == "drop":
        gone = dropped(found)
        left_out += tuple(LeftOut(source, overlap.text) for source, overlap in gone.items())
        kept = tuple(source for source in kept if source.id not in gone)
    return Choice(kept, left_out, found)


def _licence_text(licence: Licence, use: Use) -> str:
    asked, answer = (
        ("commercial use", licence.commercial)
        if use == "commercial"
        else ("passing copies on", licence.redistribute)
    )
    return f"its licence is {licence.id}; {asked}: {answer}"
