"""Paths by regular expression, for layouts in which no shared stem or folder tells which label is whose."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from pydantic import model_validator

from medcurate.config.source import Strict
from medcurate.config.table import Pattern
from medcurate.errors import ConfigError
from medcurate.pairings.found import Candidates, Found, Names, judged, passed_over
from medcurate.pairings.letters import no_match, other_case
from medcurate.pairings.paired_folders import FolderTemplate
from medcurate.pairings.tree import files_below, folders

CHANNEL = "channel"
LABEL = "label"
Key = tuple[str, ...]


class Options(Strict):
    """``image`` and ``label``: regular expressions for whole paths below ``folder``, with "/" between names.

    Their named groups, the same in both, tell cases apart; joined by "/" they are the case's name. The group
    ``channel`` of ``image`` holds a name of [[channels]], the group ``label`` of ``label`` a key of [labels];
    where ``image`` has the group ``label`` too (a folder a class, each with images of its own) it also tells
    cases apart. Other paths are neither. ``several_labels`` allows any number of label files a case.
    """

    folder: FolderTemplate = "."
    image: Pattern
    label: Pattern
    several_labels: bool = False

    @model_validator(mode="after")
    def _same_groups(self) -> Options:
        image, label = _groups(self.image), _groups(self.label)
        if set(image) - {CHANNEL} != set(label) - ({LABEL} - set(image)) or not set(image) - {CHANNEL}:
            raise ValueError(
                f"both patterns need the same named groups, at least one; image: {image}, label: {label}"
            )
        return self

    @property
    def key(self) -> tuple[str, ...]:
        """The groups that tell cases apart, in the order of ``image``."""
        return tuple(name for name in _groups(self.image) if name != CHANNEL)


def _groups(pattern: str) -> tuple[str, ...]:
    index = re.compile(pattern).groupindex
    return tuple(sorted(index, key=lambda name: index[name]))


def check(options: Options, names: Names) -> None:
    """Raise ValueError where groups and the source's channels do not fit."""
    named = CHANNEL in _groups(options.image)
    held = [component is not None for component in names.components]
    if CHANNEL in _groups(options.label):
        raise ValueError(
            "the group channel may not stand in what describes labels: channels share their label"
        )
    if named and (not names.channels or any(held)):
        raise ValueError("the group channel needs [[channels]] without component")
    if names.channels and not named and not all(held):
        raise ValueError(
            "the source declares [[channels]]: write the group channel, or give each its component"
        )


def find(root: Path, options: Options, names: Names) -> Iterator[Found]:
    """The cases below ``root``, sorted by name. Raises ConfigError, DataMissing."""
    try:
        check(options, names)
    except ValueError as error:
        raise ConfigError(f"pattern: {error}") from error
    places = folders(root, options.folder)
    if not places:
        raise no_match(root, options.folder, "folder")
    image, label = re.compile(options.image, re.DOTALL), re.compile(options.label, re.DOTALL)
    cases: dict[Key, Candidates] = {}
    for place in places:
        for path in files_below(root, place.path):
            text = path.relative_to(place.path).as_posix()
            if matched := label.fullmatch(text):
                _add(cases, options, matched, path, names, is_label=True)
            elif matched := image.fullmatch(text):
                _add(cases, options, matched, path, names, is_label=False)
    found = [passed_over(path) for path in other_case(root, options.folder)]
    found += [
        judged(
            root, "/".join(part for part in key if part), files, names, several_labels=options.several_labels
        )
        for key, files in cases.items()
    ]
    return iter(sorted(found, key=lambda entry: entry.name))


def _add(
    cases: dict[Key, Candidates],
    options: Options,
    matched: re.Match[str],
    path: Path,
    names: Names,
    *,
    is_label: bool,
) -> None:
    """Put a file into its case, unless it is of a channel or class that the source does not declare."""
    groups = matched.groupdict(default="")
    declared = {CHANNEL: names.channels, LABEL: names.labels}
    if any(groups.get(name) and groups[name] not in known for name, known in declared.items()):
        return
    token = groups.get(LABEL if is_label else CHANNEL, "")
    files = cases.setdefault(tuple(groups[name] for name in options.key), Candidates())
    (files.labels if is_label else files.images).setdefault(token, []).append((path,))
