"""Connected components of runs, per plane or through the volume, numbered in scanning order.

Runs are joined where they touch: in neighbouring columns, and in 3D in neighbouring planes too. "full"
connectivity also joins across edges and corners (8 neighbours in 2D, 26 in 3D), "face" does not (4, 6).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from medcurate.stages.runs import Grid, Int64s, Runs, begins

_LAST = np.iinfo(np.int64).max


def numbered_2d(runs: Runs, grid: Grid, *, full: bool) -> Int64s:
    """Component number of each run.

    From 1 inside each (plane, label), in row-major order of the component's first pixel: the one of lowest
    row, and of those the one of lowest column.
    """
    component = _planar(runs, grid, full=full)
    first, label = _first_pixels(runs, component, grid), _of_each(component, runs.label)
    return _numbers([_of_each(component, runs.plane.astype(np.int64)), label], first)[component]


def numbered_3d(chunks: Iterable[Runs], grid: Grid, *, full: bool) -> Iterator[tuple[Runs, Int64s]]:
    """The same chunks, with the object number of each run.

    From 1 inside each label, in the order of the object's first voxel by (plane, row, column). Objects may
    span chunks: the runs of all chunks are kept until the last chunk is known.
    """
    kept: list[tuple[Runs, Int64s]] = []
    first, label = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    links = [np.empty((2, 0), np.int64)]
    pieces = 0
    for runs in chunks:
        component = _planar(runs, grid, full=full)
        first.append(_first_pixels(runs, component, grid))
        label.append(_of_each(component, runs.label))
        kept.append((runs, component + pieces))
        pieces += len(first[-1])
        links.append(_links_across(kept[-2:], grid, full=full))
    joined = _joined(np.concatenate(links, axis=1), pieces)
    object_first = _lowest(np.concatenate(first), joined)
    number = _numbers([_of_each(joined, np.concatenate(label))], object_first)[joined]
    for runs, piece in kept:
        yield runs, number[piece]


def _planar(runs: Runs, grid: Grid, *, full: bool) -> Int64s:
    """Component of each run inside its plane: 0, 1, … in no particular order."""
    return _joined(_touching(runs, grid, grid.column_stride, full=full), len(runs))


def _links_across(chunks: Sequence[tuple[Runs, Int64s]], grid: Grid, *, full: bool) -> Int64s:
    """Pairs (2, n) of 2D components that touch in neighbouring planes.

    Looks at all planes of the last chunk and at the last plane of the chunk before it, if that is given.
    """
    runs, component = chunks[-1]
    if len(chunks) > 1 and len(chunks[0][0]):
        before, before_component = chunks[0]
        tail = before.plane == before.plane[-1]
        runs = before.take(tail).followed_by(runs)
        component = np.concatenate([before_component[tail], component])
    sideways = (-1, 0, 1) if full else (0,)
    strides = [grid.plane_stride + columns * grid.column_stride for columns in sideways]
    pairs = np.concatenate([_touching(runs, grid, stride, full=full) for stride in strides], axis=1)
    base = int(component.max(initial=0)) + 1
    one, other = component[pairs]
    return np.stack(np.divmod(np.unique(one * base + other), base))


def _touching(runs: Runs, grid: Grid, stride: int, *, full: bool) -> Int64s:
    """Pairs (2, n) of runs of one label that touch when the first is moved by ``stride`` places."""
    start = grid.place(runs.plane, runs.column, runs.top)
    stop = grid.place(runs.plane, runs.column, runs.bottom)
    low = np.searchsorted(stop, start + stride, "left" if full else "right")
    high = np.searchsorted(start, stop + stride, "right" if full else "left")
    count = high - low
    one = np.repeat(np.arange(len(runs)), count)
    other = np.arange(len(one)) + np.repeat(low - np.cumsum(count) + count, count)
    alike = runs.label[one] == runs.label[other]
    return np.stack([one[alike], other[alike]])


def _joined(pairs: Int64s, number: int) -> Int64s:
    """Connected component, 0, 1, …, of each of ``number`` nodes that ``pairs`` (2, n) join."""
    if not number:
        return np.empty(0, np.int64)
    graph = coo_array((np.ones(pairs.shape[1], np.int8), (pairs[0], pairs[1])), shape=(number, number))
    component: Int64s = connected_components(graph, directed=False)[1].astype(np.int64)
    return component


def _first_pixels(runs: Runs, component: Int64s, grid: Grid) -> Int64s:
    """First pixel of each component as its place in (plane, row, column) order."""
    line = runs.plane.astype(np.int64) * grid.height + runs.top
    return _lowest(line * grid.width + runs.column, component)


def _lowest(values: Int64s, group: Int64s) -> Int64s:
    lowest = np.full(group.max(initial=-1) + 1, _LAST)
    np.minimum.at(lowest, group, values)
    return lowest


def _of_each(group: Int64s, values: Int64s) -> Int64s:
    """The value of each group whose members all have the same."""
    of_each = np.empty(group.max(initial=-1) + 1, np.int64)
    of_each[group] = values
    return of_each


def _numbers(scope: Sequence[Int64s], first: Int64s) -> Int64s:
    """Numbers from 1 inside each scope (equal values of all its keys), in increasing order of ``first``."""
    order = np.lexsort((first, *scope))
    index = np.arange(len(order))
    start = np.where(begins([key[order] for key in scope]), index, 0)
    number = np.empty(len(order), np.int64)
    number[order] = index - np.maximum.accumulate(start) + 1
    return number
