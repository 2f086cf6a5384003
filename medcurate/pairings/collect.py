"""Files of a tree to candidates of cases: shared by the kinds that pair by the names of files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from medcurate.pairings.found import Candidates, Found, Names, judged, passed_over
from medcurate.pairings.letters import folded, no_match, other_case
from medcurate.pairings.names import Matcher, Rule
from medcurate.pairings.tree import Folder, entries, files_below, folders, wildcard_count, wildcard_pattern


@dataclass(frozen=True, slots=True)
class Search:
    """Where images and labels lie and what they are called; ``ignore``: names that are neither."""

    images: tuple[Rule, ...]
    labels: tuple[Rule, ...]
    ignore: tuple[str, ...] = ()
    several_labels: bool = False


@dataclass(slots=True)
class _Place:
    folder: Folder
    images: list[Rule] = field(default_factory=list)
    labels: list[Rule] = field(default_factory=list)


def collect(root: Path, search: Search, names: Names) -> Iterator[Found]:
    """All cases below ``root``, sorted by name. Raises DataMissing where no folder matches a template.

    A file that could be an image and a label is what its longer ending says. One that is neither, or a folder that
    is not looked into, only because letters have a case is a case with a problem, called by its path.
    """
    places = _places(root, search)
    templates = dict.fromkeys(rule.folder for rule in (*search.images, *search.labels))
    unseen = dict.fromkeys(path for template in templates for path in other_case(root, template))
    shared = _shares_wildcards(search)
    cases: dict[tuple[tuple[str, ...], str], Candidates] = {}
    shown: dict[tuple[str, ...], str] = {}
    found = [passed_over(path) for path in unseen if path not in places]
    for path in sorted(places, key=lambda path: path.parts):
        place = places[path]
        key = place.folder.wildcards if shared else ()
        if shared and (place.images or key not in shown):
            shown[key] = place.folder.name
        others: list[str] = []
        for stem, token, paths, is_label in _files(root, place, search.ignore, others):
            files = cases.setdefault((key, stem), Candidates())
            (files.labels if is_label else files.images).setdefault(token, []).append(paths)
        found += _other_case(place, others)
    found += [
        judged(root, _name(shown.get(key, ""), stem), files, names, several_labels=search.several_labels)
        for (key, stem), files in cases.items()
    ]
    yield from sorted(found, key=lambda entry: entry.name)


def _places(root: Path, search: Search) -> dict[Path, _Place]:
    """Every folder to look into, with the rules that hold there."""
    places: dict[Path, _Place] = {}
    for rules, what in ((search.images, "image"), (search.labels, "label")):
        templates = list(dict.fromkeys(rule.folder for rule in rules))
        matched = {template: folders(root, template) for template in templates}
        if not any(matched.values()):
            raise no_match(root, templates[0], "the folder", f" for {what} files")
        for rule in rules:
            for folder in matched[rule.folder]:
                place = places.setdefault(folder.path, _Place(folder))
                (place.labels if what == "label" else place.images).append(rule)
    return places


def _shares_wildcards(search: Search) -> bool:
    """Whether wildcards tell cases apart: they do where both sides have them, else folders are pooled."""
    return all(wildcard_count(side[0].folder) > 0 for side in (search.images, search.labels))


def _files(
    root: Path, place: _Place, ignore: Sequence[str], others: list[str]
) -> Iterator[tuple[str, str, tuple[Path, ...], bool]]:
    """(stem, token, paths, is label) of every file, or folder of a series, that a rule explains.

    ``others`` is filled with the names that none does, but for those that only the case of their letters keeps
    apart from one beside them.
    """
    images, labels = Matcher(place.images), Matcher(place.labels)
    ignored = [wildcard_pattern(pattern) for pattern in ignore]
    rest, explained = [], set()
    for name in _offered(root, place):
        if any(pattern.fullmatch(name.rstrip("/")) for pattern in ignored):
            continue
        image, label = images.match(name), labels.match(name)
        is_label = label is not None and (image is None or len(label.stem) < len(image.stem))
        hit = label if is_label else image
        if hit is None:
            rest.append(name)
            continue
        explained.add(folded(name))
        path = place.folder.path / name
        paths = files_below(root, path) if name.endswith("/") else (path,)
        if paths:
            yield hit.stem, hit.rule.token, paths, is_label
    others += [name for name in rest if folded(name) not in explained]


def _other_case(place: _Place, names: Sequence[str]) -> Iterator[Found]:
    """Those of ``names`` that a rule would explain if letters had no case: as likely meant as not."""
    rules = (*place.images, *place.labels)
    alike = [replace(rule, prefix=folded(rule.prefix), suffix=folded(rule.suffix)) for rule in rules]
    matcher = Matcher(alike if names else ())
    for name in names:
        if matcher.match(folded(name)):
            yield passed_over(place.folder.path / name)


def _offered(root: Path, place: _Place) -> list[str]:
    files, below = entries(root / place.folder.path)
    series = any(rule.suffix.endswith("/") for rule in (*place.images, *place.labels))
    return files + [f"{name}/" for name in below] if series else files


def _name(folder: str, stem: str) -> str:
    return f"{folder}/{stem}" if folder else stem
