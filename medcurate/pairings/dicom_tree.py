"""A collection of DICOM files in any folders: series and the labels that refer to them, by their headers (TCIA).

File and folder names decide nothing. A case is an image series with its labels; its name is
"<Patient ID>/<Series Instance UID>", its patient the Patient ID.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from pydantic import model_validator

from medcurate.commit import sha256_file
from medcurate.config.source import Strict
from medcurate.errors import ConfigError, DataMissing
from medcurate.pairings.dicom_headers import Facts, scan
from medcurate.pairings.found import Found, Names, whole
from medcurate.pairings.letters import no_match
from medcurate.pairings.listed import Listed
from medcurate.pairings.paired_folders import FolderTemplate
from medcurate.pairings.tree import check_template, files_below, folders, wildcard_pattern
from medcurate.types import ImageFile, LabelFile

_KINDS = {"seg": "SEG", "rtstruct": "RTSTRUCT", "lidc-xml": "lidc-xml"}
NOT_IMAGES = {"", "damaged", "lidc-xml", "SEG", "RTSTRUCT", "RTDOSE", "RTPLAN", "REG", "SR", "PR", "KO"}
_ID, _LABEL = "{id}", "{label}"


class Options(Strict):
    """``folder``: all files below it, at any depth, are looked at; ``*`` and ``**`` allowed.

    ``labels``: what labels are: "seg" and "rtstruct" objects and "lidc-xml" readings find their series by the UID
    that they state; "files" are other files, at the path ``label`` below the source's folder, where ``{id}`` is
    what the group ``id`` of the regular expression ``patient`` finds in the Patient ID, ``{label}`` a key of
    [labels] and ``*`` any text of a name.

    ``modality``: the DICOM Modality of image series (CT, MR, …). ``image_description``,
    ``label_description``: Series Descriptions to take, with ``*``. ``several_labels``: whether a series may have
    several. ``unlabelled``: series without a label, and labels whose series is not there, are rejected cases, or are
    left out.
    """

    folder: FolderTemplate = "."
    labels: Literal["seg", "rtstruct", "lidc-xml", "files"]
    modality: str
    image_description: str = "*"
    label_description: str = "*"
    several_labels: bool = False
    unlabelled: Literal["reject", "omit"] = "reject"
    label: str = ""
    patient: str = "(?P<id>.+)"

    @model_validator(mode="after")
    def _fitting(self) -> Options:
        if (self.labels == "files") != bool(self.label):
            raise ValueError('label is the path of labels = "files"')
        try:
            groups = re.compile(self.patient).groupindex
        except re.error as error:
            raise ValueError(f"patient is no regular expression: {error}") from error
        if "id" not in groups:
            raise ValueError('patient needs the named group "id"')
        if self.label:
            check_template(self.label)
        return self


@dataclass(slots=True)
class _Series:
    facts: Facts
    paths: list[Path] = field(default_factory=list)
    damaged: bool = False  # beside its files lies a DICOM file that cannot be read


def check(options: Options, names: Names) -> None:
    """Raise ValueError where options and the source's channels and labels do not fit."""
    if names.channels:
        raise ValueError("dicom-tree finds one series a case: [[channels]] have no place in it")
    if _LABEL in options.label and not names.labels:
        raise ValueError("{label} is used but the source declares no [labels]")


def find(root: Path, options: Options, names: Names) -> Iterator[Found]:
    """The cases below ``root``, sorted by name. Raises ConfigError, DataMissing."""
    try:
        check(options, names)
    except ValueError as error:
        raise ConfigError(f"dicom-tree: {error}") from error
    places = folders(root, options.folder)
    if not places:
        raise no_match(root, options.folder, "folder")
    paths = sorted({path for folder in places for path in files_below(root, folder.path)})
    facts = scan(root, paths)
    images = _series(facts, options)
    if not images:
        raise DataMissing(
            f'{root}: no DICOM series of modality "{options.modality}" below "{options.folder}". '
            "Put the collection there, or mend the [[pairings]] options of the source."
        )
    found = (
        _with_files(root, images, options, names)
        if options.label
        else _with_objects(root, facts, images, options)
    )
    yield from sorted(found, key=lambda entry: entry.name)


def _series(facts: Mapping[Path, Facts], options: Options) -> dict[str, _Series]:
    """Image series by UID; files keep the order of their paths."""
    wanted = wildcard_pattern(options.image_description)
    damaged = {path.parent for path, fact in facts.items() if fact.kind == "damaged"}
    nothing = {_name_shape(path) for path, fact in facts.items() if not fact.kind}
    found: dict[str, _Series] = {}
    for path, fact in facts.items():
        if (
            fact.kind == options.modality
            and fact.kind not in NOT_IMAGES
            and wanted.fullmatch(fact.description)
        ):
            series = found.setdefault(fact.series, _Series(fact))
            series.paths.append(path)
            series.damaged |= path.parent in damaged or _name_shape(path) in nothing
    return found


