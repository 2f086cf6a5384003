"""Polygons to pixels, by pixel centres and the even-odd rule; exact up to the rounding of float64.

A row is filled between every odd and the next crossing of the outlines with the line through its centres, so
several outlines of one structure combine by exclusive-or: an outline inside another is a hole, an outline in
the hole an island, and the channel of a keyhole, walked twice, vanishes. Source of the rule: DICOM PS3.3
C.8.8.6.3 (Representing Inner and Outer Contours).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from medcurate.errors import CaseRejected, Reason
from medcurate.types import Patch, Reference

Points = npt.NDArray[np.float64]
OnPath = Literal["inside", "outside", "half"]

_ON_PATH_PX = 1e-3  # how near to an outline a centre lies on it
_MAX_COORDINATE_PX = 1e6  # beyond any picture; keeps sums exact enough
_CROSSINGS_AT_ONCE = 1 << 20


def fill(outlines: Sequence[Points], height: int, width: int, *, path: OnPath) -> Patch | None:
    """The pixels whose centres the outlines enclose, as a (rows, columns) patch; None where there are none.

    ``outlines``: (N, 2) of x, y in pixels, where (0, 0) is the centre of the first pixel, x along columns; the
    last point is joined to the first. What lies outside the picture is cut off. ``path``: whether centres on an
    outline (within 0.001 pixel) belong to the structure; "half": those on left and upper edges do, so that of
    structures that share an edge each centre belongs to one. Raises CaseRejected (BAD_LABEL) for coordinates
    that are no usable numbers.
    """
    loops = [outline for outline in outlines if len(outline) >= (1 if path == "inside" else 3)]
    if not loops:
        return None
    points = np.concatenate(loops)
    if not (np.abs(points) <= _MAX_COORDINATE_PX).all():
        raise CaseRejected(Reason.BAD_LABEL, "an outline holds coordinates that are no pixels")
    low = np.clip(np.floor(points.min(axis=0)).astype(int), 0, (width, height))
    high = np.clip(np.ceil(points.max(axis=0)).astype(int) + 1, 0, (width, height))
    if not (low < high).all():
        return None
    (columns, rows), edges = (high - low).tolist(), _edges([loop - low for loop in loops])
    mask = _even_odd(edges, rows, columns)
    if path != "half":
        _mark_path(mask, edges, value=path == "inside")
    return Patch((int(low[1]), int(low[0])), mask) if mask.any() else None


def _edges(loops: Sequence[Points]) -> Points:
    """(E, 4) of x0, y0, x1, y1 of all sides."""
    return np.concatenate([np.hstack([loop, np.roll(loop, -1, axis=0)]) for loop in loops])


def _even_odd(edges: Points, rows: int, columns: int) -> npt.NDArray[np.bool_]:
    toggles = np.zeros(rows * (columns + 1), np.uint8)
    # From the upper end, so that two structures that share an edge compute the same crossings.
    falling = edges[:, 1] > edges[:, 3]
    edges = np.where(falling[:, None], edges[:, [2, 3, 0, 1]], edges)
    first = np.clip(np.ceil(edges[:, 1]), 0, rows).astype(np.int64)
    last = np.clip(np.ceil(edges[:, 3]), 0, rows).astype(np.int64)
    for edge, row in _samples(first, last):
        x0, y0, x1, y1 = edges[edge].T
        x = x0 + (row - y0) * (x1 - x0) / (y1 - y0)  # in this order no slope overflows
        place = row * (columns + 1) + np.clip(np.ceil(x), 0, columns).astype(np.int64)
        toggles ^= (np.bincount(place, minlength=len(toggles)) & 1).astype(np.uint8)
    filled = np.bitwise_xor.accumulate(toggles.reshape(rows, columns + 1), axis=1)
    return np.ascontiguousarray(filled[:, :columns]).view(np.bool_)


def _mark_path(mask: npt.NDArray[np.bool_], edges: Points, *, value: bool) -> None:
    """Set all centres on an edge; steep edges are followed row by row, the others column by column."""
    steep = np.abs(edges[:, 3] - edges[:, 1]) >= np.abs(edges[:, 2] - edges[:, 0])
    _follow(mask, edges[steep][:, [1, 0, 3, 2]], value)
    _follow(mask.T, edges[~steep], value)


def _follow(mask: npt.NDArray[np.bool_], edges: Points, value: bool) -> None:
    """``edges``: (E, 4) of u0, v0, u1, v1 with the longer side along u, the first axis of ``mask``."""
    low, high = np.minimum(edges[:, 0], edges[:, 2]), np.maximum(edges[:, 0], edges[:, 2])
    first = np.clip(np.ceil(low - _ON_PATH_PX), 0, mask.shape[0]).astype(np.int64)
    last = np.clip(np.floor(high + _ON_PATH_PX) + 1, 0, mask.shape[0]).astype(np.int64)
    for edge, u in _samples(first, last):
        u0, v0, u1, v1 = edges[edge].T
        length = np.where(u1 == u0, 1.0, u1 - u0)
        v = v0 + np.clip((u - u0) / length, 0.0, 1.0) * (v1 - v0)
        nearest = np.rint(v)
        on = (np.abs(v - nearest) <= _ON_PATH_PX) & (nearest >= 0) & (nearest < mask.shape[1])
        mask[u[on], nearest[on].astype(np.int64)] = value


def _samples(
    first: npt.NDArray[np.int64], last: npt.NDArray[np.int64]
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """(edge, position) of every whole position first <= p < last of every edge, in pieces of bounded size."""
    counts = np.maximum(last - first, 0)
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    for start in range(0, total, _CROSSINGS_AT_ONCE):
        number = np.arange(start, min(start + _CROSSINGS_AT_ONCE, total))
        edge = np.searchsorted(ends, number, side="right")
        yield edge, first[edge] + number - (ends - counts)[edge]


def stacked(planes: Mapping[int, Patch | None]) -> Patch | None:
    """Patches of planes k as one of the volume, axes (i, j, k) with i fastest; None where all are empty."""
    found = {k: patch for k, patch in planes.items() if patch is not None}
    if not found:
        return None
    low = np.array([patch.start for patch in found.values()]).min(axis=0)
    ends = np.array([np.add(patch.start, patch.mask.shape) for patch in found.values()]).max(axis=0)
    first = min(found)
    mask = np.zeros((max(found) - first + 1, *(ends - low)), np.bool_)
    for k, patch in found.items():
        row, column = (np.array(patch.start) - low).tolist()
        height, width = patch.mask.shape
        mask[k - first, row : row + height, column : column + width] = patch.mask
    return Patch((int(low[1]), int(low[0]), first), mask.T)


def picture_size(reference: Reference) -> tuple[int, int]:
    """(height, width) of the picture that outlines are drawn on. Raises CaseRejected (GEOMETRY) for a volume."""
    if reference.affine is not None:
        raise CaseRejected(
            Reason.GEOMETRY, "outlines in pixels belong to a picture, but the image is a volume"
        )
    height, width = reference.shape[:2]
    return height, width
