"""Arrays of numpy at a glance: what their headers say that axes may be, and which names go together."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medcurate.arrays import Header, header_of, is_zip
from medcurate.config.source import UNRESOLVED
from medcurate.errors import CaseRejected
from medcurate.inspection.words import is_image, is_label

MAX_ARRAYS = 64  # of one .npz
MAX_COMPONENTS = 16
_FIRST, _LAST = {1, 3}, {1, 3, 4}  # components of pictures
_SPACING = re.compile(r"spacing|pixdim|voxel_?size", re.IGNORECASE)
_WORDS = re.compile(r"images?|imgs?|labels?|masks?|gts?|segmentations?|segs?|targets?|x|y", re.IGNORECASE)
_PLAIN = {"x": False, "y": True}  # as in numpy's world: whether it is the label


@dataclass(frozen=True, slots=True)
class Pair:
    """Two arrays that go together: the keys of an .npz, or the stems of .npy files. ``of``: what both are named for."""

    image: str
    label: str
    of: str = ""


def headers(path: Path) -> dict[str, Header]:
    """The arrays of numbers in a file, by key ("" of a .npy); none where it cannot be read."""
    try:
        with path.open("rb") as stream:
            keys = _keys(stream) if is_zip(stream) else [""]
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return {}
    found = {}
    for key in keys[:MAX_ARRAYS]:
        try:
            header = header_of(path, key)
        except (CaseRejected, OSError):
            continue  # of Python objects, or damaged: reading tells
        if header.dtype.kind in "buif":
            found[key] = header
    return found


def _keys(stream: Any) -> list[str]:
    with zipfile.ZipFile(stream) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]


def pairs(names: Sequence[str]) -> list[Pair]:
    """Images and labels among arrays of these names: the only ones, or those called after the same ("train_")."""
    labels = [name for name in names if _sounds(name, label=True)]
    images = [name for name in names if _sounds(name, label=False)]
    if len(labels) == len(images) == 1:
        return [Pair(images[0], labels[0])]
    if len(names) == 2 and len(labels) + len(images) == 1:
        other = next(name for name in names if name not in {*labels, *images})
        return [Pair(other, labels[0])] if labels else [Pair(images[0], other)]
    of = {_rest(name): name for name in images}
    return [Pair(of[_rest(name)], name, _rest(name)) for name in labels if _rest(name) in of]


def _sounds(name: str, *, label: bool) -> bool:
    plain = _PLAIN.get(name.lower().partition("_")[0])
    if plain is not None:
        return plain == label
    return is_label(name) if label else is_image(name)


def _rest(name: str) -> str:
    return _WORDS.sub("", name, count=1).strip("_-. ")


def axes_of(shape: Sequence[int]) -> str:
    """What the axes of one image may be, as the reader ``array`` takes them; "" for no image.

    Planes of a scan are mostly square, so that the axis that differs counts them; it is the shorter one otherwise.
    """
    if len(shape) == 2:
        return "hw"
    if len(shape) == 3:
        if shape[2] in _LAST and min(shape[:2]) > max(_LAST):
            return "hwc"
        if shape[0] in _FIRST and min(shape[1:]) > max(_LAST):
            return "chw"
        return _planes(shape)
    if len(shape) == 4 and shape[3] <= MAX_COMPONENTS:
        return f"{_planes(shape[:3])}c"
    if len(shape) == 4 and shape[0] <= MAX_COMPONENTS:
        return f"c{_planes(shape[1:])}"
    return ""


def _planes(shape: Sequence[int]) -> str:
    if (shape[0] == shape[1]) != (shape[1] == shape[2]):
        return "ijk" if shape[0] == shape[1] else "kji"
    return "ijk" if shape[2] < shape[0] else "kji"


def spacing_key(found: Mapping[str, Header], axes: str) -> str:
    """The array that seems to hold the spacing for such axes, "" where none does."""
    count = 3 if "k" in axes else 2
    fitting = (key for key, header in found.items() if _SPACING.search(key) and header.shape == (count,))
    return next(fitting, "")


def options(path: Path, entry: str) -> dict[str, Any]:
    """Options of the reader ``array`` that fit the file, or its part ``entry``.

    A spacing that no file states is "unresolved". Empty where the file holds no image.
    """
    found = headers(path)
    key, row = re.sub(r"\[\d+\]$", "", entry), entry.endswith("]")
    if not entry:
        key = next((name for name in found if len(found[name].shape) > 1), "")
    if key not in found:
        return {}
    axes = axes_of(found[key].shape[int(row) :])
    stated = spacing_key(found, axes)
    made: dict[str, Any] = {"key": key} if key and not entry else {}
    made |= {"axes": axes}
    if stated:
        made["spacing_key"] = stated
    elif "k" in axes:
        made["spacing_mm"] = UNRESOLVED
    return made if axes else {}
