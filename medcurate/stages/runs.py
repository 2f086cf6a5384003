"""Label planes to runs: the vertical stretches of one label, which are all that the mask stage looks at.

A run lies in one column of one plane. Runs are found in the memory order of the array, whichever axis is
sliced and however it is flipped, and then sorted by (plane, column, row): the order of COCO's RLE.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from math import prod

import numpy as np
import numpy.typing as npt

from medcurate.types import Array

Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]

CHUNK_VOXELS = 1 << 22  # labels looked at together: bounds the temporaries, still hides numpy's call overhead
_WORD_BYTES = 8
_MOST_CHANGES = 1 << 16  # looked at together: each costs some hundred bytes, and noise has one in every voxel


@dataclass(frozen=True, slots=True)
class Grid:
    """Sides of a plane, in pixels, and the place of a pixel as one number.

    Places leave one row free below every column and one column free after every plane, so that the end of
    a run and the neighbours of a border pixel are places of their own and never another column's pixel.
    """

    height: int
    width: int

    @property
    def column_stride(self) -> int:
        """Distance of the places of horizontal neighbours."""
        return self.height + 1

    @property
    def plane_stride(self) -> int:
        """Distance of the places of the same pixel in neighbouring planes."""
        return self.column_stride * (self.width + 1)

    def place(self, plane: Array, column: Array, row: Array) -> Int64s:
        """Increasing in (plane, column, row)."""
        line = plane.astype(np.int64) * (self.width + 1) + column
        return line * self.column_stride + row

    def split(self, place: Int64s) -> tuple[Int64s, Int64s, Int64s]:
        """The (plane, column, row) of places."""
        line = place // self.column_stride
        plane = line // (self.width + 1)
        return plane, line - plane * (self.width + 1), place - line * self.column_stride


@dataclass(frozen=True, slots=True)
class Runs:
    """Columnar: run i covers rows [top, bottom) of one column of one plane, all of one label.

    ``label``: position of the label in the layer's terms; where values are instances, the value itself.
    Sorted by (plane, column, top).
    """

    plane: Int32s
    column: Int32s
    top: Int32s
    bottom: Int32s
    label: Int64s

    def __len__(self) -> int:
        return len(self.plane)

    def take(self, index: Array) -> Runs:
        """The runs at ``index`` (integers, or bool of the same length)."""
        return Runs(*(getattr(self, f.name)[index] for f in fields(self)))

    def followed_by(self, other: Runs) -> Runs:
        """These runs, then those of ``other``."""
        return Runs(*(np.concatenate([getattr(self, f.name), getattr(other, f.name)]) for f in fields(self)))


def begins(keys: Sequence[Array]) -> npt.NDArray[np.bool_]:
    """Where a new group begins in sorted, non-negative keys: any key differs from the element before."""
    changed: npt.NDArray[np.bool_] = np.logical_or.reduce([np.diff(key, prepend=-1) != 0 for key in keys])
    return changed


def find_runs(
    planes: Array, terms: Mapping[int, str], *, instances: bool, chunk_voxels: int = CHUNK_VOXELS
) -> Iterator[Runs]:
    """The runs of label planes, a few planes at a time.

    ``planes``: (n, height, width) of any integer dtype or bool, any strides and byte order; not copied.
    A value counts when it is a key of ``terms``, or, with ``instances``, when it is above 0.
    """
    native = planes.view(planes.dtype.newbyteorder("="))  # bits compare alike in either byte order
    grid = Grid(*planes.shape[1:])
    step = max(1, chunk_voxels // max(1, grid.height * grid.width))
    # Where 0 is no label, most columns begin and end in background and need no mark there.
    zero_counts = not instances and 0 in terms
    for start in range(0, len(planes), step):
        for first, places in _changes(native[start : start + step], grid, mark_all_ends=zero_counts):
            plane, column, row = grid.split(np.sort(places))
            first += start
            values = planes[first:][plane, np.minimum(row, grid.height - 1), column].astype(np.int64)
            label = _labels(values, terms, instances=instances)
            # A column's last change is into background, so the change that ends a run is always the next one.
            tops = np.flatnonzero((label >= 0) & (row < grid.height))
            yield Runs(
                plane=(plane[tops] + first).astype(np.int32),
                column=column[tops].astype(np.int32),
                top=row[tops].astype(np.int32),
                bottom=row[tops + 1].astype(np.int32),
                label=label[tops],
            )


def _changes(chunk: Array, grid: Grid, *, mark_all_ends: bool) -> Iterator[tuple[int, Int64s]]:
    """Places, in no order, where a column's value differs from the one above; outside the plane it is 0.

    Gives (first plane, places from there on), in several pieces where there are more than ``_MOST_CHANGES``. The
    marks are laid out in memory as the labels are, so that both are read and written in sequence.
    """
    axes = sorted(range(3), key=lambda axis: -abs(chunk.strides[axis]))
    shape = (len(chunk), grid.height + 1, grid.width)
    stored = np.empty(-(-prod(shape) // _WORD_BYTES) * _WORD_BYTES, np.bool_)
    stored[prod(shape) :] = False
    flips = tuple(slice(None, None, -1 if stride < 0 else 1) for stride in chunk.strides)
    marks = stored[: prod(shape)].reshape([shape[axis] for axis in axes]).transpose(np.argsort(axes))[flips]
    np.not_equal(chunk[:, 1:], chunk[:, :-1], out=marks[:, 1:-1])
    np.not_equal(chunk[:, 0], 0, out=marks[:, 0])
    np.not_equal(chunk[:, -1], 0, out=marks[:, -1])
    if mark_all_ends:
        marks[:, 0] = marks[:, -1] = True
    words = np.flatnonzero(stored.view(np.uint64) != 0)  # of eight marks; nearly all hold none
    held = stored.reshape(-1, _WORD_BYTES)[words]
    pieces = min(len(chunk), -(-int(np.count_nonzero(held)) // _MOST_CHANGES))
    if pieces > 1:
        del stored, marks, words, held
        step = -(-len(chunk) // pieces)
        for first in range(0, len(chunk), step):
            for inner, places in _changes(chunk[first : first + step], grid, mark_all_ends=mark_all_ends):
                yield first + inner, places
        return
    word, byte = np.divmod(np.flatnonzero(held), _WORD_BYTES)
    rest = words[word] * _WORD_BYTES + byte
    found: list[Int64s] = [np.empty(0, np.int64)] * 3
    for axis in reversed(axes):
        above = rest // shape[axis]
        index = rest - above * shape[axis]
        found[axis] = index if chunk.strides[axis] >= 0 else shape[axis] - 1 - index
        rest = above
    yield 0, grid.place(found[0], found[2], found[1])


def _labels(values: Int64s, terms: Mapping[int, str], *, instances: bool) -> Int64s:
    """Label of each value (see ``Runs``), -1 for background."""
    if instances:
        return np.where(values > 0, values, -1)
    if not terms:
        return np.full(len(values), -1)
    declared = np.array(list(terms), np.int64)
    order = np.argsort(declared)
    at = np.minimum(np.searchsorted(declared, values, sorter=order), len(declared) - 1)
    label = order[at]
    return np.where(declared[label] == values, label, -1)
