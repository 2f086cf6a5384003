"""Groups and splits: patients are joined by duplicate voxels, then every group goes to one split by a hash.

The share of a group depends on its name and the salt alone, so adding a source moves nobody. Where
duplicates join groups, the one of the earliest source in the recipe gives the name; sources appended
to a recipe therefore keep all earlier assignments.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from medcurate.config.recipe import SplitRule
from medcurate.job.spec import CaseFacts

# When patients joined by duplicates have several official splits, evaluation data stays unseen in training.
_PRECEDENCE = ("test", "val", "train")


@dataclass(frozen=True, slots=True)
class Assignment:
    """Where a case goes. ``own``: its patient's name in its part; ``group``: the name among all sources."""

    source: str
    case: str
    own: str
    group: str
    split: str


def assign(sources: Sequence[tuple[str, Sequence[CaseFacts]]], rule: SplitRule) -> list[Assignment]:
    """Assign every case; ``sources`` in recipe order. Sorted by source and case."""
    leaders = _joined(sources)
    official: dict[str, set[str]] = {}
    for _, facts in sources:
        for fact in facts:
            if rule.official and fact.split:
                official.setdefault(leaders[fact.group], set()).add(fact.split)
    assignments = [
        Assignment(
            source, fact.case, fact.group, leaders[fact.group], _split(leaders[fact.group], official, rule)
        )
        for source, facts in sources
        for fact in facts
    ]
    return sorted(assignments, key=lambda a: (a.source, a.case))


def split_by_hash(group: str, rule: SplitRule) -> str:
    """The split of ``group``: the first 8 bytes of SHA-256(salt, NUL, group) as a share of 2**64."""
    digest = hashlib.sha256(f"{rule.salt}\0{group}".encode()).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    if share < rule.train:
        return "train"
    return "val" if share < rule.train + rule.val or not rule.test else "test"


def _split(group: str, official: Mapping[str, set[str]], rule: SplitRule) -> str:
    declared = official.get(group, set())
    return next((split for split in _PRECEDENCE if split in declared), None) or split_by_hash(group, rule)


def _joined(sources: Sequence[tuple[str, Sequence[CaseFacts]]]) -> dict[str, str]:
    """The leader of every group: the first of those that share a voxel digest, in source order, then by name."""
    order: dict[str, tuple[int, str]] = {}
    by_digest: dict[str, str] = {}
    parents: dict[str, str] = {}
    for number, (_, facts) in enumerate(sources):
        for fact in facts:
            parents.setdefault(fact.group, fact.group)
            order.setdefault(fact.group, (number, fact.group))
            for digest in fact.digests:
                _union(parents, order, fact.group, by_digest.setdefault(digest, fact.group))
    return {group: _leader(parents, group) for group in parents}


def _union(parents: dict[str, str], order: Mapping[str, tuple[int, str]], left: str, right: str) -> None:
    first, second = sorted((_leader(parents, left), _leader(parents, right)), key=order.__getitem__)
    parents[second] = first


def _leader(parents: dict[str, str], group: str) -> str:
    while parents[group] != group:
        parents[group] = parents[parents[group]]
        group = parents[group]
    return group


def joined_groups(
    assignments: Iterable[Assignment], sources: Sequence[tuple[str, Sequence[CaseFacts]]]
) -> int:
    """How many groups lost their own name because their voxels were found in another group."""
    before = {fact.group for _, facts in sources for fact in facts}
    return len(before) - len({assignment.group for assignment in assignments})
