"""Classes that a set names in a table of its own: what they are called is looked up in the ontology."""

from __future__ import annotations

from pathlib import Path

from medcurate.config.ontology import Ontology
from medcurate.config.source import Source
from medcurate.config.terms import UNMAPPED, label_called
from medcurate.pairings import PAIRINGS
from medcurate.progress import emit
from medcurate.registry import load

_SHOWN = 12


def with_class_names(source: Source, root: Path, ontology: Ontology) -> Source:
    """``source`` with all classes that its files in ``root`` name among its labels, where it asks for that.

    A class is the label of the ontology that is called like it, and else one without organ, region and code, whose
    id begins with "unmapped:"; those are told. Raises ConfigError, DataMissing.
    """
    if source.label.vocabulary == "declared":
        return source
    labels = dict(source.labels)
    for pairing in source.pairings:
        module = load(PAIRINGS, pairing.kind, "pairing")
        for key, name in module.class_names(root, module.Options(**pairing.options)):
            if key not in labels and name not in source.labels:
                labels[key] = label_called(ontology, name)
    _tell(source, labels)
    return source.model_copy(update={"labels": labels})


def _tell(source: Source, labels: dict[str, str]) -> None:
    unmapped = sorted({
        label.removeprefix(UNMAPPED) for label in labels.values() if label.startswith(UNMAPPED)
    })
    more = len(unmapped) - _SHOWN
    note = ", ".join(unmapped[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
    emit(
        "classes",
        source=source.id,
        named=len(labels),
        unmapped=len(unmapped),
        note=note or "all in the ontology",
    )
