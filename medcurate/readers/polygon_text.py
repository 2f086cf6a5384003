"""Outlines as plain text: a point a line, x and y in pixels, blank lines between outlines (PAPILA, DRIONS-DB)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from medcurate.config.source import Strict
from medcurate.errors import CaseRejected, Reason
from medcurate.readers.files import CaseFiles
from medcurate.readers.polygons import Points, fill, picture_size
from medcurate.types import Drawing, Reference, Structure


class Options(Strict):
    """``columns``: which of the two numbers comes first; x runs along image columns. ``header_lines``: lines
    before the first point. ``pixel_centre``: the coordinate of the first pixel's centre: 0.5 where they count
    from its corner.
    """

    columns: Literal["xy", "yx"] = "xy"
    header_lines: Annotated[int, Field(ge=0)] = 0
    pixel_centre: float = 0.5


def draw(files: CaseFiles, paths: Sequence[Path], reference: Reference, options: Options) -> Drawing:
    """Every outline as a structure without a name. Masks have axes (row, column).

    Raises CaseRejected: CORRUPT; GEOMETRY where the image is a volume.
    """
    size_hw = picture_size(reference)
    outlines = [outline for path in sorted(paths) for outline in _outlines(files.read(path), options)]
    return Drawing(
        reference,
        [Structure((), partial(fill, [outline], *size_hw, path="half")) for outline in outlines],
    )


def _outlines(content: bytes, options: Options) -> Iterator[Points]:
    lines = content.decode("utf-8-sig", errors="replace").splitlines()[options.header_lines :]
    for filled, group in groupby(lines, key=lambda line: bool(line.strip())):
        if filled:
            points = np.array([_point(line) for line in group], np.float64) - options.pixel_centre
            yield points if options.columns == "xy" else points[:, ::-1]


def _point(line: str) -> tuple[float, float]:
    try:
        first, second = (float(piece) for piece in re.split(r"[\s,;]+", line.strip(" \t,;")))
    except ValueError as error:
        raise CaseRejected(Reason.CORRUPT, "a line of the outline does not hold two numbers") from error
    return first, second
