"""Pairings backwards: from a case's name to where its files lie. One function a kind, in ``SHAPES``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from medcurate.config.source import Source
from medcurate.config.table import Table

FIRST = "[^/.]"  # of a visible name
CHANNEL, LABEL = "{channel}", "{label}"
FILLER = "x7"  # for a wildcard that no case's name speaks of


@dataclass(frozen=True)
class Place:
    """One file, or a folder of a series (``path`` ends in a slash); ``entry``: which one inside a pack."""

    path: str
    entry: str = ""


@dataclass
class Placed:
    """The files of a case: images by channel ("" without channels), labels by key ("" for all keys)."""

    images: dict[str, Place] = field(default_factory=dict)
    labels: dict[str, list[Place]] = field(default_factory=dict)
    texts: list[tuple[Place, str]] = field(default_factory=list)  # of arrays that say something of a row


@dataclass(frozen=True)
class Shape:
    """``structure``: a pattern of all names of cases. ``place``: a name that fits it, as a match, to files.

    ``place`` is also given a running number, so that sets with several endings show each of them.
    ``several``: how many label files of one key a case may have. ``names``: all names, where they are not free.
    ``patients`` (by name), ``patient``: what the layout itself says of the patient.
    ``keys`` (by name): the only class that a case shows, where classes have pictures of their own.
    ``files``: what the set ships besides, by path.
    ``table``, ``rows`` (by name), ``splits`` (by name): what a table that names the cases must say.
    """

    structure: str
    place: Callable[[re.Match[str], int], Placed]
    several: int = 1
    names: tuple[str, ...] = ()
    patients: Mapping[str, str] = field(default_factory=dict)
    patient: Callable[[re.Match[str]], str] | None = None
    keys: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    table: Table | None = None
    rows: Mapping[str, dict[str, str]] = field(default_factory=dict)
    splits: Mapping[str, str] = field(default_factory=dict)

    def patient_of(self, name: str) -> str:
        """The patient by the layout, "" where it says nothing."""
        match = re.fullmatch(self.structure, name)
        return self.patient(match) if self.patient and match else self.patients.get(name, "")


def channels(source: Source) -> tuple[str, ...]:
    """Channels that have files of their own."""
    return tuple(c.name for c in source.channels if c.component is None) or ("",)


def template_pattern(template: str, group: str) -> str:
    """What ``template`` matches; each wildcard is a named group ``<group>0``, ``<group>1``, …"""
    made, number = [], 0
    for part in PurePosixPath(template).parts:
        pieces = ["*"] if part == "**" else re.split(r"(\*)", part)
        text = ""
        for piece in filter(None, pieces):
            if piece == "*":
                text += f"(?P<{group}{number}>{FIRST}[^/]*)" if not text else f"(?P<{group}{number}>[^/]+)"
                number += 1
            else:
                text += re.escape(piece)
        made.append((text, "*" in part))
    return "/".join(text for text, has_wildcard in made if has_wildcard)


def filled(template: str, texts: Sequence[str]) -> str:
    """``template`` with its wildcards replaced in turn; ``FILLER`` where ``texts`` are too few."""
    left = iter(texts)
    return re.sub(r"\*\*|\*", lambda _: next(left, FILLER), template)


def found_texts(match: re.Match[str], group: str) -> list[str]:
    """The texts of the wildcards of ``template_pattern``, in order."""
    numbered = {name: text for name, text in match.groupdict().items() if re.fullmatch(rf"{group}\d+", name)}
    return [numbered[f"{group}{number}"] for number in range(len(numbered))]


def listed(value: str | Sequence[str]) -> Sequence[str]:
    return (value,) if isinstance(value, str) else value


def tokens_of(placeholder: str, templates: Sequence[str], tokens: Sequence[str]) -> Sequence[str]:
    return tokens if any(placeholder in template for template in templates) else ("",)


def paired_folders(source: Source, options: Mapping[str, str]) -> Shape:
    """Stem and folders; where both folders have wildcards, those are part of the case's name."""
    images, labels = options["images"], options["labels"]
    shared = "*" in images and "*" in labels
    structure = f"(?P<stem>{FIRST}[^/]*)"
    if shared:
        structure = f"{template_pattern(images, 'w')}/{structure}"
    several = 2 if any("*" in suffix for suffix in listed(options["label_suffix"])) else 1

    def place(match: re.Match[str], number: int) -> Placed:
        texts, stem = found_texts(match, "w"), match["stem"]
        sides = {}
        for side, folder, placeholder, tokens in (
            ("image", images, CHANNEL, channels(source)),
            ("label", labels, LABEL, tuple(source.labels)),
        ):
            suffixes = listed(options[f"{side}_suffix"])
            suffix = suffixes[number % len(suffixes)]
            start = f"{filled(folder, texts)}/{options.get(f'{side}_prefix', '')}{stem}"
            sides[side] = {
                token: (start + suffix).replace(placeholder, token)
                for token in tokens_of(placeholder, (folder, suffix), tokens)
            }
        return Placed(
            {token: Place(_clean(path)) for token, path in sides["image"].items()},
            {token: list(_several(path, several)) for token, path in sides["label"].items()},
        )

    return Shape(structure, place, several)


def _several(path: str, count: int) -> Iterator[Place]:
    """Several files where a wildcard stands in the name; one where none does."""
    for number in range(count if "*" in path else 1):
        yield Place(_clean(path.replace("*", f"_{number}" if number else "")))


def _clean(path: str) -> str:
    return path.removeprefix("./")


def flat_suffix(source: Source, options: Mapping[str, str]) -> Shape:
    """``paired-folders`` with one folder."""
    folder = options.get("folder", ".")
    return paired_folders(source, {**options, "images": folder, "labels": folder})


def case_folder(source: Source, options: Mapping[str, str | bool]) -> Shape:
    """A folder a case; the parts of its path that have wildcards are the case's name."""
    cases = str(options.get("cases", "*"))
    several = 2 if options.get("several_labels") else 1

    def place(match: re.Match[str], number: int) -> Placed:
        folder = filled(cases, found_texts(match, "w"))
        own = PurePosixPath(folder).name
        image = f"{folder}/{str(options['image']).replace('{case}', own)}"
        label = f"{folder}/{str(options['label']).replace('{case}', own)}"
        return Placed(
            {
                token: Place(_clean(filled(image.replace(CHANNEL, token), ())))
                for token in tokens_of(CHANNEL, (image,), channels(source))
            },
            {
                token: [
                    Place(_clean(filled(label.replace(LABEL, token), [f"{FILLER}{copy}"] * label.count("*"))))
                    for copy in range(several if "*" in label else 1)
                ]
                for token in tokens_of(LABEL, (label,), tuple(source.labels))
            },
        )

    return Shape(template_pattern(cases, "w") or re.escape(PurePosixPath(cases).name), place, several)
