"""One folder a case, with fixed names inside (BraTS, KiTS, TotalSegmentator, CHAOS, PH2, …)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from medcurate.config.source import Strict
from medcurate.errors import ConfigError
from medcurate.pairings.found import Candidates, Found, Names, Paths, judged, passed_over
from medcurate.pairings.letters import folded, no_match, other_case
from medcurate.pairings.names import CHANNEL, LABEL, check_tokens
from medcurate.pairings.paired_folders import FolderTemplate
from medcurate.pairings.tree import check_template, entries, files_below, folders, wildcard_pattern

CASE = "{case}"
ONLY = "case"  # the name of the source's folder itself, which its owner may call as they like


class Options(Strict):
    """``cases``: the folders that are a case each, below the source's; ``*`` and ``**`` allowed.

    ``image`` and ``label``: a path inside such a folder, with ``{case}`` (the folder's name), ``{channel}``
    and ``{label}`` replaced and ``*`` standing for any text of one name. Exactly one file must match, for
    ``{label}`` at most one a class; ``several_labels`` allows any number of label files (one file an
    object). A path that ends in "/" is a folder, and all regular files below it are one series.

    The case's name is made of the components of its path that ``cases`` has a wildcard for; of ``cases = "."``, the
    source's folder itself, it is "case".
    """

    cases: FolderTemplate = "*"
    image: Annotated[str, AfterValidator(check_template)]
    label: Annotated[str, AfterValidator(check_template)]
    several_labels: bool = False


def check(options: Options, names: Names) -> None:
    """Raise ValueError where tokens in templates and the source's channels do not fit."""
    check_tokens(names, (options.image,), (options.label,))


def find(root: Path, options: Options, names: Names) -> Iterator[Found]:
    """The cases below ``root``, sorted by name. Raises ConfigError, DataMissing.

    A file that is neither image nor label, or a folder that is none of those declared, only because letters have a
    case is a case with a problem, called by its path: a class's mask that is passed over would be a class that the
    case does not show.
    """
    try:
        check(options, names)
    except ValueError as error:
        raise ConfigError(f"case-folder: {error}") from error
    cases = folders(root, options.cases)
    if not cases:
        raise no_match(root, options.cases, "cases")
    found = [passed_over(path) for path in other_case(root, options.cases)]
    for folder in cases:
        others: list[Path] = []
        files = Candidates(
            images=_matches(root, folder.path, options.image, CHANNEL, names.channels, others),
            labels=_matches(root, folder.path, options.label, LABEL, names.labels, others),
        )
        found += [passed_over(path) for path in dict.fromkeys(others)]
        name = folder.name or folder.path.name or ONLY
        found.append(judged(root, name, files, names, several_labels=options.several_labels))
    return iter(sorted(found, key=lambda entry: entry.name))


def _matches(
    root: Path, case: Path, template: str, placeholder: str, tokens: Sequence[str], others: list[Path]
) -> dict[str, list[Paths]]:
    """Files of ``case`` by token; tokens without a file are absent.

    ``others`` is filled with those that only the case of their letters keeps apart from what is declared.
    """
    template = template.replace(CASE, case.name)
    filled = (
        {token: template.replace(placeholder, token) for token in tokens}
        if placeholder in template
        else {"": template}
    )
    listed: dict[str, list[_Listing]] = {}
    declared: dict[str, list[str]] = {}
    found = {}
    for token, text in filled.items():
        parent, _, last = text.rstrip("/").rpartition("/")
        if parent not in listed:
            listed[parent] = _listings(root, case, parent)
            others += [case / path for path in other_case(root / case, parent)]
        declared.setdefault(parent, []).append(last)
        found[token] = _files(root, listed[parent], last, series=text.endswith("/"))
    for parent, lasts in declared.items():
        others += _other_case(listed[parent], lasts, series=template.endswith("/"))
    return {token: paths for token, paths in found.items() if paths}


def _other_case(listings: Sequence[_Listing], lasts: Sequence[str], *, series: bool) -> Iterator[Path]:
    """What the ``lasts`` would mean if letters had no case, but for twins of what they do mean."""
    exact, alike = _Lasts(lasts), _Lasts([folded(last) for last in lasts])
    for listing in listings:
        offered = listing.below if series else listing.files
        meant = {folded(name) for name in offered if exact.mean(name)}
        for name in sorted(offered):
            if alike.mean(folded(name)) and folded(name) not in meant:
                yield listing.folder / name


class _Lasts:
    """Last parts of templates, of which a folder of one file a class has hundreds."""

    def __init__(self, lasts: Sequence[str]) -> None:
        self._names = frozenset(last for last in lasts if "*" not in last)
        self._patterns = [wildcard_pattern(last) for last in lasts if "*" in last]

    def mean(self, name: str) -> bool:
        return name in self._names or any(pattern.fullmatch(name) for pattern in self._patterns)


@dataclass(frozen=True, slots=True)
class _Listing:
    """One folder of a case, listed once for all templates that speak of it."""

    folder: Path
    files: frozenset[str]
    below: frozenset[str]


def _listings(root: Path, case: Path, parent: str) -> list[_Listing]:
    found = []
    for below in folders(root / case, parent or "."):
        files, inside = entries(root / case / below.path)
        found.append(_Listing(case / below.path, frozenset(files), frozenset(inside)))
    return found


def _files(root: Path, listings: Sequence[_Listing], last: str, *, series: bool) -> list[Paths]:
    """What ``last`` means in the listed folders: files, or with ``series`` all files below folders."""
    found = []
    for listing in listings:
        offered = listing.below if series else listing.files
        if "*" in last:
            names = sorted(name for name in offered if wildcard_pattern(last).fullmatch(name))
        else:
            names = [last] if last in offered else []
        found += [listing.folder / name for name in names]
    if series:
        return [paths for folder in found if (paths := files_below(root, folder))]
    return [(path,) for path in found]
