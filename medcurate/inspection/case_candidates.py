"""Case folders worth trying: which folders look alike inside, and what in them is image and label."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile

from medcurate.inspection.candidates import Candidate, generalise
from medcurate.inspection.survey import Survey, extension, is_series, kind_of
from medcurate.inspection.words import MAX_CLASSES, is_image, is_label
from medcurate.pairings.case_folder import CASE
from medcurate.pairings.names import CHANNEL, LABEL

MAX_DEPTH = 4
SAMPLE_CASES = 100
MOST_IMAGES = 16  # of a case


def by_folders(survey: Survey) -> Iterator[Candidate]:
    """Candidates of the kind case-folder."""
    for depth in range(1, MAX_DEPTH + 1):
        inside: dict[str, list[str]] = defaultdict(list)  # case folder -> folders with data in it
        for folder in survey.data:
            parts = folder.split("/")
            if folder and len(parts) >= depth:
                inside["/".join(parts[:depth])].append(folder)
        parents: dict[str, list[str]] = defaultdict(list)
        for case in inside:
            parents[case.rpartition("/")[0]].append(case)
        biggest = sorted(parents, key=lambda parent: (-len(parents[parent]), parent))[:3]
        for cases in (*(parents[parent] for parent in biggest), list(inside)):
            yield from _of(survey, cases, inside)


def one_case(survey: Survey) -> Iterator[Candidate]:
    """Candidates of a folder that is one case, with image and labels in it.

    Only for trees that are nothing else: of a tree of many cases every file could be a channel of one.
    """
    if len(survey.data) <= MAX_CLASSES:
        yield from _of(survey, [""], {"": list(survey.data)})


def _are_cases(channels: Sequence[str]) -> bool:
    """Whether what is called so is not one image in several channels: too many, or numbered by more than a digit."""
    return len(channels) > MOST_IMAGES or any(re.search(r"[0-9]{2}", name) for name in channels)


def _of(survey: Survey, cases: Sequence[str], inside: Mapping[str, Sequence[str]]) -> Iterator[Candidate]:
    if 2 * len({case.rpartition("/")[2] for case in cases}) < len(cases):
        return  # the same names again and again are parts of cases
    counted: Counter[str] = Counter()
    chosen = cases[:: max(1, len(cases) // SAMPLE_CASES)]
    for case in chosen:
        counted.update(_templates(survey, case, inside[case]))
    images, labels, common = _sides(counted, len(chosen))
    if not images or not labels:
        return
    image, channels = _choice(images, counted, CHANNEL)
    if _are_cases(channels):
        return  # site/patient/image.nii.gz: these folders are not cases, what is below them is
    place = {"cases": _cases(cases), "image": image}
    is_picture = kind_of(image) == "raster" and not channels and len(cases) > 1
    if objects := _objects(survey, inside[chosen[0]], labels, counted, is_picture=is_picture):
        weight = counted[image] + sum(counted[label] for label in labels)
        yield Candidate("case-folder", {**place, "label": objects, "several_labels": True}, weight=weight)
        return
    for label, tokens in _label_choices(labels, common, counted):
        weight = sum(counted[t] for t in images) if channels else counted[image]
        weight += sum(counted[label.replace(LABEL, token)] for token in tokens) if tokens else counted[label]
        yield Candidate("case-folder", {**place, "label": label}, channels, tokens, weight)


def _sides(counted: Mapping[str, int], cases: int) -> tuple[list[str], list[str], list[str]]:
    """Templates of images and of labels, and those that most cases have."""
    common = [template for template, count in counted.items() if 2 * count >= cases]
    labels = sorted(template for template in counted if is_label(template) and not _is_rare(template, common))
    images = sorted(template for template in common if not is_label(template))
    if not labels:  # "ct" and "liver": what sounds like no image may be one
        images, labels = _by_images(images)
    return images, labels, common


def _objects(
    survey: Survey,
    places: Sequence[str],
    labels: Sequence[str],
    counted: Mapping[str, int],
    *,
    is_picture: bool,
) -> str:
    """The template of labels that are one file an object, "" where they are not.

    Such files are called by numbers or hashes, others in every case; of a volume numbered ones are its planes.
    """
    folders = {label.rstrip("/").rpartition("/")[0] if label[-1] != "/" else label[:-1] for label in labels}
    folder = folders.pop()
    if folders or not folder or not is_picture:
        return ""
    if labels == [f"{folder}/"]:
        ends = {extension(survey.data[place][0]) for place in places if f"/{place}".endswith(f"/{folder}")}
        return f"{folder}/*{ends.pop()}" if len(ends) == 1 else ""
    ends = {extension(label) for label in labels}
    own = sum(counted[label] == 1 and re.search(r"[0-9]", label) is not None for label in labels)
    return f"{folder}/*{ends.pop()}" if 2 * own > len(labels) > 2 and len(ends) == 1 else ""


def _by_images(templates: Sequence[str]) -> tuple[list[str], list[str]]:
    """Those of ``templates`` that sound like images, and the others."""
    images = [template for template in templates if is_image(template.rstrip("/").rpartition("/")[2])]
    return images, [template for template in templates if template not in images]


def _is_rare(template: str, common: Sequence[str]) -> bool:
    """Whether ``template`` is neither common nor lies in a folder of classes, which few cases have all of."""
    return template not in common and "/" not in template


def _cases(cases: Sequence[str]) -> str:
    """The template of case folders: the last name is always the case's own; "." is the whole tree."""
    if cases == [""]:
        return "."
    paths = [tuple(case.split("/")) for case in cases]
    parent = generalise([path[:-1] for path in paths])
    return "*" if parent == "." else f"{parent}/*"


