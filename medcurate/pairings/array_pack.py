"""Arrays of many samples: one case a row (PanNuke, CoNIC, MedSegBench, …). Only headers are read here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, model_validator

from medcurate import arrays
from medcurate.config.source import Strict
from medcurate.errors import CaseRejected, ConfigError
from medcurate.pairings.found import Candidates, Found, Names, at_entries, judged, passed_over
from medcurate.pairings.letters import no_match, other_case
from medcurate.pairings.tree import check_template, entries, folders, wildcard_count, wildcard_pattern

FileTemplate = Annotated[str, AfterValidator(check_template)]
MAX_GROUP_BYTES = 1 << 28
_DIGITS = 6  # of a row in a name, so that rows sort by number


class Options(Strict):
    """``images`` and ``labels``: files below the source's folder, ``*`` and ``**`` allowed in both alike.

    Samples follow each other on the first axis of both arrays. ``image_key`` and ``label_key``: the arrays of
    an .npz, "" for a .npy. A case's name is made of the path's components with a wildcard, the key and the row
    in six digits. ``groups`` (and ``group_key``): a parallel array that says which patient a row is of.
    """

    images: FileTemplate
    labels: FileTemplate
    image_key: str = ""
    label_key: str = ""
    groups: FileTemplate | None = None
    group_key: str = ""

    @model_validator(mode="after")
    def _fitting(self) -> Options:
        if (self.images, self.image_key) == (self.labels, self.label_key):
            raise ValueError("images and labels are the same array")
        counts = {wildcard_count(path) for path in (self.images, self.labels, self.groups or self.images)}
        if len(counts) > 1:
            raise ValueError("images, labels and groups need the same number of wildcards")
        return self


def check(options: Options, names: Names) -> None:
    """Raise ValueError where channels are declared that no component tells apart."""
    if names.channels and not all(component is not None for component in names.components):
        raise ValueError("every channel needs its component: a row is one image")


def sample_entries(options: Options) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What entries of images and of labels look like, for the readers to judge."""
    return (_entry(options.image_key, 0),), (_entry(options.label_key, 0),)


def find(root: Path, options: Options, names: Names) -> Iterator[Found]:
    """One case a row, sorted by name; a pack whose rows cannot be counted is one case with a problem.

    So is, after the others, a file that is left out only because letters have a case.

    Raises ConfigError, DataMissing.
    """
    images, labels = _packs(root, options.images), _packs(root, options.labels)
    groups = _packs(root, options.groups) if options.groups else {}
    if not images:
        raise no_match(root, options.images, "images", files=True)
    for key in sorted(images | labels):
        place = images.get(key) or labels[key]
        name = "/".join(part for part in (place.name, options.image_key) if part)
        whole = judged(
            root, name or place.path.stem, _candidates(images, labels, key), names, several_labels=False
        )
        yield from _rows(root, options, whole, groups.get(key))
    templates = [template for template in (options.images, options.labels, options.groups) if template]
    others = {path for template in templates for path in other_case(root, template, files=True)}
    for path in sorted(
        others - {place.path for found in (images, labels, groups) for place in found.values()}
    ):
        yield passed_over(path)


@dataclass(frozen=True, slots=True)
class _Place:
    path: Path
    name: str  # of the components with a wildcard


def _packs(root: Path, template: str) -> dict[tuple[str, ...], _Place]:
    """Files that match, by what their wildcards stand for."""
    parent, _, last = template.rpartition("/")
    found = {}
    for folder in folders(root, parent or "."):
        for file in entries(root / folder.path)[0]:
            matched = wildcard_pattern(last).fullmatch(file)
            if matched:
                shown = Path(file).stem if "*" in last else ""
                name = "/".join(part for part in (folder.name, shown) if part)
                found[*folder.wildcards, *matched.groups()] = _Place(folder.path / file, name)
    return found


def _candidates(
    images: dict[tuple[str, ...], _Place], labels: dict[tuple[str, ...], _Place], key: tuple[str, ...]
) -> Candidates:
    return Candidates(
        images={"": [(images[key].path,)]} if key in images else {},
        labels={"": [(labels[key].path,)]} if key in labels else {},
    )


def _rows(root: Path, options: Options, whole: Found, groups: _Place | None) -> Iterator[Found]:
    if whole.problem:
        yield whole
        return
    try:
        count = _count(root / whole.images[0].paths[0], options.image_key)
        labelled = _count(root / whole.labels[0].paths[0], options.label_key)
        patients = _patients(root, options, groups, count)
    except CaseRejected as error:
        yield replace(whole, problem=error.detail)
        return
    if count != labelled:
        yield replace(whole, problem=f"{count} images and {labelled} labels in the packs")
        return
    prefix = f"{whole.name}/" if "*" in options.images or options.image_key else ""
    for row in range(count):
        image, label = _entry(options.image_key, row), _entry(options.label_key, row)
        case = at_entries(whole, f"{prefix}{row:0{_DIGITS}d}", image, label)
        yield replace(case, group=patients[row]) if patients else case


def _count(path: Path, key: str) -> int:
    shape = arrays.header_of(path, key).shape
    return shape[0] if shape else 0


def _patients(root: Path, options: Options, groups: _Place | None, count: int) -> list[str]:
    """The patient of every row as text; empty where none is declared. Raises ConfigError, CaseRejected."""
    if options.groups is None:
        return []
    if groups is None:
        raise no_match(root, options.groups, "groups", files=True)
    found: np.ndarray[Any, np.dtype[Any]] = arrays.small_array(
        root / groups.path, options.group_key, MAX_GROUP_BYTES
    )
    if found.shape != (count,) or found.dtype.kind not in "iuUS":
        raise ConfigError(
            f"{groups.path}: groups are one whole number or text a row; "
            f"{found.dtype} of shape {found.shape} for {count} rows"
        )
    return [value.decode("latin-1") if isinstance(value, bytes) else str(value) for value in found.tolist()]


def _entry(key: str, row: int) -> str:
    return f"{key}[{row}]"
