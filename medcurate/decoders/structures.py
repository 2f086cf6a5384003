"""Named structures that a reader of drawings gives: segments, contours, regions; keys of [labels] are their names.

A structure goes by the first of its names that is a key of [labels]; one that has none there is what "*"
stands for, where [labels] has it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import numpy as np

from medcurate.config.source import Strict
from medcurate.errors import CaseRejected, Reason
from medcurate.types import Array, LabelDrawings, LabelFile, LabelLayer, Patch, Reference, Structure

DRAWN = True
"""Takes drawings, not volumes."""

ANY = "*"


class Options(Strict):
    """``objects``: every structure is one object, whole (nuclei); else those of one label are one together.

    ``ignore``: names, with ``*``, of structures that are background. ``fold_case``: capitals and blanks at the
    ends of names do not matter.
    """

    objects: bool = False
    ignore: tuple[str, ...] = ()
    fold_case: bool = False


def check(labels: Mapping[str, str]) -> None:
    """Raise ValueError where a key is no name."""
    for key in labels:
        if not key.strip():
            raise ValueError("an empty key names no structure")


def decode(files: LabelDrawings, labels: Mapping[str, str], options: Options) -> tuple[LabelLayer, ...]:
    """Disjoint structures share a layer, overlapping ones keep all their voxels; at least one layer.

    Raises CaseRejected (BAD_LABEL) for a structure that is neither declared nor ignored.
    """
    names = _Names(labels, options)
    canvas = _Canvas(objects=options.objects)
    for file, drawing in files:
        canvas.reference = canvas.reference or drawing.reference
        for structure in drawing.structures:
            term = names.term(structure, file)
            patch = structure.paint() if term else None
            if term and patch is not None:
                canvas.add(term, patch)
    return canvas.layers()


class _Names:
    """What structures are called, and what that means."""

    def __init__(self, labels: Mapping[str, str], options: Options) -> None:
        self._fold = options.fold_case
        self._terms = {self._plain(key): term for key, term in labels.items()}
        self._ignored = [self._plain(pattern) for pattern in options.ignore]

    def term(self, structure: Structure, file: LabelFile) -> str:
        """The ontology label of a structure, "" for what is ignored."""
        names = [self._plain(name) for name in (*structure.names, file.label) if name]
        for name in names:
            if name in self._terms:
                return self._terms[name]
        if any(fnmatchcase(name, pattern) for name in names for pattern in self._ignored):
            return ""
        if ANY in self._terms:
            return self._terms[ANY]
        # A name is free text of the file and is not repeated.
        detail = "a structure has a name that is neither in [labels] nor in the decoder's option ignore"
        raise CaseRejected(Reason.BAD_LABEL, detail)

    def _plain(self, name: str) -> str:
        return name.strip().casefold() if self._fold else name


@dataclass(slots=True)
class _Layer:
    labels: Array
    terms: dict[int, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Canvas:
    """Layers that patches are put on, each on the first where it covers nothing else."""

    objects: bool
    reference: Reference | None = None
    found: dict[str, list[_Layer]] = field(default_factory=dict)  # by term where structures are objects
    values: dict[str, int] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, term: str, patch: Patch) -> None:
        self.counts[term] += 1
        value = self.counts[term] if self.objects else self.values.setdefault(term, len(self.values) + 1)
        layers = self.found.setdefault(term if self.objects else "", [])
        window = tuple(slice(at, at + size) for at, size in zip(patch.start, patch.mask.shape, strict=True))
        layer = next((layer for layer in layers if _has_room(layer.labels[window], patch, value)), None)
        if layer is None:
            layer = _Layer(self._blank(np.uint16 if self.objects else np.uint8))
            layers.append(layer)
        if value > np.iinfo(layer.labels.dtype).max:
            layer.labels = layer.labels.astype(np.uint32)
        np.copyto(layer.labels[window], value, where=patch.mask, casting="unsafe")
        layer.terms[0 if self.objects else value] = term

    def layers(self) -> tuple[LabelLayer, ...]:
        return tuple(self._finished()) or (LabelLayer(labels=self._blank(np.uint8), terms={}),)

    def _finished(self) -> Iterator[LabelLayer]:
        for layers in self.found.values():
            for layer in layers:
                yield LabelLayer(labels=layer.labels, terms=layer.terms, instances=self.objects)

    def _blank(self, dtype: type[np.unsignedinteger]) -> Array:
        """Zeros of the image's shape; volumes with their first axis fastest, as readers give images."""
        if self.reference is None:
            raise CaseRejected(Reason.UNPAIRED, "the case has no label file")
        shape = self.reference.shape
        return np.zeros(shape, dtype, order="F" if self.reference.affine is not None else "C")


def _has_room(window: Array, patch: Patch, value: int) -> bool:
    taken = window[patch.mask]
    return not taken.any() or bool(((taken == 0) | (taken == value)).all())
