"""What the cases that were read hold together: bounded, however many they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from medcurate.inspection.guess import Guess
from medcurate.inspection.look import VALUES_LISTED, Facts, Look, look, sample

PROBLEMS_KEPT = 20

Kind = tuple[object, ...]


@dataclass(slots=True)
class Digest:
    """``shown``: the sampled cases. ``problems``: (case, problem), the first ``PROBLEMS_KEPT``.

    ``images``, ``labels``: facts of files that are alike but for their grid, put together: the shape and
    spacing of the first, the extremes and the counted values of all.
    """

    usable_count: int
    read_count: int = 0
    doubtful_count: int = 0  # cases with problems
    shown: list[Look] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)
    _images: dict[Kind, Facts] = field(default_factory=dict)
    _labels: dict[Kind, Facts] = field(default_factory=dict)

    @property
    def images(self) -> list[Facts]:
        """One entry for all image files of a kind."""
        return list(self._images.values())

    @property
    def labels(self) -> list[Facts]:
        """One entry for all label files of a kind."""
        return list(self._labels.values())

    def add(self, seen: Look) -> None:
        """Count one case."""
        self.read_count += 1
        self.doubtful_count += bool(seen.problems)
        self.problems += [(seen.name, problem) for problem in seen.problems]
        del self.problems[PROBLEMS_KEPT:]
        for facts in seen.images:
            _join(self._images, facts)
        for facts in seen.labels:
            _join(self._labels, facts)


def read(root: Path, guess: Guess, *, every: bool = False, tick: Callable[[], None] = lambda: None) -> Digest:
    """Read a sample of the usable cases, or ``every`` one with all its files; ``tick`` after each."""
    chosen = sample(guess)
    digest = Digest(len(guess.usable))
    for place in range(len(guess.usable)) if every else chosen:
        seen = look(root, guess.usable[place], whole=every)
        digest.add(seen)
        if place in chosen:
            digest.shown.append(seen)
        tick()
    return digest


def _join(table: dict[Kind, Facts], facts: Facts) -> None:
    components = facts.shape[len(facts.grid_shape) :]
    flat = facts.affine is None
    options = str(facts.options)
    kind = (facts.token, facts.reader, facts.lossy, facts.dtype, facts.colours, components, flat, options)
    first = table.get(kind)
    if first is None:
        table[kind] = facts
        return
    low, high = float(np.fmin(first.low, facts.low)), float(np.fmax(first.high, facts.high))
    names = dict.fromkeys((*first.structures, *facts.structures))
    structures = {name: first.structures.get(name, 0) + facts.structures.get(name, 0) for name in names}
    values = _summed(first.values, facts.values)
    table[kind] = replace(first, low=low, high=high, values=values, structures=structures)


def _summed(first: Mapping[float, int] | None, more: Mapping[float, int] | None) -> dict[float, int] | None:
    if first is None or more is None:
        return None
    counts = {value: first.get(value, 0) + more.get(value, 0) for value in sorted(first.keys() | more.keys())}
    return counts if len(counts) <= VALUES_LISTED else None
