"""What a check found: facts for a table, and what is off."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

SHOWN = 20
"""Cases of one kind of finding that are named."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is off: ``about`` (declaration, files, pairs, errata, counts, case, labels), and what."""

    about: str
    text: str


@dataclass(slots=True)
class Checked:
    """One source against its files. ``shown``: in how many of the ``read`` cases each key's label was seen."""

    source: str
    folder: str = ""
    discovered: int = 0
    usable: int = 0
    patients: int = 0
    read: int = 0
    declared_cases: int | None = None
    shown: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)

    def add(self, about: str, text: str) -> None:
        """Note something that is off."""
        self.findings.append(Finding(about, text))
