"""The samples of a dataset that a run selects: a few columns in files, mapped into memory.

All processes of a machine share the columns' pages, whether they were forked or spawned. A folder of them
appears under its name when it is complete, and is made by ``select.py``.
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

INDEX_VERSION = 3
ABOUT_FILE, PATIENTS_FILE = "about.json", "patients.json"
COLUMNS = {
    "shard": "<i4",  # number in the list of shards
    "offset": "<i8",
    "size": "<i8",
    "digest": "<u8",
    "stratum": "<i4",  # number in the list of strata
    "key_bounds": "<i8",  # N + 1: in keys, where the sample's begins and the next one's
    "mask_bounds": "<i8",  # N + 1: in masks
    "keys": "<u1",
    "masks": "<u2",  # selected annotations
}


@dataclass(frozen=True)
class Index:
    """Selected samples in storage order, N in all; pickled as the path of its folder."""

    path: Path

    def __getstate__(self) -> dict[str, Path]:
        return {"path": self.path}

    def __len__(self) -> int:
        return len(self.shard)

    def is_whole(self) -> bool:
        """Whether every file is there with its size."""
        try:
            return all(
                (self.path / name).stat().st_size == count * np.dtype(COLUMNS[name]).itemsize
                for name, count in self._about["counts"].items()
            )
        except (OSError, ValueError, KeyError):
            return False

    @property
    def manifest(self) -> str:
        """SHA-256 of the manifest that this was selected from."""
        return str(self._about["manifest"])

    @property
    def selection(self) -> str:
        """Digest of the selected samples, masks and strata."""
        return str(self._about["selection"])

    @cached_property
    def shards(self) -> tuple[str, ...]:
        """Shard files, relative to the dataset."""
        return tuple(self._about["shards"])

    @cached_property
    def strata(self) -> tuple[str, ...]:
        """Names of the groups that weights are by."""
        return tuple(self._about["strata"])

    def patients(self) -> frozenset[str]:
        """Patients across sources, as the manifest's "group" names them, of the selected samples."""
        return frozenset(json.loads((self.path / PATIENTS_FILE).read_bytes()))

    @cached_property
    def shard(self) -> npt.NDArray[np.int32]:
        """int32 (N,): number of the sample's shard."""
        return np.asarray(self._column("shard"))

    @cached_property
    def offset(self) -> npt.NDArray[np.int64]:
        """int64 (N,): bytes before the sample in its shard."""
        return np.asarray(self._column("offset"))

    @cached_property
    def size(self) -> npt.NDArray[np.int64]:
        """int64 (N,): bytes of the sample."""
        return np.asarray(self._column("size"))

    @cached_property
    def digest(self) -> npt.NDArray[np.uint64]:
        """uint64 (N,): xxh3-64 of the sample's bytes."""
        return np.asarray(self._column("digest"))

    @cached_property
    def stratum(self) -> npt.NDArray[np.int32]:
        """int32 (N,): number of the sample's stratum."""
        return np.asarray(self._column("stratum"))

    def annotations(self, sample: int) -> npt.NDArray[np.uint16]:
        """uint16 (n,): selected masks of one sample, increasing, at least one."""
        return self._masks[self._mask_bounds[sample] : self._mask_bounds[sample + 1]]

    def key(self, sample: int) -> str:
        """The sample's key."""
        return self._keys[self._key_bounds[sample] : self._key_bounds[sample + 1]].tobytes().decode()

    @property
    def keys(self) -> pa.LargeStringArray:
        """The samples' keys."""
        buffers = [pa.py_buffer(self._key_bounds), pa.py_buffer(self._keys)]
        return pa.LargeStringArray.from_buffers(len(self), *buffers)

    @cached_property
    def _about(self) -> dict[str, Any]:
        return dict(json.loads((self.path / ABOUT_FILE).read_bytes()))

    @cached_property
    def _masks(self) -> npt.NDArray[np.uint16]:
        return np.asarray(self._column("masks"))

    @cached_property
    def _mask_bounds(self) -> npt.NDArray[np.int64]:
        return np.asarray(self._column("mask_bounds"))

    @cached_property
    def _keys(self) -> npt.NDArray[np.uint8]:
        return np.asarray(self._column("keys"))

    @cached_property
    def _key_bounds(self) -> npt.NDArray[np.int64]:
        return np.asarray(self._column("key_bounds"))

    def _column(self, name: str) -> Any:
        if not self._about["counts"][name]:  # there is nothing to map
            return np.zeros(0, COLUMNS[name])
        return np.memmap(self.path / name, COLUMNS[name], "r")
