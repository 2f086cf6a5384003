"""Which part of a case's name may be the patient: patterns that join some cases, with what each would do."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medcurate.pairings.found import Found

OWN = {"dicom-tree": "the Patient ID of their headers", "bids-derivatives": "the subject"}
"""What the patient is by pairings that know it."""
FIRST_NUMBER = r"^(?P<group>[A-Za-z]*[_. -]?[0-9]+)"
PATTERNS = (
    r"^(?P<group>.+)/[^/]+$",  # the folder
    FIRST_NUMBER,  # the first word with its number
    r"^(?P<group>.+?)[_. -]+[0-9]+$",  # all but a number at the end
    r"^(?P<group>.+?)[_. -]+[A-Za-z]+[0-9]*$",  # all but a word at the end
    r"^(?P<group>[^_. /-]+)",  # the first word
)
_ANY_NAME = "^"
PATIENTS_NAMED = 4
CASES_NAMED = 3  # of a patient


@dataclass(frozen=True, slots=True)
class Grouping:
    """What a pattern of [case] makes of the cases: patient -> names of cases."""

    pattern: str
    patients: Mapping[str, Sequence[str]]


def known(found: Sequence[Found]) -> list[str]:
    """The patients by the pairing's own word, sorted; none where it has no word for every case."""
    patients = {entry.group for entry in found}
    return [] if "" in patients else sorted(patients)


def groupings(names: Sequence[str]) -> list[Grouping]:
    """Patterns by which ``names`` are fewer patients than cases, and more than one; finest first.

    A build refuses a pattern that misses a name: where one here does, it goes on with an alternative that any name fits
    and that makes it a patient of its own.
    """
    found: dict[frozenset[tuple[str, ...]], Grouping] = {}
    for first in PATTERNS:
        pattern = first if all(re.search(first, name) for name in names) else f"{first}|{_ANY_NAME}"
        patients = _patients(pattern, names)
        if 1 < len(patients) < len(names):
            joined = frozenset(tuple(cases) for cases in patients.values())
            found.setdefault(joined, Grouping(pattern, patients))
    return sorted(found.values(), key=lambda grouping: -len(grouping.patients))


def _patients(pattern: str, names: Sequence[str]) -> dict[str, list[str]]:
    """As the build reads them: a name without the group is a patient of its own."""
    compiled = re.compile(pattern)
    patients: dict[str, list[str]] = {}
    for name in names:
        match = compiled.search(name)
        patients.setdefault((match and match["group"]) or name, []).append(name)
    return patients


def summary(grouping: Grouping) -> str:
    """The grouping in one line without names."""
    cases = sum(map(len, grouping.patients.values()))
    return f"with '{grouping.pattern}' these {cases:,} cases are {len(grouping.patients):,} patients"


def example(grouping: Grouping) -> str:
    """The grouping in one line with some of the names, those of the largest patients."""
    largest = sorted(grouping.patients, key=lambda patient: -len(grouping.patients[patient]))[:PATIENTS_NAMED]
    told = [f"{patient} ({_some(grouping.patients[patient], CASES_NAMED)})" for patient in largest]
    rest = len(grouping.patients) - len(told)
    return f"{summary(grouping)}: {', '.join(told)}{f', and {rest:,} more' if rest else ''}"


def single(name: str) -> str:
    """What a pattern is, shown on one name, where no pattern here joins any cases."""
    fitting = (one for one in (FIRST_NUMBER, *PATTERNS) if re.search(one, name))
    pattern = next(fitting, f"{FIRST_NUMBER}|{_ANY_NAME}")
    return f"with '{pattern}' the patient of {name} is {next(iter(_patients(pattern, [name])))}"


def _some(names: Sequence[str], count: int) -> str:
    return ", ".join(names[:count]) + (", …" if len(names) > count else "")
