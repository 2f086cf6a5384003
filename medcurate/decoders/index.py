"""Integers in the label file stand for structures: the value of a voxel is a key of [labels]."""

from __future__ import annotations

from collections.abc import Mapping

from medcurate.config.source import Strict
from medcurate.decoders.values import Stored, as_integers, refuse_undeclared, stored
from medcurate.types import LabelFiles, LabelLayer


class Options(Strict):
    """``ignore``: values that may occur and are background; 0 needs no mention unless [labels] maps it."""

    ignore: tuple[int, ...] = ()


def check(labels: Mapping[str, str]) -> None:
    """Raise ValueError unless every key is an integer as Python writes it ("1", "-1")."""
    for key in labels:
        if not _is_integer(key):
            raise ValueError(
                f'"{key}" is not an integer of 64 bits; keys of [labels] are the values in the label file'
            )


def decode(files: LabelFiles, labels: Mapping[str, str], options: Options) -> tuple[LabelLayer, ...]:
    """One layer a file. Raises CaseRejected (BAD_LABEL).

    Integer voxels are not copied: where the file has a slope and an intercept the layer's ``terms`` are
    keyed by stored values, which are exact. Floats must hold whole numbers and become the smallest integer
    type that holds the declared values.
    """
    declared = sorted({0, *options.ignore, *(int(key) for key in labels)})
    layers = []
    for _, volume in files:
        content = stored(volume)
        refuse_undeclared(content, declared)
        layers.append(
            LabelLayer(
                labels=as_integers(content.voxels, declared),
                terms=_terms(content, {int(key): term for key, term in labels.items()}),
            )
        )
    return tuple(layers)


def _terms(content: Stored, labels: Mapping[int, str]) -> dict[int, str]:
    numbers = {content.label(value): term for value, term in labels.items()}
    return {int(number): term for number, term in numbers.items() if number.denominator == 1}


def _is_integer(key: str) -> bool:
    try:
        return str(int(key)) == key and abs(int(key)) < 1 << 63
    except ValueError:
        return False
