"""One channel numbers the objects, another says of what class each is (CoNIC)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import numpy as np
from pydantic import Field, model_validator

from medcurate.config.source import Strict
from medcurate.decoders import index
from medcurate.decoders.instance_parts import by_term, channels, ids, undeclared
from medcurate.errors import CaseRejected, Reason
from medcurate.types import Array, LabelFiles, LabelLayer

Channel = Annotated[int, Field(ge=0)]

OBJECTS = True  # values number objects


class Options(Strict):
    """``instances`` and ``classes``: the channels, from 0. ``ignore``: classes that are no structure."""

    instances: Channel = 0
    classes: Channel = 1
    ignore: tuple[int, ...] = ()

    @model_validator(mode="after")
    def _two(self) -> Options:
        if self.instances == self.classes:
            raise ValueError("instances and classes are the same channel")
        return self


def check(labels: Mapping[str, str]) -> None:
    """Raise ValueError unless every key is a whole number: a value of the channel of classes."""
    index.check(labels)


def decode(files: LabelFiles, labels: Mapping[str, str], options: Options) -> tuple[LabelLayer, ...]:
    """One layer a file and label, ids as stored.

    Raises CaseRejected (BAD_LABEL) for undeclared classes and for an object of two classes or of none.
    """
    terms = {int(key): term for key, term in labels.items()}
    layers: list[LabelLayer] = []
    for _, volume in files:
        found = channels(volume)
        if max(options.instances, options.classes) >= len(found):
            raise CaseRejected(Reason.BAD_LABEL, f"the label has only {len(found)} channels")
        objects, classes = ids(found[options.instances]), ids(found[options.classes])
        layers += by_term(objects, _terms(objects, classes, terms, options.ignore))
    return tuple(layers)


def _terms(
    objects: Array, classes: Array, terms: Mapping[int, str], ignore: tuple[int, ...]
) -> dict[int, str]:
    """The label of every object."""
    drawn = objects != 0
    numbers, first, place = np.unique(objects[drawn], return_index=True, return_inverse=True)
    inside = classes[drawn]
    of_object = inside[first]
    torn = of_object[place] != inside
    if torn.any():
        raise CaseRejected(
            Reason.BAD_LABEL, "an object has two classes", {"count": len(np.unique(place[torn]))}
        )
    for value in np.unique(of_object).tolist():
        if value not in terms and value not in ignore:
            raise undeclared("class", value, int((inside == value).sum()))
    named = zip(numbers.tolist(), of_object.tolist(), strict=True)
    return {number: terms[value] for number, value in named if value in terms}
