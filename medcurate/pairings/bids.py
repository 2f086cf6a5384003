"""BIDS: images in the raw tree, labels in a derivative, told apart by entities (VerSe, ISLES 2022, FeTA, …).

A file is called ``sub-01_ses-02_rec-mial_T2w.nii.gz``: entities (key-value), then a suffix. Image and label of a
case share their entities, but for those that only one side names. Source: BIDS specification, "Filenames".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import Field, model_validator

from medcurate.config.source import Strict
from medcurate.errors import ConfigError
from medcurate.pairings.found import Candidates, Found, Names, judged, passed_over
from medcurate.pairings.letters import folded, no_match, other_case
from medcurate.pairings.names import CHANNEL, LABEL, Suffixes, check_tokens
from medcurate.pairings.paired_folders import FolderTemplate
from medcurate.pairings.tree import files_below, folders

Key = tuple[tuple[str, str], ...]
_ENTITY = re.compile(r"([A-Za-z0-9]+)-([^_]+)")
SUBJECT = "sub"


class Options(Strict):
    """``images`` and ``labels``: folders that hold the ``sub-…`` folders; ``*`` and ``**`` allowed.

    ``image_suffix`` and ``label_suffix``: what the name's last part is, before ``extension``; ``{channel}`` and
    ``{label}`` allowed, also as the value of an entity. ``image_entities`` and ``label_entities``: entities that
    a file must have with that value; those that only one side states are left out of what both must share.
    The case's name joins the shared entities, the patient is the subject.
    """

    images: FolderTemplate = "."
    labels: FolderTemplate
    image_suffix: str
    label_suffix: str
    extension: Suffixes = (".nii.gz", ".nii")
    image_entities: dict[str, str] = Field(default={})
    label_entities: dict[str, str] = Field(default={})

    @model_validator(mode="after")
    def _told_apart(self) -> Options:
        image = (self.images, self.image_suffix, self.image_entities)
        if image == (self.labels, self.label_suffix, self.label_entities):
            raise ValueError("images and labels cannot be told apart: same folder, suffix and entities")
        return self

    @property
    def free(self) -> frozenset[str]:
        """Entities that do not tell cases apart: those that one side alone must have."""
        return frozenset(self.image_entities.keys() ^ self.label_entities.keys())


def check(options: Options, names: Names) -> None:
    """Raise ValueError where tokens and the source's channels do not fit."""
    image = (options.image_suffix, *options.image_entities.values())
    check_tokens(names, image, (options.label_suffix, *options.label_entities.values()))


def find(root: Path, options: Options, names: Names) -> Iterator[Found]:
    """The cases below ``root``, sorted by name. Raises ConfigError, DataMissing.

    A file that is neither image nor label only because letters have a case is a case with a problem, called by
    its path, after the others.
    """
    try:
        check(options, names)
    except ValueError as error:
        raise ConfigError(f"bids-derivatives: {error}") from error
    image = _Side(options, options.image_suffix, options.image_entities, CHANNEL, names.channels)
    label = _Side(options, options.label_suffix, options.label_entities, LABEL, names.labels)
    cases: dict[Key, Candidates] = {}
    others: list[Path] = []
    for key, token, path in _files(root, options.images, image, options, others):
        cases.setdefault(key, Candidates()).images.setdefault(token, []).append((path,))
    for key, token, path in _files(root, options.labels, label, options, others):
        cases.setdefault(key, Candidates()).labels.setdefault(token, []).append((path,))
    for key in sorted(cases):
        name = "_".join(f"{entity}-{value}" for entity, value in key)
        found = judged(root, name, cases[key], names, several_labels=False)
        yield replace(found, group=f"{SUBJECT}-{dict(key)[SUBJECT]}")
    for path in sorted(set(others)):
        yield passed_over(path)


@dataclass(frozen=True, slots=True)
class _File:
    entities: Mapping[str, str]
    order: tuple[str, ...]
    suffix: str


class _Side:
    """What images, or labels, are called."""

    def __init__(
        self,
        options: Options,
        suffix: str,
        entities: Mapping[str, str],
        placeholder: str,
        tokens: Sequence[str],
    ) -> None:
        named = placeholder in suffix or any(placeholder in value for value in entities.values())
        self._forms = [
            (
                token,
                suffix.replace(placeholder, token),
                {entity: value.replace(placeholder, token) for entity, value in entities.items()},
            )
            for token in (tokens if named else ("",))
        ]
        self._free = options.free

    def match(self, file: _File) -> tuple[Key, str] | None:
        """What the case is called and which token the file is of; None where it is neither."""
        for token, suffix, wanted in self._forms:
            if file.suffix == suffix and all(
                file.entities.get(name) == value for name, value in wanted.items()
            ):
                return tuple(
                    (name, file.entities[name]) for name in file.order if name not in self._free
                ), token
        return None

    def resembles(self, file: _File) -> bool:
        """Whether ``file``, whose name is folded, would match if letters had no case."""
        return any(
            file.suffix == folded(suffix)
            and all(file.entities.get(folded(name)) == folded(value) for name, value in wanted.items())
            for _, suffix, wanted in self._forms
        )


def _files(
    root: Path, template: str, side: _Side, options: Options, others: list[Path]
) -> Iterator[tuple[Key, str, Path]]:
    """Case, token and path of every file of ``side``.

    ``others`` is filled with those that only the case of their letters keeps apart from that, but for twins of
    files that it does not.
    """
    subjects = folders(root, f"{template}/{SUBJECT}-*")
    if not subjects:
        raise no_match(root, f"{template}/{SUBJECT}-*", "the folder")
    endings = [folded(extension) for extension in options.extension]
    others += other_case(root, f"{template}/{SUBJECT}-*")
    rest, explained = [], set()
    for subject in subjects:
        for path in files_below(root, subject.path):
            file = _parsed(path.name, options.extension)
            hit = side.match(file) if file and SUBJECT in file.entities else None
            if hit:
                explained.add(folded(path.as_posix()))
                yield *hit, path
            else:
                rest.append(path)
    for path in rest:
        file = _parsed(folded(path.name), endings)
        meant = file and SUBJECT in file.entities and side.resembles(file)
        if meant and folded(path.as_posix()) not in explained:
            others.append(path)


def _parsed(name: str, extensions: Sequence[str]) -> _File | None:
    """A file name in its parts; None where it is no BIDS name with one of the extensions."""
    for extension in sorted(extensions, key=len, reverse=True):
        if name.endswith(extension):
            break
    else:
        return None
    *pairs, suffix = name.removesuffix(extension).split("_")
    found = [(match[1], match[2]) for pair in pairs if (match := _ENTITY.fullmatch(pair))]
    if len(found) < len(pairs) or not suffix:
        return None
    return _File(dict(found), tuple(name for name, _ in found), suffix)