def _templates(survey: Survey, case: str, folders: Sequence[str]) -> set[str]:
    """What lies in a case, with its own name as {case} and series as "folder/"."""
    name = case.rpartition("/")[2]
    found = set()
    for folder in folders:
        below = folder[len(case) + 1 :] if case else folder
        files = survey.data[folder]
        kind = kind_of(files[0])
        if below and is_series(files) and (kind == "dicom" or (kind == "raster" and is_label(below))):
            found.add(f"{below}/")
            continue
        found |= {f"{below}/{file}".lstrip("/") for file in files[:MAX_CLASSES]}
    return {template.replace(name, CASE) for template in found} if name else found


def _choice(templates: Sequence[str], counted: Mapping[str, int], token: str) -> tuple[str, tuple[str, ...]]:
    """One template for all of them with ``token`` where they differ, or else the commonest one."""
    shared = with_token(templates, token)
    return shared or (max(templates, key=lambda t: (counted[t], -len(t))), ())


def _label_choices(
    labels: Sequence[str], common: Sequence[str], counted: Mapping[str, int]
) -> Iterator[tuple[str, tuple[str, ...]]]:
    yield from ((label, ()) for label in labels if label in common)
    by_folder: dict[str, list[str]] = defaultdict(list)
    for label in labels:
        by_folder[label.rstrip("/").rpartition("/")[0]].append(label)
    for alike in (labels, *by_folder.values()):
        shared = with_token(alike, LABEL)
        if shared:
            yield shared


def with_token(templates: Sequence[str], token: str) -> tuple[str, tuple[str, ...]] | None:
    """A template with ``token`` and its values, where the templates differ in one word only."""
    if len(templates) < 2 or len({extension(template) for template in templates}) > 1:
        return None
    end = "/" if templates[0].endswith("/") else extension(templates[0])
    bodies = [template[: len(template) - len(end)] for template in templates]
    start = re.sub(r"[A-Za-z0-9]+$", "", _shared_start(bodies))
    tail = re.sub(r"^[A-Za-z0-9]+", "", _shared_start([body[::-1] for body in bodies])[::-1])
    words = [body[len(start) : len(body) - len(tail)] for body in bodies]
    if any(not re.fullmatch(r"[A-Za-z0-9_]*[A-Za-z][A-Za-z0-9_]*|000[0-9]", word) for word in words):
        return None
    return f"{start}{token}{tail}{end}", tuple(words)


def _shared_start(words: Sequence[str]) -> str:
    alike = takewhile(lambda letters: len(set(letters)) == 1, zip(*words, strict=False))
    return "".join(letters[0] for letters in alike)
