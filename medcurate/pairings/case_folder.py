"""One folder a case, with fixed names inside (BraTS, KiTS, TotalSegmentator, CHAOS, PH2, …)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import AfterValidator

from medcurate.config.source import Strict
from medcurate.errors import ConfigError, DataMissing
from medcurate.pairings.found import Candidates, Found, Names, Paths, judged
from medcurate.pairings.names import CHANNEL, LABEL, check_tokens
from medcurate.pairings.paired_folders import FolderTemplate
from medcurate.pairings.tree import (
    check_template,
    entries,
    files_below,
    folders,
    is_data_file,
    wildcard_pattern,
)

CASE = "{case}"


class Options(Strict):
    """``cases``: the folders that are a case each, below the source's; ``*`` and ``**`` allowed.

    ``image`` and ``label``: a path inside such a folder, with ``{case}`` (the folder's name), ``{channel}``
    and ``{label}`` replaced and ``*`` standing for any text of one name. Exactly one file must match, for
    ``{label}`` at most one a class; ``several_labels`` allows any number of label files (one file an
    object). A path that ends in "/" is a folder, and all regular files below it are one series.

    The case's name is made of the components of its path that ``cases`` has a wildcard for.
    """

    cases: FolderTemplate = "*"
    image: Annotated[str, AfterValidator(check_template)]
    label: Annotated[str, AfterValidator(check_template)]
    several_labels: bool = False


def check(options: Options, names: Names) -> None:
    """Raise ValueError where tokens in templates and the source's channels do not fit."""
    check_tokens(names, (options.image,), (options.label,))


def find(root: Path, options: Options, names: Names) -> Iterator[Found]:
    """The cases below ``root``, sorted by name. Raises ConfigError, DataMissing."""
    try:
        check(options, names)
    except ValueError as error:
        raise ConfigError(f"case-folder: {error}") from error
    cases = folders(root, options.cases)
    if not cases:
        raise DataMissing(
            f'{root}: no folder matches "{options.cases}". '
            "Put the files of the source there, or mend cases in its [[pairings]] options."
        )
    found = []
    for folder in cases:
        files = Candidates(
            images=_matches(root, folder.path, options.image, CHANNEL, names.channels),
            labels=_matches(root, folder.path, options.label, LABEL, names.labels),
        )
        name = folder.name or folder.path.name
        found.append(judged(root, name, files, names, several_labels=options.several_labels))
    return iter(sorted(found, key=lambda entry: entry.name))


def _matches(
    root: Path, case: Path, template: str, placeholder: str, tokens: Sequence[str]
) -> dict[str, list[Paths]]:
    """Files of ``case`` by token; tokens without a file are absent."""
    template = template.replace(CASE, case.name)
    filled = (
        {token: template.replace(placeholder, token) for token in tokens}
        if placeholder in template
        else {"": template}
    )
    found = {token: _files(root, case, text) for token, text in filled.items()}
    return {token: paths for token, paths in found.items() if paths}


def _files(root: Path, case: Path, template: str) -> list[Paths]:
    parent = PurePosixPath(template).parent.as_posix()
    below = [case] if parent == "." else [case / folder.path for folder in folders(root / case, parent)]
    last = PurePosixPath(template).name
    if template.endswith("/"):
        kept = [folder / name for folder in below for name in _named(root, folder, last, folders_only=True)]
        return [paths for folder in kept if (paths := files_below(root, folder))]
    return [(folder / name,) for folder in below for name in _named(root, folder, last, folders_only=False)]


def _named(root: Path, folder: Path, last: str, *, folders_only: bool) -> list[str]:
    """The names of files (or of folders) in ``folder`` that match ``last``."""
    if "*" in last:
        return [
            name for name in entries(root / folder)[folders_only] if wildcard_pattern(last).fullmatch(name)
        ]
    path = root / folder / last
    return [last] if (path.is_dir() if folders_only else is_data_file(path)) else []
