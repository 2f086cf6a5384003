"""The layout in which SAM-Med2D is trained: pictures, one file a mask, and a JSON file that says which belong.

Either ``{image: [mask, …]}`` (``image2label_train.json``) or ``{mask: image}`` (``label2image_test.json``), as the
published training code reads them. A mask is called ``<image's stem>_<class>_<instance>.png``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import AfterValidator

from medcurate.config.source import Strict
from medcurate.config.table import below
from medcurate.errors import ConfigError, DataMissing
from medcurate.pairings.found import Candidates, Found, Names, judged
from medcurate.pairings.tree import wildcard_pattern
from medcurate.zips import inside
from medcurate.zips.volumes import BadMember

_TABLE_BYTES = 1 << 31
_SHOWN = 12


class Options(Strict):
    """``table``: the JSON file in ``folder``; of the paths in it the last folder and the name count.

    ``leave_out``: classes in the names of masks, with ``*``, that are not read; all others must be keys of
    [labels]. The case's name is the picture's stem.
    """

    folder: Annotated[str, AfterValidator(below)] = "."
    table: Annotated[str, AfterValidator(below)] = "image2label_train.json"
    leave_out: tuple[str, ...] = ()


def check(options: Options, names: Names) -> None:
    """Raise ValueError where the source's channels do not fit."""
    if names.channels:
        raise ValueError("the layout has one picture a case: a source of it declares no [[channels]]")


def find(root: Path, options: Options, names: Names) -> Iterator[Found]:
    """The pictures that the table names, sorted by name. Raises ConfigError, DataMissing."""
    try:
        check(options, names)
    except ValueError as error:
        raise ConfigError(f"sa-med2d-demo: {error}") from error
    path = root / options.folder / options.table
    pairs = _pairs(path)
    left_out = [wildcard_pattern(pattern) for pattern in options.leave_out]
    labels, unknown = frozenset(names.labels), set[str]()
    for image in sorted(pairs):
        stem = PurePosixPath(image).stem
        files = Candidates(images={"": [(_placed(options.folder, image),)]})
        for mask in sorted(pairs[image]):
            token = _class(stem, PurePosixPath(mask).stem)
            if any(pattern.fullmatch(token) for pattern in left_out):
                continue
            if token not in labels:
                unknown.add(token)
            files.labels.setdefault(token, []).append((_placed(options.folder, mask),))
        yield _there(root, judged(root, stem, files, names, several_labels=True))
    if unknown:
        shown = ", ".join(sorted(unknown)[:_SHOWN])
        raise ConfigError(
            f"{path}: classes that are neither in [labels] nor in leave_out: {shown}. Add each to one."
        )


def _there(root: Path, found: Found) -> Found:
    """``found``, which is a problem where the table names a file that is not there."""
    if found.problem or all(inside.exists(root / path) for path in found.paths):
        return found
    return replace(found, problem="a file that the table names is not there")


def _placed(folder: str, name: str) -> Path:
    return Path(folder, *PurePosixPath(name).parts[-2:])


def _class(stem: str, mask: str) -> str:
    """The class in the name of a mask; the whole name where it does not follow the image's."""
    match = re.fullmatch(re.escape(stem) + r"_(.+)_\d+", mask)
    return match[1] if match else mask


def _pairs(path: Path) -> Mapping[str, Sequence[str]]:
    try:
        found = json.loads(inside.read(path, _TABLE_BYTES))
    except OSError as error:
        raise DataMissing(f"{path}: the table cannot be read: {error.strerror}. Put it there.") from error
    except (ValueError, OverflowError, RecursionError, BadMember) as error:
        raise ConfigError(f"{path}: not JSON, or too large") from error
    pairs: dict[str, list[str]] = {}
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: neither {{image: [mask, …]}} nor {{mask: image}}")
    for key, value in found.items():
        if isinstance(value, str):
            pairs.setdefault(value, []).append(key)
        elif isinstance(value, list) and all(isinstance(mask, str) for mask in value):
            pairs.setdefault(key, []).extend(value)
        else:
            raise ConfigError(f"{path}: neither {{image: [mask, …]}} nor {{mask: image}}")
    unsafe = [name for names in (pairs, *pairs.values()) for name in names if not _is_safe(name)]
    if unsafe:
        raise ConfigError(f'{path}: "{unsafe[0]}" is no path of a picture or mask')
    return pairs


def _is_safe(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return bool(parts) and ".." not in parts[-2:] and "\0" not in name and parts[-1] != "/"
