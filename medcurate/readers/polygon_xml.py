"""Aperio ImageScope annotations: every region of a picture is a structure (MoNuSeg, MoNuSAC, slide annotations).

Layout: Annotations / Annotation / Regions / Region / Vertices / Vertex, with X along columns and Y along rows
in pixels. What a region is called: its own Text, the names of its annotation's attributes
(Annotation / Attributes / Attribute; MoNuSAC keeps the class there), the annotation's Name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from medcurate.config.source import Strict
from medcurate.errors import CaseRejected, Reason
from medcurate.readers import markup
from medcurate.readers.files import CaseFiles
from medcurate.readers.polygons import fill, picture_size
from medcurate.types import Drawing, Patch, Reference, Structure

_OUTLINES = {"", "0", "1"}  # of Region's Type: freehand and rectangle; others have no outline of vertices


class Options(Strict):
    """``pixel_centre``: the coordinate of the first pixel's centre: 0.5 where they count from its corner."""

    pixel_centre: float = 0.5


@dataclass(slots=True)
class _Region:
    text: str
    xs: list[float] = field(default_factory=list)
    ys: list[float] = field(default_factory=list)


@dataclass(slots=True)
class _Annotations:
    """What has been read so far: (names, x, y) of every region."""

    finished: list[tuple[tuple[str, ...], _Region]] = field(default_factory=list)
    regions: list[_Region] = field(default_factory=list)  # of the annotation that is open
    attributes: list[str] = field(default_factory=list)
    name: str = ""

    def start(self, path: markup.Path, attributes: Mapping[str, str]) -> None:
        if len(path) == 1 and path != ("Annotations",):
            raise CaseRejected(Reason.UNREADABLE, "no ImageScope annotations: the root is another element")
        if path[-1] == "Annotation":
            self.name, self.regions, self.attributes = attributes.get("Name", ""), [], []
        elif path[-2:] == ("Attributes", "Attribute") and "Region" not in path:
            self.attributes.append(attributes.get("Name", ""))
        elif path[-2:] == ("Regions", "Region"):
            _check_kind(attributes)
            self.regions.append(_Region(attributes.get("Text", "")))
        elif path[-3:] == ("Region", "Vertices", "Vertex"):
            self.regions[-1].xs.append(markup.number(attributes.get("X")))
            self.regions[-1].ys.append(markup.number(attributes.get("Y")))

    def end(self, path: markup.Path, text: str) -> None:
        if path[-1] == "Annotation":
            shared = [name for name in (*self.attributes, self.name) if name]
            self.finished += [(tuple(filter(None, (r.text, *shared))), r) for r in self.regions]


def _check_kind(attributes: Mapping[str, str]) -> None:
    if attributes.get("NegativeROA", "0") not in {"", "0"}:
        raise CaseRejected(
            Reason.BAD_LABEL, "a negative region of interest: what it is cut from is not stated"
        )
    if attributes.get("Type", "") not in _OUTLINES:
        raise CaseRejected(Reason.BAD_LABEL, "a region that is neither an outline nor a rectangle")


def draw(files: CaseFiles, paths: Sequence[Path], reference: Reference, options: Options) -> Drawing:
    """The regions of all files as they follow each other. Masks have axes (row, column).

    Raises CaseRejected: CORRUPT, UNREADABLE, BAD_LABEL; GEOMETRY where the image is a volume.
    """
    size_hw = picture_size(reference)
    found = _Annotations()
    for path in sorted(paths):
        markup.walk(files.read(path), found.start, found.end)
    return Drawing(reference, _structures(found, size_hw, options))


def _structures(found: _Annotations, size_hw: tuple[int, int], options: Options) -> Iterator[Structure]:
    for names, region in found.finished:
        yield Structure(names, partial(_paint, region, size_hw, options.pixel_centre))


def _paint(region: _Region, size_hw: tuple[int, int], pixel_centre: float) -> Patch | None:
    outline = np.column_stack([region.xs, region.ys]) - pixel_centre
    return fill([outline], *size_hw, path="half")
