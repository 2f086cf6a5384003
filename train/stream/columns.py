"""Write an index: rows of masks in, a column after another out, in bounded memory."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from medcurate.commit import write_json
from medcurate.errors import ConfigError
from medcurate.train.stream.index import ABOUT_FILE, COLUMNS, PATIENTS_FILE

_DIGESTED = ("digest", "stratum", "mask_bounds", "masks")


class Codes:
    """Numbers for names, in the order in which they come."""

    def __init__(self) -> None:
        self.names: dict[str, int] = {}

    def of(self, values: pa.Array) -> npt.NDArray[np.int32]:
        """int32 (N,) for an Arrow array of strings."""
        coded = values.dictionary_encode()
        numbers = [self.names.setdefault(name, len(self.names)) for name in coded.dictionary.to_pylist()]
        found: npt.NDArray[np.int32] = np.array(numbers, np.int32)[coded.indices.to_numpy()]
        return found


class ColumnWriter:
    """Writes ``folder`` from batches of masks with columns shard, offset, size, digest, annotation, key,
    patient and stratum, in which the masks of a sample follow each other and samples stand in storage order.
    """

    def __init__(self, folder: Path, files: Mapping[str, IO[bytes]]) -> None:
        self._folder, self._files = folder, files
        self._shards, self._strata, self._patients = Codes(), Codes(), Codes()
        self._counts = dict.fromkeys(COLUMNS, 0)
        self._hashes = {name: hashlib.sha256() for name in _DIGESTED}
        self._last = (-1, -1)  # shard and offset of the mask before
        self._put("key_bounds", np.zeros(1))

    def add(self, batch: pa.RecordBatch) -> None:
        """Append the masks of one batch. Raises ConfigError when they are not in storage order."""
        if not batch.num_rows:
            return
        shards = self._shards.of(batch.column("shard"))
        offsets = batch.column("offset").to_numpy().astype(np.int64)
        before = (
            np.concatenate([[self._last[0]], shards[:-1]]),
            np.concatenate([[self._last[1]], offsets[:-1]]),
        )
        first = np.flatnonzero((shards != before[0]) | (offsets != before[1]))
        self._check(shards, offsets, before, first)
        self._last = int(shards[-1]), int(offsets[-1])
        self._put("masks", batch.column("annotation").to_numpy())
        self._put("mask_bounds", first + (self._counts["masks"] - len(shards)))
        self._put_samples(batch.take(pa.array(first)), shards[first], offsets[first])

    def finish(self, manifest: str) -> None:
        """Write what stands beside the columns; ``manifest``: SHA-256 of where they come from."""
        self._put("mask_bounds", np.array([self._counts["masks"]]))
        about: dict[str, Any] = {"manifest": manifest, "counts": self._counts}
        about |= {"shards": list(self._shards.names), "strata": list(self._strata.names)}
        about["selection"] = hashlib.sha256(
            b"".join(one.digest() for one in self._hashes.values())
        ).hexdigest()
        (self._folder / PATIENTS_FILE).write_text(json.dumps(sorted(self._patients.names)), encoding="utf-8")
        write_json(self._folder / ABOUT_FILE, about)

    def _check(
        self,
        shards: npt.NDArray[np.int32],
        offsets: npt.NDArray[np.int64],
        before: tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]],
        first: npt.NDArray[np.int64],
    ) -> None:
        """A shard's number grows as new shards come; one that comes again would have a smaller one."""
        backwards = (shards < before[0]) | ((shards == before[0]) & (offsets < before[1]))
        if backwards[first].any():
            raise ConfigError("manifest.parquet is not in the order of its shards; build the dataset again.")

    def _put_samples(
        self, samples: pa.RecordBatch, shards: npt.NDArray[np.int32], offsets: npt.NDArray[np.int64]
    ) -> None:
        keys = samples.column("key")
        ends = np.cumsum(pc.binary_length(keys).to_numpy().astype(np.int64)) + self._counts["keys"]
        self._put("shard", shards)
        self._put("offset", offsets)
        self._put("size", samples.column("size").to_numpy())
        self._put("digest", samples.column("digest").to_numpy())
        self._put("stratum", self._strata.of(samples.column("stratum")))
        self._put("key_bounds", ends)
        self._put("keys", np.frombuffer("".join(keys.to_pylist()).encode(), np.uint8))
        self._patients.of(samples.column("patient"))

    def _put(self, name: str, values: npt.NDArray[Any]) -> None:
        data = np.ascontiguousarray(values, COLUMNS[name]).data
        self._files[name].write(data)
        self._counts[name] += len(values)
        if name in self._hashes:
            self._hashes[name].update(data)


def write_columns(folder: Path, batches: Iterable[pa.RecordBatch], manifest: str) -> None:
    """Write the index of all ``batches`` into the new folder ``folder``."""
    folder.mkdir(parents=True)
    with ExitStack() as stack:
        files = {name: stack.enter_context(open(folder / name, "xb")) for name in COLUMNS}
        writer = ColumnWriter(folder, files)
        for batch in batches:
            writer.add(batch)
        writer.finish(manifest)
        for file in files.values():
            file.flush()
            os.fsync(file.fileno())
