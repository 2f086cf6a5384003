"""What a pairing is given and what it finds."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from medcurate.types import ImageFile, LabelFile

Paths = tuple[Path, ...]
LEADS_NOWHERE = "a link leads to a file that is not there"
OTHER_CASE = "its name differs from what is declared only in upper and lower case"


@dataclass(frozen=True, slots=True)
class Names:
    """The tokens of the source that may stand in file names."""

    channels: tuple[str, ...] = ()  # channel names; empty where a case has one image
    components: tuple[int | None, ...] = ()  # parallel to channels: index on a 4D file's fourth axis
    labels: tuple[str, ...] = ()  # keys of the source's [labels]: tokens where every class has its own file


@dataclass(frozen=True, slots=True)
class Found:
    """One case as files. ``problem`` says why it cannot be used (an image without label, …); "" if it can."""

    name: str  # what ids are read from
    images: tuple[ImageFile, ...]
    labels: tuple[LabelFile, ...]
    problem: str = ""
    group: str = ""  # the patient, where the layout or a table names one
    split: str = ""  # the official split, where a table names it

    @property
    def paths(self) -> Iterator[Path]:
        """All its files: those of images, then those of labels."""
        for image in self.images:
            yield from image.paths
        for label in self.labels:
            yield from label.paths


@dataclass(slots=True)
class Candidates:
    """The files that seem to belong to one case, by channel name and by label key ("" where without)."""

    images: dict[str, list[Paths]] = field(default_factory=dict)
    labels: dict[str, list[Paths]] = field(default_factory=dict)


def judged(root: Path, name: str, files: Candidates, names: Names, *, several_labels: bool) -> Found:
    """``files`` as a case: exactly one image a channel, at least one label, several a key only where told."""
    images, labels = _images(files.images, names), _labels(files.labels, names)
    problem = _problem(files, names, several_labels=several_labels)
    return whole(root, Found(name, images, labels, problem))


def whole(root: Path, found: Found) -> Found:
    """``found``, which is a problem where one of its files is a link to what is not there."""
    if found.problem:
        return found
    files = (f"{root}/{path}" for path in found.paths)  # by name: a release has millions of them
    leads_nowhere = any(os.path.islink(file) and not os.path.exists(file) for file in files)
    return replace(found, problem=LEADS_NOWHERE) if leads_nowhere else found


def passed_over(path: Path) -> Found:
    """What only the case of letters keeps apart from what is declared: a case with a problem, called by its path."""
    return Found(path.as_posix(), (), (), OTHER_CASE)


def at_entries(found: Found, name: str, image_entry: str, label_entry: str) -> Found:
    """A case ``name`` of what the files of ``found`` hold under these entries."""
    return replace(
        found,
        name=name,
        images=tuple(replace(image, entry=image_entry) for image in found.images),
        labels=tuple(replace(label, entry=label_entry) for label in found.labels),
    )


def _images(images: Mapping[str, Sequence[Paths]], names: Names) -> tuple[ImageFile, ...]:
    whole = images.get("", [])
    if not names.channels:
        return tuple(ImageFile(paths=paths) for paths in whole)
    found = [
        ImageFile(paths=paths, channel=channel, component=component)
        for paths in whole
        for channel, component in zip(names.channels, names.components, strict=True)
    ]
    found += [
        ImageFile(paths=paths, channel=channel)
        for channel in names.channels
        for paths in images.get(channel, [])
    ]
    return tuple(found)


def _labels(labels: Mapping[str, Sequence[Paths]], names: Names) -> tuple[LabelFile, ...]:
    return tuple(
        LabelFile(paths=paths, label=label)
        for label in ("", *names.labels)
        for paths in labels.get(label, [])
    )


def _problem(files: Candidates, names: Names, *, several_labels: bool) -> str:
    """What is wrong, without any file's name: names may identify a patient and the ledger keeps this text."""
    if not files.images:
        return "label without image" if files.labels else "neither image nor label"
    if not files.labels:
        return "image without label"
    missing = [] if "" in files.images else [c for c in names.channels if c not in files.images]
    if missing:
        return f"no image of channel {', '.join(missing)}"
    for kind, found in (("image", files.images), ("label", files.labels)):
        for token, entries in found.items():
            if len(entries) > 1 and not (several_labels and kind == "label"):
                return f"{len(entries)} {kind} files{f' of {token}' if token else ''} where one is expected"
    return ""
