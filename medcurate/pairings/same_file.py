"""Image and label in one file: halves of a picture (OIMHS, AMD-SD), arrays of one .npz (MedSAM, CVPR)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from medcurate.config.source import Strict
from medcurate.pairings.found import Candidates, Found, Names, at_entries, judged, passed_over
from medcurate.pairings.letters import no_match, other_case
from medcurate.pairings.names import Matcher, Rule, Suffixes
from medcurate.pairings.paired_folders import FolderTemplate
from medcurate.pairings.tree import entries, folders, wildcard_pattern


class Options(Strict):
    """``folder``: below the source's, ``*`` and ``**`` allowed; every file with ``suffix`` in it is a case.

    The case's name is the folder's part that wildcards stand for and the stem. ``image`` and ``label``: which
    entries of the file they are, as the reader names them ("left" and "right", "imgs" and "gts").
    """

    folder: FolderTemplate = "."
    suffix: Suffixes
    prefix: str = ""
    image: str
    label: str
    ignore: tuple[str, ...] = ()


def check(options: Options, names: Names) -> None:
    """Raise ValueError where image and label are the same, or channels are declared that no file name tells."""
    if options.image == options.label:
        raise ValueError("image and label are the same entry of a file")
    if names.channels and not all(component is not None for component in names.components):
        raise ValueError("every channel needs its component: the file holds one image")


def sample_entries(options: Options) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What entries of images and of labels look like, for the readers to judge."""
    return (options.image,), (options.label,)


def find(root: Path, options: Options, names: Names) -> Iterator[Found]:
    """The cases below ``root``, sorted by name. Raises DataMissing where no folder matches.

    A file that is left out only because letters have a case is a case with a problem, called by its path.
    """
    places = folders(root, options.folder)
    if not places:
        raise no_match(root, options.folder, "folder")
    matcher = Matcher([Rule(options.folder, options.prefix, suffix) for suffix in options.suffix])
    ignored = [wildcard_pattern(pattern) for pattern in options.ignore]
    found, explained = [], set()
    for place in places:
        for file in entries(root / place.path)[0]:
            hit = matcher.match(file)
            if hit is None or any(pattern.fullmatch(file) for pattern in ignored):
                continue
            name = f"{place.name}/{hit.stem}" if place.name else hit.stem
            paths = (place.path / file,)
            explained.add(paths[0])
            case = judged(root, name, Candidates({"": [paths]}, {"": [paths]}), names, several_labels=False)
            found.append(at_entries(case, name, options.image, options.label))
    for suffix in options.suffix:
        for path in other_case(root, f"{options.folder}/{options.prefix}*{suffix}", files=True):
            if path not in explained and not any(pattern.fullmatch(path.name) for pattern in ignored):
                explained.add(path)
                found.append(passed_over(path))
    return iter(sorted(found, key=lambda entry: entry.name))
