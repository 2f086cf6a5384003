"""What one recipe's sources share with another's: whether a test set was trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from medcurate.config.lineage import Lineage
from medcurate.config.source import Source
from medcurate.lineage import Overlap, overlaps, patient_names


@dataclass(frozen=True, slots=True, kw_only=True)
class Against:
    """``in_both``: sources of both recipes. ``overlaps``: rules that join a source of one to one of the other."""

    recipe: str
    in_both: tuple[str, ...]
    overlaps: tuple[Overlap, ...]

    def lines(self) -> Iterator[str]:
        """One line a finding, or one that says that there is none."""
        for source in self.in_both:
            yield f"against {self.recipe}: {source} is a source of both"
        for overlap in self.overlaps:
            yield f"against {self.recipe}: {overlap.text}"
        if not self.in_both and not self.overlaps:
            yield f"against {self.recipe}: no rule of lineage.toml joins a source of one to one of the other"


def compare(lineage: Lineage, ours: Sequence[Source], recipe: str, others: Sequence[Source]) -> Against:
    """Look at pairs, so that a rule about many sets names the two that meet."""
    mine, theirs = [source.id for source in ours], [source.id for source in others]
    _, namespaces = patient_names([*ours, *others])
    both = [source for source in mine if source in theirs]
    found: list[Overlap] = []
    for source in (source for source in mine if source not in both):
        rest = [other for other in theirs if other not in both]
        for overlap in overlaps(lineage, [source, *rest], namespaces):
            if source in overlap.sources:
                found.append(overlap)
    return Against(recipe=recipe, in_both=tuple(both), overlaps=tuple(found))
