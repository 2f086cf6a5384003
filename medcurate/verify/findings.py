"""What verification finds: every problem counted, the first ones kept."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

SHOWN_PROBLEMS = 200


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: in which file (relative to the dataset), what, and how to mend it."""

    file: str
    what: str
    remedy: str


@dataclass(slots=True)
class Findings:
    """A list of problems that never grows beyond ``limit``; ``count`` goes on."""

    limit: int = SHOWN_PROBLEMS
    problems: list[Problem] = field(default_factory=list)
    count: int = 0

    def add(self, file: str, what: str, remedy: str) -> None:
        """Note one problem."""
        self.merge([Problem(file, what, remedy)], 1)

    def merge(self, problems: Iterable[Problem], count: int) -> None:
        """Note the problems of another list that counted ``count``."""
        self.count += count
        self.problems.extend(list(problems)[: self.limit - len(self.problems)])


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome: ``problems`` holds the first of ``count``; the rest says what was looked at."""

    problems: tuple[Problem, ...]
    count: int
    files: int
    size_bytes: int
    samples: int
    masks: int
