"""Reading samples in shuffled order: many tars, few open at once, every digest checked."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from medcurate.format.sample import SampleError
from medcurate.format.shards import read_sample
from medcurate.pack.types import DamagedInput

_OPEN_TARS = 64
_AHEAD_SAMPLES = 32


class Stored(NamedTuple):
    """Where a sample lies and what its bytes must be."""

    key: str
    shard: str
    offset: int
    size: int
    digest: int


@dataclass(slots=True)
class Inputs(AbstractContextManager["Inputs"]):
    """Open tars below ``root``; the one that was used longest ago is closed when too many are open."""

    root: Path
    _descriptors: OrderedDict[str, int] = field(default_factory=OrderedDict)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])

    def read_all(self, samples: Sequence[Stored]) -> Iterator[bytes]:
        """The bytes of ``samples``, in their order; the system is told a little ahead what will be read.

        Raises DamagedInput for a tar that is missing, cut or changed.
        """
        for number, stored in enumerate(samples):
            if number % _AHEAD_SAMPLES == 0:
                for ahead in samples[number : number + 2 * _AHEAD_SAMPLES]:
                    os.posix_fadvise(self._open(ahead), ahead.offset, ahead.size, os.POSIX_FADV_WILLNEED)
            try:
                yield read_sample(self._open(stored), stored.offset, stored.size, stored.digest)
            except SampleError as error:
                raise self.damaged(stored, str(error)) from error

    def head(self, stored: Stored, size_bytes: int) -> bytes:
        """The first bytes of a sample, unchecked. Raises DamagedInput where the tar is missing."""
        return os.pread(self._open(stored), size_bytes, stored.offset)

    def damaged(self, stored: Stored, detail: str) -> DamagedInput:
        """The error for a bad sample."""
        return DamagedInput(self.root / stored.shard, stored.key, detail)

    def _open(self, stored: Stored) -> int:
        if stored.shard in self._descriptors:
            self._descriptors.move_to_end(stored.shard)
            return self._descriptors[stored.shard]
        if len(self._descriptors) >= _OPEN_TARS:
            os.close(self._descriptors.popitem(last=False)[1])
        try:
            descriptor = os.open(self.root / stored.shard, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise self.damaged(stored, f"the file cannot be opened ({error.strerror})") from error
        self._descriptors[stored.shard] = descriptor
        return descriptor
