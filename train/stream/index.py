"""The samples of a dataset that a run selects: a table of a few columns, mapped into memory.

One file a selection, in Arrow's IPC format without compression, so that all processes of a machine share its
pages, whether they were forked or spawned. It is made once, by DuckDB, and kept in the user's cache folder.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

INDEX_VERSION = 2
_NAMES = pa.dictionary(pa.int32(), pa.large_string())

SCHEMA = pa.schema([
    ("shard", _NAMES),
    ("offset", pa.int64()),
    ("size", pa.int64()),
    ("digest", pa.uint64()),
    ("stratum", _NAMES),  # values of the weights' columns
    ("patient", _NAMES),  # the manifest's "group"
    ("key", pa.large_string()),
    ("annotations", pa.large_list(pa.uint16())),  # selected masks: their indices in the sample's JSON
])


@dataclass(frozen=True)
class Index:
    """Selected samples in storage order, N in all; pickled as the path of its file."""

    path: Path

    def __getstate__(self) -> dict[str, Path]:
        return {"path": self.path}

    def __len__(self) -> int:
        return int(self._table.num_rows)

    @property
    def manifest(self) -> str:
        """SHA-256 of the manifest that this was selected from."""
        return self._about["manifest"]

    @property
    def selection(self) -> str:
        """Digest of the selected samples, masks and strata."""
        return self._about["selection"]

    @cached_property
    def shards(self) -> tuple[str, ...]:
        """Shard files, relative to the dataset."""
        return tuple(self._chunk("shard").dictionary.to_pylist())

    @cached_property
    def strata(self) -> tuple[str, ...]:
        """Names of the groups that weights are by."""
        return tuple(self._chunk("stratum").dictionary.to_pylist())

    def patients(self) -> frozenset[str]:
        """Patients across sources, as the manifest's "group" names them, of the selected samples."""
        return frozenset(self._chunk("patient").dictionary.to_pylist())

    @cached_property
    def shard(self) -> npt.NDArray[np.int32]:
        """int32 (N,): number of the sample's shard."""
        return np.asarray(self._chunk("shard").indices.to_numpy())

    @cached_property
    def offset(self) -> npt.NDArray[np.int64]:
        """int64 (N,): bytes before the sample in its shard."""
        return np.asarray(self._chunk("offset").to_numpy())

    @cached_property
    def size(self) -> npt.NDArray[np.int64]:
        """int64 (N,): bytes of the sample."""
        return np.asarray(self._chunk("size").to_numpy())

    @cached_property
    def digest(self) -> npt.NDArray[np.uint64]:
        """uint64 (N,): xxh3-64 of the sample's bytes."""
        return np.asarray(self._chunk("digest").to_numpy())

    @cached_property
    def stratum(self) -> npt.NDArray[np.int32]:
        """int32 (N,): number of the sample's stratum."""
        return np.asarray(self._chunk("stratum").indices.to_numpy())

    @cached_property
    def mask_counts(self) -> npt.NDArray[np.int64]:
        """int64 (N,): number of selected masks of each sample, at least 1."""
        return np.diff(self._bounds)

    def annotations(self, sample: int) -> npt.NDArray[np.uint16]:
        """uint16 (n,): selected masks of one sample, increasing."""
        return self._masks[self._bounds[sample] : self._bounds[sample + 1]]

    def key(self, sample: int) -> str:
        """The sample's key."""
        return str(self._chunk("key")[sample].as_py())

    @property
    def keys(self) -> pa.Array:
        """The samples' keys."""
        return self._chunk("key")

    @cached_property
    def _table(self) -> pa.Table:
        with pa.memory_map(str(self.path)) as source:
            return pa.ipc.open_file(source).read_all()

    @cached_property
    def _about(self) -> dict[str, str]:
        return dict(json.loads(self._table.schema.metadata[b"about"]))

    @cached_property
    def _bounds(self) -> npt.NDArray[np.int64]:
        return np.asarray(self._chunk("annotations").offsets.to_numpy(), np.int64)

    @cached_property
    def _masks(self) -> npt.NDArray[np.uint16]:
        return np.asarray(self._chunk("annotations").values.to_numpy(), np.uint16)

    def _chunk(self, name: str) -> Any:
        """A column as one Arrow array: there is one batch in the file."""
        return self._table.column(name).chunk(0)
