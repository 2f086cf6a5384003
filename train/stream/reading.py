"""Samples as bytes: ranges are read ahead, every digest is checked, failures are tried again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial

import numpy as np

from medcurate.errors import MedcurateError
from medcurate.format.sample import digest
from medcurate.storage import Location, RangesIgnoredError, StorageError
from medcurate.train.stream.index import Index
from medcurate.train.stream.mirror import Mirror
from medcurate.train.stream.order import Int64s
from medcurate.train.stream.ranges import ByteRange, plan

RETRY_SECONDS = (0.5, 1.0, 2.0, 4.0)  # waits between tries of a remote range
_LOCAL_RETRY_SECONDS = (0.0,)


class BadSampleError(MedcurateError):
    """A sample cannot be had, or is not what the manifest says; names shard and key."""


Wanted = Callable[[], memoryview]  # raises BadSampleError


class Reader:
    """Reads samples of ``index`` from ``dataset`` with ``threads`` ahead of their use (0: when used)."""

    def __init__(
        self, dataset: Location, index: Index, *, threads: int, mirror: Mirror | None = None
    ) -> None:
        self._dataset, self._index, self._mirror = dataset, index, mirror
        self._waits = _LOCAL_RETRY_SECONDS if dataset.is_local else RETRY_SECONDS
        self._pool = ThreadPoolExecutor(threads, "read") if threads else None
        self._lock = threading.Lock()
        self._read_bytes = self._needed_bytes = 0

    def ask(self, samples: Int64s) -> list[Wanted]:
        """For each of ``samples``, in the order in which they will be needed, a call that gives its bytes."""
        index = self._index
        asked: list[Wanted] = [_never] * len(samples)
        for one in plan(index.shard[samples], index.offset[samples], index.size[samples]):
            members = [int(samples[place]) for place in one.members]
            job = partial(self._fetch, one, members)
            found = self._pool.submit(job).result if self._pool else cache(job)
            for place, sample in zip(one.members, members, strict=True):
                asked[place] = partial(_taken, found, sample)
        return asked

    def take_traffic(self) -> tuple[int, int]:
        """Since the last call: bytes that came from storage, and bytes of the samples that they were for."""
        with self._lock:
            taken = self._read_bytes, self._needed_bytes
            self._read_bytes = self._needed_bytes = 0
        return taken

    def close(self) -> None:
        """End the threads; what they read is dropped."""
        if self._pool:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _fetch(self, asked: ByteRange, members: list[int]) -> dict[int, memoryview | BadSampleError]:
        """Bytes of every sample of a range, or why there are none."""
        found: dict[int, memoryview | BadSampleError] = {}
        if self._mirror:
            kept = {sample: self._kept(self._mirror, sample) for sample in members}
            found.update((sample, memoryview(data)) for sample, data in kept.items() if data is not None)
        missing = np.array([sample for sample in dict.fromkeys(members) if sample not in found], np.int64)
        if len(missing) == len(set(members)):
            found.update(self._read(asked.shard, asked.start, asked.stop, missing.tolist()))
            return found
        index = self._index
        for one in plan(index.shard[missing], index.offset[missing], index.size[missing]):
            found.update(self._read(one.shard, one.start, one.stop, missing[one.members].tolist()))
        return found

    def _read(
        self, shard: int, start: int, stop: int, members: list[int]
    ) -> dict[int, memoryview | BadSampleError]:
        """Read [start, stop) of a shard; a sample that comes damaged is read again by itself."""
        file = self._dataset.member(self._index.shards[shard])
        found: dict[int, memoryview | BadSampleError] = {}
        data, why = self._tried(file, start, stop)
        for sample in members:
            offset = int(self._index.offset[sample])
            size, expected = int(self._index.size[sample]), int(self._index.digest[sample])
            self._count(needed=size)
            part = memoryview(data)[offset - start : offset - start + size]
            if data and digest(part) != expected:
                again, why = self._tried(file, offset, offset + size, expected)
                part = memoryview(again)
            if not part:
                found[sample] = self._bad(file, sample, why)
                continue
            found[sample] = part
            if self._mirror:
                self._mirror.write(self._index.shards[shard], offset, bytes(part))
        return found

    def _tried(self, file: Location, start: int, stop: int, expected: int | None = None) -> tuple[bytes, str]:
        """Bytes [start, stop), with ``expected`` digest if given, or b"" and what went wrong last."""
        why = ""
        for wait in (*self._waits, None):
            try:
                data = file.read_range(start, stop - start)
                self._count(read=len(data))
                if expected is None or digest(data) == expected:
                    return data, ""
                why = "its bytes differ from the manifest's digest"
            except RangesIgnoredError as error:
                return b"", str(error).removeprefix(f"{file}: ")
            except StorageError as error:
                why = str(error).removeprefix(f"{file}: ")
            if wait is not None:
                time.sleep(wait)
        return b"", why

    def _count(self, *, read: int = 0, needed: int = 0) -> None:
        with self._lock:
            self._read_bytes += read
            self._needed_bytes += needed

    def _bad(self, file: Location, sample: int, why: str) -> BadSampleError:
        return BadSampleError(
            f"{file}: sample {self._index.key(sample)} ({int(self._index.size[sample]):,} bytes at offset "
            f"{int(self._index.offset[sample]):,}): {why} "
            f"(tried up to {len(self._waits) + 1} times). "
            'Restore the shard (medcurate verify finds what is damaged), or train with on_bad_sample = "skip".'
        )

    def _kept(self, mirror: Mirror, sample: int) -> bytes | None:
        index = self._index
        place = (int(index.offset[sample]), int(index.size[sample]), int(index.digest[sample]))
        return mirror.read(index.shards[int(index.shard[sample])], *place)


def _taken(found: Callable[[], dict[int, memoryview | BadSampleError]], sample: int) -> memoryview:
    part = found()[sample]
    if isinstance(part, BadSampleError):
        raise part
    return part


def _never() -> memoryview:
    raise AssertionError("every sample belongs to a range")
