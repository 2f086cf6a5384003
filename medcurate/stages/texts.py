"""Strings of very many masks, without a Python object for each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medcurate.types import Array


@dataclass(frozen=True, slots=True, eq=False)
class Names:
    """One of a few names for every row. ``code`` int32 (n,): the row's index in ``names``, which differ."""

    code: npt.NDArray[np.int32]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.code)

    def __getitem__(self, row: int) -> str:
        return self.names[int(self.code[row])]

    def __iter__(self) -> Iterator[str]:
        return (self.names[code] for code in self.code.tolist())

    def take(self, rows: Array) -> Names:
        """The names of ``rows``, in their order."""
        return Names(self.code[rows], self.names)

    @staticmethod
    def of(names: Sequence[str], code: Array) -> Names:
        """Rows as indices into ``names``, which may repeat."""
        place = {name: number for number, name in enumerate(dict.fromkeys(names))}
        return Names(np.array([place[name] for name in names], np.int32)[code], tuple(place))

    @staticmethod
    def joined(parts: Sequence[Names]) -> Names:
        """All rows of ``parts``."""
        starts = np.cumsum([0, *(len(part.names) for part in parts)]).tolist()
        codes = [part.code + start for part, start in zip(parts, starts, strict=False)]
        return Names.of([name for part in parts for name in part.names], np.concatenate(codes))


@dataclass(frozen=True, slots=True, eq=False)
class Texts:
    """A byte string for every row, one after another in ``data`` uint8; ``end`` int64 (n,): where each ends."""

    data: npt.NDArray[np.uint8]
    end: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.end)

    def __getitem__(self, row: int) -> bytes:
        return self.data[self.end[row - 1] if row else 0 : self.end[row]].tobytes()

    def __iter__(self) -> Iterator[bytes]:
        return (self[row] for row in range(len(self)))

    def take(self, rows: Array) -> Texts:
        """The strings of ``rows``, in their order; quick where most rows follow each other."""
        begin = np.concatenate([[0], self.end[:-1]])
        first = np.flatnonzero(np.diff(rows, prepend=-2) != 1)
        last = np.append(first[1:], len(rows))[: len(first)] - 1
        stretches = zip(begin[rows[first]].tolist(), self.end[rows[last]].tolist(), strict=True)
        data = [self.data[:0], *(self.data[start:stop] for start, stop in stretches)]
        return Texts(np.concatenate(data), np.cumsum((self.end - begin)[rows]))

    @staticmethod
    def joined(parts: Sequence[Texts]) -> Texts:
        """All rows of ``parts``, of which there is one at least."""
        starts = np.cumsum([0, *(len(part.data) for part in parts)]).tolist()
        ends = [part.end + start for part, start in zip(parts, starts, strict=False)]
        return Texts(np.concatenate([part.data for part in parts]), np.concatenate(ends))
