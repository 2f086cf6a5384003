"""Pairings worth trying on a tree, from a sample of its names; ``guess`` then tries them on the files."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress, takewhile
from typing import Any

from medcurate.inspection.survey import Survey, is_series, kind_of
from medcurate.inspection.words import Affix, affixes, is_image, is_label
from medcurate.pairings.names import CHANNEL, LABEL, Matcher, expand
from medcurate.pairings.tree import wildcard_count

SAMPLE_NAMES = 600  # of a group of folders
SAMPLE_FOLDERS = 100
MAX_GROUPS = 16

Key = tuple[tuple[str, ...], str]  # what the wildcards stand for, and the stem


@dataclass(frozen=True, slots=True)
class Candidate:
    """A pairing to try. ``weight``: files of complete cases in the sample of names. ``asks``: what its author has to
    look at in a draft.
    """

    kind: str
    options: Mapping[str, Any]
    channels: tuple[str, ...] = ()
    tokens: tuple[str, ...] = ()  # keys of [labels] where every class has files of its own
    weight: int = 0
    asks: tuple[str, ...] = ()


@dataclass(slots=True)
class Group:
    """Folders of one template, with a sample of their names by what the wildcards stand for."""

    template: str
    names: dict[tuple[str, ...], list[str]] = field(default_factory=dict)
    affixes: list[Affix] = field(default_factory=list)
    hits: dict[tuple[Affix, bool], dict[str, Key]] = field(default_factory=dict)

    def matched(self, affix: Affix, *, shared: bool) -> dict[str, Key]:
        """Sampled files (folder's wildcards and name) that ``affix`` explains, with their keys."""
        if (affix, shared) not in self.hits:
            matcher = Matcher(expand("", affix.prefix, (affix.suffix,), "{token}", affix.tokens))
            self.hits[affix, shared] = {
                "/".join((*wildcards, name)): (wildcards if shared else (), hit.stem)
                for wildcards, names in self.names.items()
                for name in names
                if (hit := matcher.match(name))
            }
        return self.hits[affix, shared]


def by_names(survey: Survey) -> Iterator[Candidate]:
    """Candidates of the kinds paired-folders and flat-suffix."""
    groups, above = _groups(survey), _above(survey)
    labelled = [is_label("/".join(_parts(group.template)[above:])) for group in groups]
    for images, is_labels in zip(groups, labelled, strict=True):
        yield from _flat(images)
        for labels in compress(groups, labelled):
            if not is_labels:
                yield from _paired(images, labels)
                yield from _class_folders(images, labels)


def _above(survey: Survey) -> int:
    """How many folders lie above all data: their names, as of "Nuclei_Segmentation", tell no labels from images."""
    paths = [_parts(folder) for folder in survey.data]
    alike = takewhile(lambda names: len(set(names)) == 1, zip(*paths, strict=False))
    return sum(1 for _ in alike)


def generalise(paths: Sequence[tuple[str, ...]]) -> str:
    """One template for folders of equal depth: a "*" where names differ, only for digits if that is all."""
    parts = []
    for names in zip(*paths, strict=True):
        patterns = {re.sub(r"[0-9]+", "*", name) for name in names}
        parts.append(names[0] if len(set(names)) == 1 else patterns.pop() if len(patterns) == 1 else "*")
    return "/".join(parts) or "."


def _groups(survey: Survey) -> list[Group]:
    """Folders that hold data files, by depth and last name (digits aside), the largest groups first."""
    alike: dict[tuple[int, str, str], list[str]] = defaultdict(list)
    for folder in survey.data:
        parts = _parts(folder)
        parent, last = "/".join(parts[:-1]), re.sub(r"[0-9]+", "*", "".join(parts[-1:]))
        for key in dict.fromkeys([(last, ""), ("", parent), ("", "")]):
            alike[len(parts), *key].append(folder)
    templates: dict[str, list[str]] = {}
    for folders in alike.values():
        template = generalise([_parts(folder) for folder in folders])
        templates.setdefault(template, folders)
    size = {template: sum(len(survey.data[f]) for f in folders) for template, folders in templates.items()}
    kept = sorted(templates, key=lambda template: (-size[template], template))[:MAX_GROUPS]
    return [_group(survey, template, templates[template]) for template in kept] + _series_groups(survey)


def _parts(folder: str) -> tuple[str, ...]:
    """Names on the way to ``folder``; none for "", the root."""
    return tuple(filter(None, folder.split("/")))


def _series_groups(survey: Survey) -> list[Group]:
    """Folders whose folders are one DICOM series each: their names stand for the series."""
    below: dict[str, list[str]] = defaultdict(list)
    for folder, names in survey.data.items():
        if folder and kind_of(names[0]) == "dicom" and is_series(names):
            parent, _, name = folder.rpartition("/")
            below[parent].append(f"{name}/")
    biggest = sorted(below, key=lambda parent: (-len(below[parent]), parent))[:MAX_GROUPS]
    return [Group(parent or ".", {(): below[parent][:SAMPLE_NAMES]}, [Affix("", "/")]) for parent in biggest]


def _group(survey: Survey, template: str, folders: Sequence[str]) -> Group:
    group = Group(template)
    pattern = re.compile("([^/]*)".join(re.escape(piece) for piece in template.split("*")))
    chosen = folders[:: max(1, len(folders) // SAMPLE_FOLDERS)]
    for folder in chosen:
        matched = pattern.fullmatch(folder)
        names = survey.data[folder][: max(24, SAMPLE_NAMES // len(chosen))]
        group.names.setdefault(matched.groups() if matched else (), []).extend(names)
    group.affixes = affixes([name for names in group.names.values() for name in names])
    return group


def _flat(group: Group) -> Iterator[Candidate]:
    for label in group.affixes:
        sounds = {is_label(f"{label.prefix} {word}") for word in label.tokens or (label.suffix,)}
        if len(sounds) > 1 or not (label.tokens or True in sounds):
            continue  # what sounds like a label is not of the same kind as what does not
        for image in group.affixes:
            if (image.prefix, image.suffix) == (label.prefix, label.suffix):
                continue
            images = group.matched(image, shared=True)
            labels = group.matched(label, shared=True)
            images = {file: key for file, key in images.items() if not _is_longer(labels.get(file), key)}
            labels = {file: key for file, key in labels.items() if file not in images}
            yield from _made("flat-suffix", {"folder": group.template}, (image, label), images, labels)


def _is_longer(label: Key | None, image: Key) -> bool:
    """Whether the label's ending explains more of a name than the image's, as ``collect`` decides."""
    return label is not None and len(label[1]) < len(image[1])


def _paired(images: Group, labels: Group) -> Iterator[Candidate]:
    counts = [wildcard_count(group.template) for group in (images, labels)]
    if all(counts) and counts[0] != counts[1]:
        return
    place = {"images": images.template, "labels": labels.template}
    for image in images.affixes:
        found = images.matched(image, shared=all(counts))
        for label in labels.affixes:
            matched = labels.matched(label, shared=all(counts))
            yield from _made("paired-folders", place, (image, label), found, matched)


def _class_folders(images: Group, labels: Group) -> Iterator[Candidate]:
    """One folder a class: the last wildcard of the label folders is the class."""
    parent, _, last = labels.template.rpartition("/")
    classes = tuple(sorted({wildcards[-1] for wildcards in labels.names if wildcards}))
    shared = wildcard_count(images.template) > 0
    if (
        last != "*"
        or len(classes) < 2
        or (shared and wildcard_count(parent) != len(next(iter(images.names))))
    ):
        return
    place = {"images": images.template, "labels": f"{parent}/{LABEL}"}
    for image in images.affixes:
        found = images.matched(image, shared=shared)
        for label in labels.affixes:
            hits = labels.matched(label, shared=True)
            matched = {file: (key[0][:-1] if shared else (), key[1]) for file, key in hits.items()}
            if not label.tokens:
                yield from _made(
                    "paired-folders", place, (image, replace(label, tokens=classes)), found, matched
                )


def _made(
    kind: str,
    place: Mapping[str, str],
    sides: tuple[Affix, Affix],
    images: Mapping[str, Key],
    labels: Mapping[str, Key],
) -> Iterator[Candidate]:
    """The candidate, where the sample has complete cases of it."""
    image, label = sides
    several = bool(label.tokens) or "*" in label.suffix
    counted: dict[Key, list[int]] = defaultdict(lambda: [0, 0])
    for side, keys in enumerate((images.values(), labels.values())):
        for key in keys:
            counted[key][side] += 1
    wanted = len(image.tokens) or 1
    weight = sum(i + n for i, n in counted.values() if i == wanted and n and (n == 1 or several))
    if not weight:
        return
    options: dict[str, Any] = {
        "image_suffix": image.suffix.replace("{token}", CHANNEL),
        "label_suffix": label.suffix.replace("{token}", LABEL),
    }
    if image.prefix or label.prefix:
        options |= {"image_prefix": image.prefix, "label_prefix": label.prefix}
    named = "{token}" in label.suffix
    tokens = tuple(t for t in label.tokens if not named or label.suffix.replace("{token}", t) != image.suffix)
    if kind == "flat-suffix":  # beside the image lie other images too
        tokens = tuple(token for token in tokens if not is_image(token))
    if named and not tokens:
        return
    if named and len(tokens) == 1:  # one word for all labels says nothing about classes: their values do
        options["label_suffix"], tokens = label.suffix.replace("{token}", tokens[0]), ()
    yield Candidate(kind, {**place, **options}, image.tokens, tokens, weight)
