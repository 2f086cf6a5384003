"""What label values seem to mean: the decoder, its options and the keys of [labels]."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from medcurate.inspection.guess import Guess
from medcurate.inspection.look import Facts

MAX_COLOURS = 32
BRIGHT = 127.0
FEW_VALUES = 8  # of one file that may be structures; soft edges have more

RATERS = (
    "are their words raters who drew the same structures? Then write {rater} for {label} above, "
    'raters = ["…"] and agreement = "majority" here, and values as keys below.'
)
OBJECTS = (
    "is every file one object of the same kind? Where the files of a case are one object together, add "
    'several = "union".'
)
MAJORITY = (
    "are these raters who drew the same structures, and is what most of them drew the label, or the union or the "
    "intersection of it? Where every word is a structure instead, write {label} for {rater} above, no raters, and "
    'decoder = "mask-per-class".'
)
_RATER = re.compile(
    r"(r|rater|reader|annotator|annot|anno|ann|expert|observer|obs|grader|doctor|dr|radiologist|user)([0-9]+|[-_][a-z0-9]+)",
    re.IGNORECASE,
)
_MAYBE_RATER = re.compile(r"[0-9]+|[A-Da-d]")


@dataclass(frozen=True, slots=True)
class Meaning:
    """``keys``: of [labels], with the voxels counted in the sample ("" where unknown). ``raters``: as of [label]."""

    decoder: str
    keys: Mapping[str, str]
    options: Mapping[str, Any] = field(default_factory=dict)
    doubt: str = ""  # what its author has to look at
    raters: tuple[str, ...] = ()


def meaning(guess: Guess, labels: Sequence[Facts]) -> Meaning:
    """A decoder that could read ``labels``, the plainest that can."""
    tokens = guess.candidate.tokens
    if not labels:
        doubt = "no label file could be read: what do they hold?"
        decoder, keys = ("mask-per-class", tokens) if tokens else ("index", ("1",))
        return Meaning(decoder, dict.fromkeys(keys, ""), doubt=doubt)
    if guess.candidate.options.get("several_labels"):
        return Meaning("threshold", {"*": ""}, {"above": BRIGHT if _is_bright(labels) else 0.0}, OBJECTS)
    drawn = {name: count for facts in labels for name, count in facts.structures.items()}
    if drawn and not tokens:
        return Meaning("structures", {name: f"{count} voxels" for name, count in drawn.items()})
    if tokens and all(_RATER.fullmatch(token) for token in tokens):
        found = _of_values(labels)
        return replace(found, raters=tokens, doubt=f"{found.doubt} {MAJORITY}".lstrip())
    return _classes(tokens, labels) if tokens else _of_values(labels)


def _of_values(labels: Sequence[Facts]) -> Meaning:
    bright = _is_bright(labels)
    if any(facts.colours for facts in labels):
        return _colours(labels)
    if any(facts.lossy for facts in labels):
        doubt = "JPEG blurs values: is the mask what is brighter than this?"
        return Meaning("threshold", {"*": ""}, {"above": BRIGHT if bright else 0.0}, doubt)
    if any(facts.values is None for facts in labels):
        return _many(labels)
    return _few(_summed(labels))


def _is_bright(labels: Sequence[Facts]) -> bool:
    return max(facts.high for facts in labels) > BRIGHT


def _classes(tokens: Sequence[str], labels: Sequence[Facts]) -> Meaning:
    """A file a class: nothing but 0 and one value in each, or else a doubt."""
    keys = dict.fromkeys(tokens, "")
    odd = [facts for facts in labels if facts.lossy or facts.colours or len(_foreground(facts)) != 1]
    odd = [facts for facts in odd if facts.high > 0 or facts.low < 0]  # the others are empty
    if not odd:
        doubt = RATERS if all(_MAYBE_RATER.fullmatch(token) for token in tokens) else ""
        return Meaning("mask-per-class", keys, doubt=doubt)
    shown = f"{odd[0].token}: {_some(odd[0])}"
    if any(facts.colours for facts in odd):
        doubt = f"files of one class hold colours, which a build refuses ({shown}): what do they mean?"
        return Meaning("mask-per-class", keys, doubt=doubt)
    if not any(facts.lossy or len(_foreground(facts)) not in range(1, FEW_VALUES + 1) for facts in odd):
        doubt = f"files of one class hold several values, which a build refuses ({shown}); {RATERS}"
        return Meaning("mask-per-class", keys, doubt=doubt)
    return _soft(keys, odd, labels, shown)


def _soft(keys: Mapping[str, str], odd: Sequence[Facts], labels: Sequence[Facts], shown: str) -> Meaning:
    """Masks whose edges fade."""
    high = max(facts.high for facts in odd)
    above = BRIGHT if high > BRIGHT else high / 2
    lost = ", ".join(facts.token for facts in labels if 0 < facts.high <= above)
    doubt = f"edges are blurred ({shown}): is a structure what is brighter than this?"
    doubt += f" {lost} would be lost." if lost else ""
    return Meaning("mask-per-class", keys, {"above": above}, doubt)


def _foreground(facts: Facts) -> list[float]:
    """Values but 0; none where they are too many to count."""
    return [value for value in facts.values or () if value]


def _some(facts: Facts) -> str:
    found = _foreground(facts)
    if len(found) not in range(1, FEW_VALUES + 1):
        return f"{facts.low:g} to {facts.high:g}"
    return ", ".join(f"#{int(value):06x}" if facts.colours else f"{value:g}" for value in found)


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