def _name_shape(path: Path) -> tuple[Path, str]:
    """A path without its numbers: what is called like the planes beside it was one, whatever its bytes are."""
    return path.parent, re.sub(r"[0-9]+", "0", path.name)


def _with_objects(
    root: Path, facts: Mapping[Path, Facts], images: Mapping[str, _Series], options: Options
) -> Iterator[Found]:
    """Cases whose labels are objects that name their series."""
    wanted, kind = wildcard_pattern(options.label_description), _KINDS[options.labels]
    present = {fact.series for fact in facts.values() if fact.kind not in NOT_IMAGES}
    labels: dict[str, list[Path]] = {}
    for path, fact in facts.items():
        if fact.kind != kind or not wanted.fullmatch(fact.description):
            continue
        targets = _targets(fact, images)
        for uid in targets:
            labels.setdefault(uid, []).append(path)
        if not targets and not fact.refers_to:
            yield _lost(path, fact, "label that names no series")
        elif not present.intersection(fact.refers_to) and not targets and options.unlabelled == "reject":
            yield _lost(path, fact, "label without image")
    for uid, series in images.items():
        files = tuple(LabelFile(paths=(path,)) for path in _distinct(root, labels.get(uid, ())))
        if files or options.unlabelled == "reject":
            yield _found(series, files, options)


def _distinct(root: Path, paths: Sequence[Path]) -> Iterator[Path]:
    """``paths`` without copies: collections hold the same label under several names (LIDC-IDRI's readings)."""
    seen: set[str] = set()
    for path in paths:
        digest = sha256_file(root / path) if len(paths) > 1 else ""
        if digest not in seen:
            seen.add(digest)
            yield path


def _lost(path: Path, facts: Facts, problem: str) -> Found:
    return Found(_name(facts, path), (), (LabelFile(paths=(path,)),), problem, facts.patient)


def _targets(fact: Facts, images: Mapping[str, _Series]) -> list[str]:
    """The series that a label names; where it names none, the only one in its frame of reference."""
    if fact.refers_to:
        return [uid for uid in fact.refers_to if uid in images]
    same = [
        uid
        for uid, series in images.items()
        if fact.frame_of_reference and series.facts.frame_of_reference == fact.frame_of_reference
    ]
    return same if len(same) == 1 else []


def _with_files(root: Path, images: Mapping[str, _Series], options: Options, names: Names) -> Iterator[Found]:
    """Cases whose labels are files named after the patient; files of no patient are cases too."""
    keys = names.labels if _LABEL in options.label else ("",)
    by_patient: dict[str, list[LabelFile]] = {}
    listed = Listed(root)
    for patient in {_file_id(series.facts, options) for series in images.values()} - {""}:
        by_patient[patient] = list(_label_files(listed, options.label, patient, keys))
    series_of = Counter(_file_id(series.facts, options) for series in images.values())
    for series in images.values():
        patient = _file_id(series.facts, options)
        labels = by_patient.get(patient, ())
        if labels and series_of[patient] > 1:
            yield _ambiguous(_found(series, labels, options), series_of[patient])
        elif labels or options.unlabelled == "reject":
            yield whole(root, _found(series, labels, options))
    if options.unlabelled == "reject":
        used = {path for labels in by_patient.values() for label in labels for path in label.paths}
        for label in _label_files(listed, options.label, "*", keys):
            if not used.intersection(label.paths):
                yield Found(label.paths[0].as_posix(), (), (label,), "label without image")


def _label_files(listed: Listed, template: str, patient: str, keys: Sequence[str]) -> Iterator[LabelFile]:
    for key in keys:
        for paths in listed.matches(template.replace(_LABEL, key).replace(_ID, patient)):
            yield LabelFile(paths=paths, label=key)


def _ambiguous(found: Found, count: int) -> Found:
    """A label names a patient and no series: which of several it was drawn on is not guessed."""
    problem = f"its patient has {count} series for one label: name the labelled one by image_description"
    return replace(found, problem=problem)


def _file_id(facts: Facts, options: Options) -> str:
    """What stands for the patient in names of files, "" where nothing does.

    A Patient ID is free text of a header: it may neither lead to another folder nor stand for several patients.
    """
    match = re.search(options.patient, facts.patient)
    found = (match["id"] or "") if match else ""
    return "" if found in {".", ".."} or any(letter in found for letter in "/\\*") else found


def _found(series: _Series, labels: Sequence[LabelFile], options: Options) -> Found:
    keys = [label.label for label in labels]
    problem = ""
    if series.damaged:
        problem = "a DICOM file beside those of the series cannot be read"
    elif not labels:
        problem = "image without label"
    elif len(set(keys)) < len(keys) and not options.several_labels:
        problem = f"{len(labels)} label files where one is expected"
    return Found(
        name=_name(series.facts, series.paths[0]),
        images=(ImageFile(paths=tuple(series.paths)),),
        labels=tuple(labels),
        problem=problem,
        group=series.facts.patient or series.facts.study,
    )


def _name(facts: Facts, path: Path) -> str:
    return f"{facts.patient or facts.study or 'unknown'}/{facts.series or path.stem}"
