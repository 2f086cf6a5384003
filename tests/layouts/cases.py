"""Which cases a generated tree holds: names that the source's own pattern reads ids and patients from."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice

from layouts.automaton import drawn
from layouts.shapes import Shape
from medcurate.config.source import Source

PATIENTS = 3


@dataclass(frozen=True)
class Name:
    """A case as the pairing names it, and what the pattern makes of that: its id and its patient.

    ``own``: the patient that the name itself says, before any table and layout.
    """

    text: str
    case: str
    patient: str
    own: str = ""


def read_name(source: Source, text: str, by_layout: str = "") -> Name:
    """The documented rule: group ``case`` or the whole name; group ``group``, what the layout says, or the case."""
    match = re.search(source.case.pattern, text)
    assert match, f"{source.id}: {source.case.pattern!r} finds nothing in {text!r}"
    groups = {name: found for name, found in match.groupdict().items() if found}
    case = groups.get("case", text)
    own = groups.get("group", "")
    return Name(text, case, own or by_layout or case, own)


def names(source: Source, shape: Shape, number: int, taken: set[str], selected: str = "") -> list[Name]:
    """Cases of up to three patients, the first with two where names can say so; ``taken``: ids in use.

    ``number``: of the pairing, so that each draws others; ``selected``: what its names must show.
    """
    if shape.names:
        fixed = [read_name(source, text, shape.patient_of(text)) for text in shape.names]
        fixed = [name for name in fixed if name.case not in taken]
        taken.update(name.case for name in fixed)
        return [name for name in fixed if re.search(selected, name.text)]
    seed = zlib.crc32(f"{source.id}/{number}".encode())
    draw = partial(_fresh, source, shape, selected)
    found = draw(seed, taken)
    first = next(found, None)
    assert first, (
        f"{source.id}: no name fits both {shape.structure!r} and case.pattern {source.case.pattern!r}"
    )
    chosen = [first]
    if "group" in re.compile(source.case.pattern).groupindex and first.patient != first.text:
        others = draw(seed + 1, {*taken, first.case}, {"group": first.patient})
        chosen += islice((name for name in others if name.patient == first.patient), 1)
    for name in islice(found, 400):
        if len({entry.patient for entry in chosen}) == PATIENTS:
            break
        if name.patient not in {entry.patient for entry in chosen}:
            chosen.append(name)
    taken.update(entry.case for entry in chosen)
    return chosen


def _fresh(
    source: Source,
    shape: Shape,
    selected: str,
    seed: int,
    taken: set[str],
    fixed: dict[str, str] | None = None,
) -> Iterator[Name]:
    """Names with ids that are neither in use nor errata; no two are the same file on any file system."""
    used = {text.casefold() for text in (*taken, *(erratum.case for erratum in source.errata))}
    for text in drawn(shape.structure, source.case.pattern, seed, fixed, selected):
        name = read_name(source, text, shape.patient_of(text))
        if name.case.casefold() not in used:
            used.add(name.case.casefold())
            yield name
