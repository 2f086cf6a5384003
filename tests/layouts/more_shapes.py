"""Pairings whose cases' names follow from rows, expressions or entities: packs, patterns, BIDS, halves."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from itertools import islice
from pathlib import PurePosixPath
from typing import Any

from layouts.automaton import alphabet, automaton, drawn, product
from layouts.shapes import (
    CHANNEL,
    FIRST,
    LABEL,
    Place,
    Placed,
    Shape,
    channels,
    filled,
    found_texts,
    listed,
    template_pattern,
    tokens_of,
)
from medcurate.config.source import Source

Options = Mapping[str, Any]
ROWS = 4
PACK_PATIENTS = ("7", "7", "8", "9")


def same_file(source: Source, options: Options) -> Shape:
    """Image and label are entries of one file."""
    folder = options.get("folder", ".")
    wildcards = template_pattern(folder, "w")
    stem = f"(?P<stem>{FIRST}[^/]*)"

    def place(match: re.Match[str], number: int) -> Placed:
        suffixes = listed(options["suffix"])
        name = f"{options.get('prefix', '')}{match['stem']}{suffixes[number % len(suffixes)]}"
        path = f"{filled(folder, found_texts(match, 'w'))}/{name}".removeprefix("./")
        return Placed({"": Place(path, options["image"])}, {"": [Place(path, options["label"])]})

    return Shape(f"{wildcards}/{stem}" if wildcards else stem, place)


def array_pack(source: Source, options: Options) -> Shape:
    """One case a row; a parallel array may name patients."""
    images, labels, key = options["images"], options["labels"], options.get("image_key", "")
    shown = [part for part in PurePosixPath(images).parent.parts if "*" in part]
    stem = [PurePosixPath(images).stem] if "*" in PurePosixPath(images).name else []
    name = "/".join([filled(part, ()) for part in (*shown, *stem)] + ([key] if key else []))
    prefix = f"{name}/" if "*" in images or key else ""
    rows = tuple(f"{prefix}{row:06d}" for row in range(ROWS))

    def place(match: re.Match[str], number: int) -> Placed:
        placed = Placed(
            {"": Place(filled(images, ()), f"{key}[{number}]")},
            {"": [Place(filled(labels, ()), f"{options.get('label_key', '')}[{number}]")]},
        )
        if options.get("groups"):
            place = Place(filled(options["groups"], ()), f"{options.get('group_key', '')}[{number}]")
            placed.texts = [(place, PACK_PATIENTS[number])]
        return placed

    patients = dict(zip(rows, PACK_PATIENTS, strict=True)) if options.get("groups") else {}
    return Shape(".*", place, names=rows, patients=patients)


def bids(source: Source, options: Options) -> Shape:
    """``sub-…[_ses-…]`` and the entities that both sides state."""
    image, label = options.get("image_entities", {}), options.get("label_entities", {})
    both = "".join(f"_{name}-{image[name]}" for name in image if name in label)
    structure = f"(?P<sub>sub-[0-9A-Za-z]+)(?P<ses>_ses-[0-9A-Za-z]+)?{re.escape(both)}"

    def file(match: re.Match[str], side: str, folder: str, token: str, number: int) -> str:
        entities = {"image": image, "label": label}[side]
        own = "".join(
            f"_{name}-{value}" for name, value in entities.items() if f"_{name}-{value}" not in both
        )
        extensions = listed(options.get("extension", (".nii.gz", ".nii")))
        ending = extensions[number % len(extensions)]
        session = f"/{match['ses'][1:]}" if match["ses"] else ""
        name = f"{match[0]}{own}_{options[f'{side}_suffix']}{ending}"
        text = f"{filled(folder, ())}/{match['sub']}{session}/anat/{name}".removeprefix("./")
        return text.replace(CHANNEL, token).replace(LABEL, token)

    def place(match: re.Match[str], number: int) -> Placed:
        shown = (options["image_suffix"], *image.values())
        drawn_as = (options["label_suffix"], *label.values())
        return Placed(
            {
                token: Place(file(match, "image", options.get("images", "."), token, number))
                for token in tokens_of(CHANNEL, shown, channels(source))
            },
            {
                token: [Place(file(match, "label", options["labels"], token, number))]
                for token in tokens_of(LABEL, drawn_as, tuple(source.labels))
            },
        )

    return Shape(structure, place, patient=lambda match: match["sub"])


def pattern(source: Source, options: Options) -> Shape:
    """Paths drawn from the expression of images; those of labels with the same groups."""
    image, label = options["image"], options["label"]
    paths = _paths(source, image, str(options.get("folder")))
    by_class = "label" in re.compile(image).groupindex
    names = tuple(name for name in paths if re.search(source.case.pattern, name))
    names = names if by_class else names[:ROWS]
    folder = filled(options.get("folder", "."), ())

    def place(match: re.Match[str], number: int) -> Placed:
        fixed = paths[match[0]]
        named = "label" in re.compile(label).groupindex
        several = 2 if options.get("several_labels") else 1

        def one(expression: str, **more: str) -> list[str]:
            letters = alphabet(expression) | set("".join((*fixed.values(), *more.values())))
            whole = automaton(expression, letters, {**fixed, **more})
            found = product(whole, automaton(".*", letters))
            drawings = (found.draw(_rng(source, number, more, copy)) for copy in range(40))
            fitting = dict.fromkeys(path for path in drawings if re.fullmatch(expression, path))
            return [*fitting][:several]

        tokens = channels(source)
        return Placed(
            {
                token: Place(_below(folder, one(image, **({"channel": token} if token else {}))[0]))
                for token in tokens
            },
            {
                token: [
                    Place(_below(folder, path)) for path in one(label, **({"label": token} if token else {}))
                ]
                for token in (_classes(source, fixed) if named else ("",))
            },
        )

    keys = {name: groups["label"] for name, groups in paths.items()} if by_class else {}
    return Shape(".*", place, several=2 if options.get("several_labels") else 1, names=names, keys=keys)


def _classes(source: Source, groups: Mapping[str, str]) -> tuple[str, ...]:
    """The classes with files: all, or the one in whose folder the picture lies."""
    return (groups["label"],) if "label" in groups else tuple(source.labels)


def _paths(source: Source, image: str, folder: str) -> dict[str, dict[str, str]]:
    """Names of cases, with the groups that they are made of; where classes have folders, some of each.

    The second class shows a picture with the first one's number: both are of one patient.
    """
    groups = re.compile(image).groupindex
    key = sorted((name for name in groups if name != "channel"), key=groups.__getitem__)
    found: dict[str, dict[str, str]] = {}
    fixed: dict[str, str] = {}
    for number, class_key in enumerate(source.labels if "label" in groups else ("",)):
        if class_key:
            fixed = {**(fixed if number == 1 else {}), "label": class_key}
        seed = zlib.crc32(f"{source.id}/{folder}/{image}".encode()) + number
        drawings = islice(drawn("(?:[^/.][^/]*/)*[^/.][^/]*", image, seed, fixed), 1 if class_key else 200)
        for path in drawings:
            if (match := re.fullmatch(image, path)) and all(match[name] for name in key):
                fixed = {name: match[name] for name in key}
                found.setdefault("/".join(fixed.values()), fixed)
        if not class_key:
            fixed = {}
    return found


def _rng(source: Source, number: int, more: Mapping[str, str], copy: int) -> Any:
    import random

    return random.Random(zlib.crc32(f"{source.id}/{number}/{sorted(more.items())}/{copy}".encode()))


def _below(folder: str, path: str) -> str:
    return path if folder == "." else f"{folder}/{path}"
