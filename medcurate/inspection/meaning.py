"""What label values seem to mean: the decoder, its options and the keys of [labels]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from medcurate.inspection.guess import Guess
from medcurate.inspection.look import Facts

MAX_COLOURS = 32
BRIGHT = 127.0


@dataclass(frozen=True, slots=True)
class Meaning:
    """``keys``: of [labels], with the voxels counted in the sample ("" where unknown)."""

    decoder: str
    keys: Mapping[str, str]
    options: Mapping[str, Any] = field(default_factory=dict)
    doubt: str = ""  # what its author has to look at


def meaning(guess: Guess, labels: Sequence[Facts]) -> Meaning:
    """A decoder that could read ``labels``, the plainest that can."""
    if not labels:
        return Meaning("index", {"1": ""}, doubt="no label file could be read: what do they hold?")
    bright = max(facts.high for facts in labels) > BRIGHT
    if guess.candidate.tokens:
        above = {"above": BRIGHT} if bright else {}
        return Meaning("mask-per-class", dict.fromkeys(guess.candidate.tokens, ""), above)
    if any(facts.colours for facts in labels):
        return _colours(labels)
    if any(facts.lossy for facts in labels):
        doubt = "JPEG blurs values: is the mask what is brighter than this?"
        return Meaning("threshold", {"*": ""}, {"above": BRIGHT if bright else 0.0}, doubt)
    if any(facts.values is None for facts in labels):
        return _many(labels)
    return _few(_summed(labels))


def _summed(labels: Sequence[Facts]) -> dict[float, int]:
    counts: dict[float, int] = {}
    for facts in labels:
        for value, count in (facts.values or {}).items():
            counts[value] = counts.get(value, 0) + count
    return dict(sorted(counts.items()))


def _colours(labels: Sequence[Facts]) -> Meaning:
    counts = _summed([facts for facts in labels if facts.colours])
    shown = {f"#{int(value):06x}": f"{count} pixels" for value, count in counts.items() if value}
    if any(facts.values is None for facts in labels) or len(shown) > MAX_COLOURS:
        doubt = "too many colours to be classes: name the real ones, the others are their blurred edges"
        return Meaning("colour-map", {"#ffffff": ""}, {"nearest_within": 60.0}, doubt)
    return Meaning("colour-map", shown or {"#ffffff": ""})


def _many(labels: Sequence[Facts]) -> Meaning:
    if any(facts.dtype.startswith("float") for facts in labels):
        high = max(facts.high for facts in labels)
        doubt = "is this a probability map, and from which value on is it the structure?"
        return Meaning("threshold", {"*": ""}, {"above": high / 2}, doubt)
    doubt = "too many values to be classes: is every value one object of the same kind?"
    return Meaning("instance", {"*": ""}, doubt=doubt)


def _few(counts: Mapping[float, int]) -> Meaning:
    found = {value: count for value, count in counts.items() if value}
    if list(found) == [255.0]:
        return Meaning("threshold", {"*": f"{found[255.0]} voxels"}, {"above": BRIGHT})
    shown = {f"{value:.15g}": f"{count} voxels" for value, count in found.items()}
    if not shown:
        return Meaning("index", {"1": ""}, doubt="all sampled labels are empty: which values do others hold?")
    whole = all(value == int(value) for value in found)
    return Meaning("index" if whole else "value-map", shown)
