"""Which cases a generated tree holds: names that the source's own pattern reads ids and patients from."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from layouts.automaton import drawn
from medcurate.config.source import Source

PATIENTS = 3


@dataclass(frozen=True)
class Name:
    """A case as the pairing names it, and what the pattern makes of that: its id and its patient."""

    text: str
    case: str
    patient: str


def read_name(source: Source, text: str) -> Name:
    """The documented rule: group ``case`` or the whole name; group ``group`` or the case."""
    match = re.search(source.case.pattern, text)
    assert match, f"{source.id}: {source.case.pattern!r} finds nothing in {text!r}"
    groups = {name: found for name, found in match.groupdict().items() if found}
    case = groups.get("case", text)
    return Name(text, case, groups.get("group", case))


def names(source: Source, structure: str, number: int, taken: set[str]) -> list[Name]:
    """Cases of up to three patients, the first with two where names can say so; ``taken``: ids in use.

    ``structure``: what a pairing's names look like; ``number``: of the pairing, so that each draws others.
    """
    seed = zlib.crc32(f"{source.id}/{number}".encode())
    found = _fresh(source, structure, seed, taken)
    first = next(found, None)
    assert first, f"{source.id}: no name fits both {structure!r} and case.pattern {source.case.pattern!r}"
    chosen = [first, *_again(source, structure, seed, first, taken)]
    for name in islice(found, 400):
        if len({entry.patient for entry in chosen}) == PATIENTS:
            break
        if name.patient not in {entry.patient for entry in chosen}:
            chosen.append(name)
    taken.update(entry.case for entry in chosen)
    return chosen


def _fresh(
    source: Source, structure: str, seed: int, taken: set[str], fixed: dict[str, str] | None = None
) -> Iterator[Name]:
    """Names with ids that are neither in use nor errata; no two are the same file on any file system."""
    used = {text.casefold() for text in (*taken, *(erratum.case for erratum in source.errata))}
    for text in drawn(structure, source.case.pattern, seed, fixed):
        name = read_name(source, text)
        if name.case.casefold() not in used:
            used.add(name.case.casefold())
            yield name


def _again(source: Source, structure: str, seed: int, first: Name, taken: set[str]) -> list[Name]:
    """A second case of ``first``'s patient; none where a name cannot say so."""
    if "group" not in re.compile(source.case.pattern).groupindex or first.patient == first.text:
        return []
    others = _fresh(source, structure, seed + 1, {*taken, first.case}, {"group": first.patient})
    return list(islice((name for name in others if name.patient == first.patient), 1))
