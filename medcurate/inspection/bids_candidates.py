"""BIDS pairings worth trying: images and labels whose names hold the same entities but for constant ones."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from medcurate.inspection.candidates import Candidate
from medcurate.inspection.survey import Survey, extension, reader_of
from medcurate.inspection.words import is_label
from medcurate.pairings.bids import SUBJECT
from medcurate.pairings.names import CHANNEL, LABEL

_ENTITY = re.compile(r"([A-Za-z0-9]+)-([^_]+)")
_CHANNEL_NAME = re.compile(r"[A-Za-z0-9]+")

Entities = dict[str, str]


@dataclass(slots=True)
class _Kind:
    """Files of one folder tree (``folder``), one suffix, and the same entities in any values."""

    folder: str
    suffix: str
    files: list[Entities] = field(default_factory=list)

    @property
    def names(self) -> set[str]:
        return set(self.files[0])

    def values(self, entity: str) -> list[str]:
        return sorted({file[entity] for file in self.files})


def by_entities(survey: Survey) -> Iterator[Candidate]:
    """Candidates of the kind bids-derivatives."""
    found = _kinds(survey)
    labels = [kind for kind in found if is_label(kind.suffix)]
    images = [kind for kind in found if not is_label(kind.suffix)]
    for label in labels:
        for image in images:
            yield from _made([image], label)
            alike = [kind for kind in images if (kind.folder, kind.names) == (image.folder, image.names)]
            if alike[0] is image and len(alike) > 1 and all(_CHANNEL_NAME.fullmatch(k.suffix) for k in alike):
                yield from _made(alike, label)


def _kinds(survey: Survey) -> list[_Kind]:
    found: dict[tuple[str, str, tuple[str, ...]], _Kind] = {}
    for folder, names in survey.data.items():
        parts = folder.split("/")
        at = next((place for place, part in enumerate(parts) if part.startswith(f"{SUBJECT}-")), None)
        if at is None:
            continue
        root = "/".join(parts[:at]) or "."
        for name in names:
            *pairs, suffix = name.removesuffix(extension(name)).split("_")
            entities = {match[1]: match[2] for pair in pairs if (match := _ENTITY.fullmatch(pair))}
            if reader_of(name) == "nifti" and SUBJECT in entities and len(entities) == len(pairs) and suffix:
                key = root, suffix, tuple(sorted(entities))
                found.setdefault(key, _Kind(root, suffix)).files.append(entities)
    return [found[key] for key in sorted(found)]


def _made(images: Sequence[_Kind], label: _Kind) -> Iterator[Candidate]:
    """The candidate of one label and the channels ``images``; none where cases could not be told apart."""
    image = images[0]
    channels = tuple(kind.suffix for kind in images) if len(images) > 1 else ()
    wanted = _constant(images, image.names - label.names)
    stated, tokens = _stated(label, image)
    weight = _weight(images, label, image.names & label.names)
    if wanted is None or stated is None or not weight:
        return
    options: dict[str, Any] = {
        "images": image.folder,
        "labels": label.folder,
        "image_suffix": CHANNEL if channels else image.suffix,
        "label_suffix": label.suffix,
    }
    sides = {"image_entities": wanted, "label_entities": stated}
    options |= {name: entities for name, entities in sides.items() if entities}
    yield Candidate("bids-derivatives", options, channels, tokens, weight)


def _constant(kinds: Sequence[_Kind], entities: set[str]) -> Entities | None:
    """The values of ``entities``, None where one has several."""
    values = {
        entity: {value for kind in kinds for value in kind.values(entity)} for entity in sorted(entities)
    }
    return {e: v.pop() for e, v in values.items()} if all(len(v) == 1 for v in values.values()) else None


def _stated(label: _Kind, image: _Kind) -> tuple[Entities | None, tuple[str, ...]]:
    """Entities that the labels alone have, and the classes where one of them has several values."""
    several = [entity for entity in sorted(label.names - image.names) if len(label.values(entity)) > 1]
    stated = _constant([label], label.names - image.names - set(several))
    if len(several) > 1 or stated is None:
        return None, ()
    tokens = tuple(label.values(several[0])) if several else ()
    return stated | dict.fromkeys(several, LABEL), tokens


def _weight(images: Sequence[_Kind], label: _Kind, shared: set[str]) -> int:
    """Files of complete cases."""
    counted: Mapping[frozenset[tuple[str, str]], list[int]] = defaultdict(lambda: [0, 0])
    for side, kinds in enumerate((images, [label])):
        for file in (file for kind in kinds for file in kind.files):
            counted[frozenset(pair for pair in file.items() if pair[0] in shared)][side] += 1
    return sum(i + n for i, n in counted.values() if i == len(images) and n)
