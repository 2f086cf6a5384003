"""Collections of DICOM files worth trying: what a sample of headers says is image, and what was drawn on it."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from medcurate.inspection.candidates import Candidate
from medcurate.inspection.case_candidates import with_token
from medcurate.inspection.survey import Survey, kind_of
from medcurate.inspection.words import is_label
from medcurate.pairings.dicom_headers import Facts, scan
from medcurate.pairings.dicom_tree import NOT_IMAGES
from medcurate.pairings.names import LABEL

FOLDERS_READ, FILES_READ = 400, 8  # of a tree, of a folder
MODALITIES = 3
PATIENTS = 50  # whose labels are looked for among the names of files
_DRAWN = {"SEG": "seg", "RTSTRUCT": "rtstruct"}
_ID = "{id}"
_NUMBER = "(?P<id>[0-9]+)$"  # at the end of a Patient ID


def by_headers(survey: Survey) -> Iterator[Candidate]:
    """Candidates of the kind dicom-tree."""
    facts = list(scan(survey.root, _sample(survey)).values())
    counted = Counter(fact.kind for fact in facts)
    images = [kind for kind, _ in counted.most_common() if kind not in NOT_IMAGES][:MODALITIES]
    for modality in images:
        weight = counted[modality]
        for kind, labels in _DRAWN.items():
            if counted[kind]:
                options = {"labels": labels, "modality": modality}
                yield Candidate("dicom-tree", options, weight=weight + counted[kind])
        yield from _with_files(survey, modality, [fact for fact in facts if fact.kind == modality])


def _sample(survey: Survey) -> list[Path]:
    """Some of the files of some folders, the last of each among them: labels often lie behind the planes."""
    folders = [folder for folder, names in survey.data.items() if any(kind_of(n) == "dicom" for n in names)]
    found = []
    for folder in folders[:: max(1, len(folders) // FOLDERS_READ)]:
        names = [name for name in survey.data[folder] if kind_of(name) == "dicom"]
        some = [*names[:: max(1, len(names) // FILES_READ)], names[-1]]
        found += [Path(folder, name) for name in dict.fromkeys(some)]
    return found


def _with_files(survey: Survey, modality: str, images: Sequence[Facts]) -> Iterator[Candidate]:
    """Labels that are other files, called after the patient, or the only ones beside a single patient."""
    others = [
        f"{folder}/{name}".lstrip("/")
        for folder, names in survey.data.items()
        for name in names
        if kind_of(name) != "dicom"
    ]
    patients = sorted({fact.patient for fact in images} - {""})[:PATIENTS]
    numbers = [found["id"] for patient in patients if (found := re.search(_NUMBER, patient))]
    alone = Counter(others if len({fact.series for fact in images}) == 1 else ())
    ways: list[tuple[dict[str, str], Counter[str]]] = [
        ({}, _called(others, patients)),
        ({"patient": _NUMBER}, _called(others, numbers)),
        ({}, alone),
    ]
    for patient, templates in ways:
        for label, tokens, weight in _templates(templates):
            options = {"labels": "files", "modality": modality, "label": label, **patient}
            yield Candidate("dicom-tree", options, tokens=tokens, weight=weight + len(images))


def _called(paths: Sequence[str], patients: Sequence[str]) -> Counter[str]:
    """Paths with {id} in place of a patient, as a word of its own, by how many patients they are of."""
    found: dict[str, set[str]] = defaultdict(set)
    for patient in patients:
        word = re.compile(
            f"(?<![0-9]){re.escape(patient)}(?![0-9])" if patient[-1:].isdigit() else re.escape(patient)
        )
        for path in paths:
            if patient in path and "*" not in path:
                found[word.sub(_ID, path)].add(patient)
    return Counter({template: len(of) for template, of in found.items() if _ID in template})


def _templates(called: Counter[str]) -> Iterator[tuple[str, tuple[str, ...], int]]:
    """(template, classes, files): the commonest paths, and those that differ in one word, one file a class."""
    if not called:
        return
    most = max(called.values())
    common = sorted(template for template, count in called.items() if 2 * count >= most)
    sounding = [template for template in common if is_label(template)] or common
    shared = with_token(sounding, LABEL)
    if shared:
        yield *shared, sum(called[template] for template in sounding)
    yield from ((template, (), called[template]) for template in sounding)
