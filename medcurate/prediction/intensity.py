"""Which intensity rule an input gets: the one stated, or that of the data that the model was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from medcurate.config.recipe import Intensity, Rgb
from medcurate.config.source import Strict
from medcurate.errors import ConfigError
from medcurate.stages.intensity import rule_for
from medcurate.tables import check_model

_KEYS = {
    "clip": ("low", "high"),
    "window": ("level", "width"),
    "percentiles": ("low", "high", "voxels"),
    "minmax": (),
    "rgb": (),
}
"""Rule and what follows it on the command line, in order."""


class _Holder(Strict):
    intensity: Intensity


def parse_rule(text: str) -> Intensity:
    """ "clip:-500:1000", "window:40:400", "percentiles:0.5:99.5:nonzero", "minmax" or "rgb". Raises ConfigError."""
    name, *values = text.split(":")
    if name not in _KEYS or len(values) > len(_KEYS[name]):
        raise ConfigError(
            f'--intensity "{text}" is unknown; known: clip:LOW:HIGH, window:LEVEL:WIDTH, percentiles:LOW:HIGH, '
            "percentiles:LOW:HIGH:nonzero, minmax, rgb"
        )
    given = {key: _number(value) for key, value in zip(_KEYS[name], values, strict=False)}
    return check_model({"intensity": {"rule": name, **given}}, _Holder, f'--intensity "{text}"').intensity


def choose_rule(stated: str, modality: str, of_training: Mapping[str, Any], *, picture: bool) -> Intensity:
    """``stated`` (--intensity) if given, else the rule of ``of_training`` for ``modality`` or its default.

    ``of_training``: the recipe's ``[intensity]``, empty where it is not known; 8-bit pictures then stay as they are.
    Raises ConfigError where nothing says what to do.
    """
    if stated:
        return parse_rule(stated)
    rules = TypeAdapter(dict[str, Intensity]).validate_python(dict(of_training))
    if not rules:
        if picture:
            return Rgb(rule="rgb")
        raise ConfigError(
            "the checkpoint does not say how its training data became grey: give --intensity, such as clip:-500:1000 "
            "for CT as MedSAM clips it, or percentiles:0.5:99.5"
        )
    if modality not in rules and "default" not in rules:
        given = f'none for "{modality}"' if modality else "no default"
        raise ConfigError(
            f"the training data has an intensity rule for each modality and {given}: give --modality, one of "
            f"{', '.join(sorted(rules))}, or --intensity"
        )
    return rule_for(modality, rules)


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
