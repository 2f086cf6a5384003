"""The published SA-Med2D-20M release: every picture of ``images/`` with its masks in ``masks/`` is a case.

Layout (arXiv 2311.11969 and the release's own files): pictures are called
``<modality>_<sub>--<dataset>--<case>--<axis>_<slice>.png``, the last part ``2d_none`` where the set is 2D; a mask is
the picture's stem, ``--``, its class (four digits), ``_``, its instance (three digits). A JSON file maps
{dataset: {class name: class}}; the numbers mean something within one dataset only, and masks may overlap.

Nothing but two sorted listings is held: a picture's masks are found by bisection, in a folder or in the zip.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from medcurate.config.source import Strict
from medcurate.config.table import Pattern, below
from medcurate.errors import ConfigError, DataMissing
from medcurate.pairings.found import Found, Names, whole
from medcurate.pairings.tree import names_in, wildcard_pattern
from medcurate.types import ImageFile, LabelFile
from medcurate.zips import inside
from medcurate.zips.volumes import BadMember

IMAGES, MASKS = "images", "masks"
_JOINT = "--"
_LEAST_PARTS = 4  # modality, dataset, case, slice
_MASK = re.compile(r"(\d+)_(\d+)\.png")
_SUFFIX = ".png"
_MAP_BYTES = 1 << 26
_SHOWN = 12
_LAST = chr(0x10FFFF)  # sorts behind whatever else follows a prefix


class Patients(Strict):
    """How patients are read from the case names of a dataset.

    ``pattern``: a regular expression with the group ``group``. ``namespace``: shared by datasets that hold the
    same patients under the same names (the years of a challenge); default: the dataset.
    """

    pattern: Pattern
    namespace: str = ""

    @model_validator(mode="after")
    def _names_a_group(self) -> Patients:
        if "group" not in re.compile(self.pattern).groupindex:
            raise ValueError("the pattern needs the group (?P<group>…)")
        return self


class Options(Strict):
    """Which part of the release is read, and what its names mean.

    ``folder``: what holds ``images``, ``masks`` and the class map ``classes``. ``modalities`` ("ct_00") and
    ``datasets`` choose; none: all. ``leave_out``: datasets, "dataset/class name" or "dataset/#class", with ``*``,
    that are not read: what is a union of others, or broken. ``patients``: by dataset; without a rule every case
    name is a patient, over all axes.

    Keys of [labels] are "dataset/class name", or "class name" for all datasets that have no key of their own.
    Every class of a chosen picture must be in [labels] or left out.
    """

    folder: Annotated[str, AfterValidator(below)] = "."
    classes: Annotated[str, AfterValidator(below)] = "SAMed2D_v1_class_mapping_id.json"
    modalities: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    leave_out: tuple[str, ...] = ()
    patients: dict[str, Patients] = Field(default={})


def check(options: Options, names: Names) -> None:
    """Raise ValueError where the source cannot be the release."""
    if names.channels:
        raise ValueError("the release has one picture a case: a source of it declares no [[channels]]")


def find(root: Path, options: Options, names: Names) -> Iterator[Found]:
    """The chosen pictures in the order of their names. Raises ConfigError, DataMissing."""
    try:
        check(options, names)
    except ValueError as error:
        raise ConfigError(f"sa-med2d-release: {error}") from error
    folder = root / options.folder
    images, masks = names_in(folder / IMAGES), names_in(folder / MASKS)
    if not images or not masks:
        raise DataMissing(
            f"{folder}: holds no pictures in {IMAGES}/ and masks in {MASKS}/. Put the release there, unpacked, or its "
            "zip with in_place = true in its unpack table."
        )
    meaning = _Meaning(_class_map(folder / options.classes), options, frozenset(names.labels))
    search = _Search(root, images, masks, options, meaning)
    yield from search.cases()
    yield from search.unpaired_masks()
    meaning.refuse_unknown()


def class_names(root: Path, options: Options) -> Iterator[tuple[str, str]]:
    """("dataset/class name", class name) of all classes of the release's map that may be chosen, in its order.

    The map does not say of which modality a dataset is: its pictures do. Raises ConfigError, DataMissing.
    """
    class_map = _class_map(root / options.folder / options.classes)
    meaning = _Meaning(class_map, options, frozenset())
    images = names_in(root / options.folder / IMAGES) if options.modalities else ()
    pictured = {dataset for modality in options.modalities for dataset in _datasets(images, modality)}
    for dataset, classes in class_map.items():
        chosen = (not options.datasets or dataset in options.datasets) and (
            not options.modalities or dataset in pictured
        )
        for number, name in classes.items() if chosen and not meaning.leaves_out(dataset) else ():
            if not meaning.leaves_out(f"{dataset}/{name}", f"{dataset}/#{number}"):
                yield f"{dataset}/{name}", name


def _datasets(images: Sequence[str], modality: str) -> Iterator[str]:
    """The datasets that have pictures of ``modality``, found from one to the next by bisection."""
    prefix = modality + _JOINT
    number = bisect_left(images, prefix)
    while number < len(images) and images[number].startswith(prefix):
        dataset = images[number].split(_JOINT)[1]
        yield dataset
        number = bisect_left(images, f"{prefix}{dataset}{_JOINT}{_LAST}")


def _class_map(path: Path) -> Mapping[str, Mapping[int, str]]:
    try:
        found = json.loads(inside.read(path, _MAP_BYTES))
        return {
            dataset: {int(number): name for name, number in classes.items()}
            for dataset, classes in found.items()
        }
    except OSError as error:
        raise DataMissing(f"{path}: the class map of the release is not there. Put it there.") from error
    except (ValueError, AttributeError, TypeError, OverflowError, RecursionError, BadMember) as error:
        raise ConfigError(
            f"{path}: not a class map: {{dataset: {{class name: number}}}} is expected"
        ) from error


@dataclass(slots=True)
class _Meaning:
    """Classes of masks to keys of [labels]; what has none is remembered, to be told at once."""

    class_map: Mapping[str, Mapping[int, str]]
    options: Options
    labels: frozenset[str]
    unknown: set[str] = field(default_factory=set)
    _known: dict[tuple[str, int], str | None] = field(default_factory=dict)

    def label(self, dataset: str, number: int) -> str | None:
        """The key of [labels]; None where the class is left out."""
        place = (dataset, number)
        if place not in self._known:
            self._known[place] = self._looked_up(dataset, number)
        return self._known[place]

    def leaves_out(self, *names: str) -> bool:
        """Whether any pattern of ``leave_out`` is one of ``names``."""
        patterns = [wildcard_pattern(pattern) for pattern in self.options.leave_out]
        return any(pattern.fullmatch(name) for pattern in patterns for name in names)

    def _looked_up(self, dataset: str, number: int) -> str | None:
        name = self.class_map.get(dataset, {}).get(number, f"#{number}")
        if self.leaves_out(f"{dataset}/{name}", f"{dataset}/#{number}"):
            return None
        for key in (f"{dataset}/{name}", name):
            if key in self.labels:
                return key
        self.unknown.add(f"{dataset}/{name}")
        return None

    def refuse_unknown(self) -> None:
        """Raise ConfigError where masks have a class that is neither a label nor left out."""
        if self.unknown:
            shown = ", ".join(sorted(self.unknown)[:_SHOWN])
            more = len(self.unknown) - _SHOWN
            raise ConfigError(
                f"sa-med2d-release: {len(self.unknown)} classes of the chosen pictures are neither in [labels] nor in "
                f"leave_out: {shown}{f' and {more} more' if more > 0 else ''}. Add each to one of them."
            )


class _Search:
    """Two sorted listings to cases."""

    def __init__(
        self, root: Path, images: Sequence[str], masks: Sequence[str], options: Options, meaning: _Meaning
    ) -> None:
        self._images, self._masks = images, masks
        self._root = root
        self._image_folder, self._mask_folder = (Path(options.folder, kind) for kind in (IMAGES, MASKS))
        self._options = options
        self._meaning = meaning
        self._taken: dict[str, bool] = {}  # by dataset
        self._used = 0  # masks that belong to a picture
        self._next = 0  # where the masks of the next picture are likely to be

    def cases(self) -> Iterator[Found]:
        """Every chosen picture but those all of whose classes are left out."""
        for name in self._chosen(self._images):
            found = self._case(name) if name.endswith(_SUFFIX) else None
            if found is not None:
                yield found

    def unpaired_masks(self) -> Iterator[Found]:
        """Masks of the chosen part whose picture is not there, one entry a picture."""
        total = sum(end - start for start, end in self._spans(self._masks))
        if total == self._used:
            return
        last = ""
        for name in self._chosen(self._masks):
            stem = name.rpartition(_JOINT)[0]
            if stem != last and not _holds(self._images, stem + _SUFFIX):
                yield Found(stem or name, (), (), "label without image", group=self._group(stem))
            last = stem

    def _chosen(self, names: Sequence[str]) -> Iterator[str]:
        for start, end in self._spans(names):
            for number in range(start, end):
                name = names[number]
                if self._takes(name):
                    yield name
                elif names is self._images and name.endswith(_SUFFIX):
                    self._labels(name.removesuffix(_SUFFIX), "")  # their masks are no orphans

    def _spans(self, names: Sequence[str]) -> Iterator[tuple[int, int]]:
        """Stretches of ``names`` of the chosen modalities, and of datasets where both are named."""
        for prefix in self._prefixes:
            yield bisect_left(names, prefix), bisect_left(names, prefix + _LAST)

    @cached_property
    def _prefixes(self) -> list[str]:
        modalities = sorted(set(self._options.modalities)) or [""]
        if modalities == [""]:
            return [""]
        datasets = sorted(set(self._options.datasets)) or [""]
        return [
            f"{modality}{_JOINT}{dataset}{_JOINT if dataset else ''}"
            for modality in modalities
            for dataset in datasets
        ]

    def _takes(self, name: str) -> bool:
        parts = name.split(_JOINT)
        dataset = parts[1] if len(parts) > 1 else ""
        if dataset not in self._taken:
            chosen = self._options.datasets
            wanted = not chosen or dataset in chosen
            self._taken[dataset] = wanted and not self._meaning.leaves_out(dataset)
        return self._taken[dataset]

    def _case(self, name: str) -> Found | None:
        stem = name.removesuffix(_SUFFIX)
        parts = stem.split(_JOINT)
        images = (ImageFile(paths=(self._image_folder / name,)),)
        if len(parts) < _LEAST_PARTS:
            return Found(stem, images, (), "its name has not the four parts that the release's names have")
        labels, problem, left_out = self._labels(stem, parts[1])
        if not labels and not problem:
            if left_out:
                return None
            problem = "image without label"
        return whole(self._root, Found(stem, images, labels, problem, group=self._group(stem)))

    def _labels(self, stem: str, dataset: str) -> tuple[tuple[LabelFile, ...], str, int]:
        """(mask files, problem, number of masks left out) of a picture."""
        prefix, masks = stem + _JOINT, self._masks
        number = self._next
        if not (number < len(masks) and masks[number].startswith(prefix)):
            number = bisect_left(masks, prefix)
        labels: list[LabelFile] = []
        problem, left_out = "", 0
        while number < len(masks) and (name := masks[number]).startswith(prefix):
            number, self._used = number + 1, self._used + 1
            match = _MASK.fullmatch(name, len(prefix))
            if match is None:
                problem = "a mask's name does not end in class and instance"
                continue
            key = self._meaning.label(dataset, int(match[1])) if dataset else None
            if key is None:
                left_out += 1
            else:
                labels.append(LabelFile(paths=(self._mask_folder / name,), label=key))
        self._next = number
        return tuple(labels), problem, left_out

    def _group(self, stem: str) -> str:
        """The patient: the case's name without modality, axis and slice, as the dataset's rule reads it."""
        _, dataset, *case, _ = (
            stem.split(_JOINT) if stem.count(_JOINT) >= _LEAST_PARTS - 1 else ("", "", stem, "")
        )
        name = _JOINT.join(case)
        rule = self._options.patients.get(dataset)
        if rule is None:
            return f"{dataset}/{name}"
        match = re.search(rule.pattern, name)
        if match is None:
            raise ConfigError(
                f'sa-med2d-release: patients.{dataset}.pattern "{rule.pattern}" does not match the case "{name}"'
            )
        return f"{rule.namespace or dataset}/{match['group']}"


def _holds(names: Sequence[str], name: str) -> bool:
    number = bisect_left(names, name)
    return number < len(names) and names[number] == name
