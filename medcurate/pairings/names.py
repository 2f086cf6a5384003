"""File names to case names: what stands before and after the part that an image and its label share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from medcurate.pairings.found import Names

CHANNEL = "{channel}"
LABEL = "{label}"


def _listed(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Ending = Annotated[
    str,
    Field(
        min_length=1,
        pattern=r"^([^/]+/?|/)$",
        description='the end of a name, without "/" unless it is the last character',
    ),
]
Suffixes = Annotated[
    tuple[Ending, ...],
    BeforeValidator(_listed),
    Field(min_length=1),
]
"""One ending or several; one that ends in a slash means a folder, all of whose files are one series."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One kind of file: its folder template, what its name starts and ends with, and what it holds."""

    folder: str
    prefix: str
    suffix: str  # may hold ``*``
    token: str = ""  # channel name or label key


@dataclass(frozen=True, slots=True)
class Hit:
    """A file name that a rule explains."""

    stem: str
    rule: Rule


def expand(
    folder: str, prefix: str, suffixes: Sequence[str], placeholder: str, tokens: Sequence[str]
) -> tuple[Rule, ...]:
    """One rule per suffix, and per token where ``placeholder`` stands in the folder or the suffix."""
    rules = []
    for suffix in suffixes:
        if placeholder in folder + suffix:
            rules += [
                Rule(folder.replace(placeholder, token), prefix, suffix.replace(placeholder, token), token)
                for token in tokens
            ]
        else:
            rules.append(Rule(folder, prefix, suffix))
    return tuple(rules)


class Matcher:
    """Finds the rule with the longest ending that explains a file name."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        literal = [rule for rule in rules if "*" not in rule.suffix]
        self._literal = {(rule.prefix, rule.suffix): rule for rule in literal}
        shapes = {(rule.prefix, len(rule.suffix)) for rule in literal}
        self._shapes = sorted(shapes, key=lambda shape: (-len(shape[0]) - shape[1], shape))
        self._starred = [(_pattern(rule), rule) for rule in rules if "*" in rule.suffix]

    def match(self, name: str) -> Hit | None:
        """The hit for ``name``; None where no rule explains it or nothing is left of the name as stem."""
        hits = [
            Hit(found["stem"], rule) for pattern, rule in self._starred if (found := pattern.fullmatch(name))
        ]
        literal = self._match_literal(name)
        return min([literal, *hits] if literal else hits, key=lambda hit: len(hit.stem), default=None)

    def _match_literal(self, name: str) -> Hit | None:
        for prefix, length in self._shapes:
            rule = self._literal.get((prefix, name[-length:]))
            if rule and name.startswith(prefix) and len(name) > len(prefix) + length:
                return Hit(name[len(prefix) : -length], rule)
        return None


def _pattern(rule: Rule) -> re.Pattern[str]:
    """A name with the shortest stem, so that ``*`` stands for as much as it can."""
    end = "[^/]*".join(re.escape(piece) for piece in rule.suffix.split("*"))
    return re.compile(f"{re.escape(rule.prefix)}(?P<stem>[^/]+?){end}", re.DOTALL)


def check_distinct(image: tuple[str, str, Sequence[str]], label: tuple[str, str, Sequence[str]]) -> None:
    """Raise ValueError where a file could be both; each side is (folder, prefix, suffixes)."""
    if image[:2] == label[:2] and set(image[2]) & set(label[2]):
        raise ValueError("images and labels cannot be told apart: same folder, prefix and suffix")


def check_tokens(names: Names, image_templates: Sequence[str], label_templates: Sequence[str]) -> None:
    """Raise ValueError where templates and channels do not fit.

    Channels are either named in file names (``{channel}``) or components of one file, never both.
    """
    named = any(CHANNEL in template for template in image_templates)
    held = [component is not None for component in names.components]
    if any(CHANNEL in template for template in label_templates):
        raise ValueError("{channel} may not stand in what describes labels: channels share their label")
    if any(LABEL in template for template in image_templates):
        raise ValueError("{label} may not stand in what describes images: an image has all labels")
    if any(LABEL in template for template in label_templates) and not names.labels:
        raise ValueError("{label} is used but the source declares no [labels]")
    if named and not names.channels:
        raise ValueError("{channel} is used but the source declares no [[channels]]")
    if named and any(held):
        raise ValueError("{channel} is used but a channel names a component: one file cannot be both")
    if names.channels and not named and not (len(held) == len(names.channels) and all(held)):
        raise ValueError(
            "the source declares [[channels]]: write {channel} where file names differ, "
            "or give every channel its component on the fourth axis"
        )
