"""Image embeddings on disk: which encoder and geometry they are of, where each lies, and reading them with proof.

<dataset>.embeddings/<id>/embeddings.json     what they are: see ``Identity``
<dataset>.embeddings/<id>/index.parquet       one row an image: see ``SCHEMA``
<dataset>.embeddings/<id>/shards/*.tar        plain USTAR, members <key>.npy: float16 (C, S/16, S/16)
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from medcurate.errors import ConfigError
from medcurate.format.sample import digest
from medcurate.storage import Location, MissingFileError, StorageError, locate
from medcurate.train.config.model import PATCH
from medcurate.train.config.recipe import TrainRecipe
from medcurate.train.model.sam import Sam

VERSION = 2
IDENTITY_FILE = "embeddings.json"
INDEX_FILE = "index.parquet"
SHARD_FOLDER = "shards"
SCHEMA = pa.schema([
    ("key", pa.string()),  # of the sample
    ("sample_digest", pa.uint64()),  # xxh3-64 of the sample's bytes, as in the manifest
    ("shard", pa.string()),  # file, relative to the folder
    ("offset", pa.int64()),  # of the .npy file's bytes in it
    ("size", pa.int64()),
    ("digest", pa.uint64()),  # xxh3-64 of the .npy file's bytes
])

_JOINED_GAP_BYTES = 2048  # a tar header and padding between neighbours
_READ_BYTES = 16 << 20
_THREADS = 8

Halves = npt.NDArray[np.float16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """All that an embedding depends on beside the sample's bytes.

    ``encoder``: SHA-256 of its weights. ``channels``: of an embedding. The rest as in the train recipe.
    """

    encoder: str
    channels: int
    image_side: int
    fit: str
    interpolation: str
    channel_order: str
    precision: str
    version: int = VERSION

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one embedding: channels, rows, columns."""
        return self.channels, self.image_side // PATCH, self.image_side // PATCH

    @property
    def id(self) -> str:
        """The folder's name: of equal identities alone."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Entry:
    """Where an embedding lies: a row of the index."""

    key: str
    shard: str
    offset: int
    size: int
    digest: int

    @property
    def end(self) -> int:
        """The first byte after it."""
        return self.offset + self.size


def identity_of(sam: Sam, recipe: TrainRecipe) -> Identity:
    """The identity of what ``sam``, with its weights as they are now, makes of images under ``recipe``."""
    return Identity(
        encoder=_weights_sha256(sam),
        channels=recipe.model.numbers.prompt_width,
        image_side=recipe.model.image_side,
        fit=recipe.data.fit,
        interpolation=recipe.data.interpolation,
        channel_order=recipe.model.channel_order,
        precision=recipe.run.precision,
    )


def default_folder(dataset: str) -> Location:
    """``<dataset>.embeddings``, beside the dataset."""
    return Location(f"{locate(dataset).url}.embeddings")


class EmbeddingStore:
    """The embeddings of one identity below ``folder``. Raises ConfigError where there are none, StorageError."""

    def __init__(self, folder: Location, identity: Identity) -> None:
        self._folder = folder.member(identity.id)
        self._shape = identity.shape
        file = self._folder.member(INDEX_FILE)
        try:
            table = pq.read_table(io.BytesIO(file.read_range(0, file.size_bytes)), schema=SCHEMA)
        except (MissingFileError, FileNotFoundError) as error:
            raise ConfigError(
                f"{self._folder}: no embeddings of this encoder and image size; make them with: "
                "python -m medcurate.train.embed RECIPE --data DATASET --checkpoint CHECKPOINT"
            ) from error
        except pa.ArrowException as error:
            raise StorageError(
                f"{file}: damaged ({error}); remove it and run the embedding again."
            ) from error
        self._index = table.combine_chunks()
        self._pool = ThreadPoolExecutor(_THREADS, "embeddings")

    def require(self, keys: pa.Array, sample_digests: pa.Array) -> None:
        """Raise ConfigError unless all samples, of these keys and digests, have an embedding here."""
        rows = self._rows(keys)
        found = pc.take(self._index["sample_digest"], rows)
        whole = pc.fill_null(pc.equal(found, pc.cast(sample_digests, pa.uint64())), False)
        missing = len(whole) - pc.sum(whole).as_py()
        if missing:
            raise ConfigError(
                f"{self._folder}: {missing:,} of {len(whole):,} images have no embedding, or have changed since; run: "
                "python -m medcurate.train.embed RECIPE --data DATASET --checkpoint CHECKPOINT"
            )

    def read(self, keys: Sequence[str]) -> torch.Tensor:
        """Embeddings, float16 (B, C, S/16, S/16), of samples by key; zeros for the key "".

        Raises StorageError, naming shard and key, where one is missing or damaged.
        """
        rows = self._rows(pa.array([key for key in keys if key], pa.string()))
        if rows.null_count:
            missing = next(key for key, row in zip(filter(None, keys), rows, strict=True) if not row.is_valid)
            raise StorageError(f"{self._folder}: no embedding of sample {missing}.")
        wanted = {Entry(**row) for row in self._index.take(rows).drop_columns("sample_digest").to_pylist()}
        found: dict[str, Halves] = {}
        for part in self._pool.map(self._joined, _neighbours(wanted)):
            found.update(part)
        out = np.zeros((len(keys), *self._shape), np.float16)
        for at, key in enumerate(keys):
            if key:
                out[at] = found[key]
        return torch.from_numpy(out)

    def _rows(self, keys: pa.Array) -> pa.Array:
        rows = pc.index_in(pc.cast(keys, pa.string()), value_set=self._index["key"])
        return rows.combine_chunks() if isinstance(rows, pa.ChunkedArray) else rows

    def _joined(self, entries: list[Entry]) -> dict[str, Halves]:
        """Embeddings by key that lie behind one another in a shard, in one read."""
        file, start = self._folder.member(entries[0].shard), entries[0].offset
        data = memoryview(file.read_range(start, entries[-1].end - start))
        found = {}
        for entry in entries:
            part = data[entry.offset - start : entry.end - start]
            if digest(part) != entry.digest:
                raise StorageError(
                    f"{file}: the embedding of sample {entry.key} is damaged; remove the shard and {INDEX_FILE}, and "
                    "run the embedding again: it makes what is missing."
                )
            found[entry.key] = np.lib.format.read_array(io.BytesIO(part), allow_pickle=False)
        return found


def _neighbours(entries: Iterable[Entry]) -> list[list[Entry]]:
    """``entries`` in lists that one read gets each."""
    runs: list[list[Entry]] = []
    for entry in sorted(entries, key=lambda entry: (entry.shard, entry.offset)):
        last = runs[-1][-1] if runs else None
        joins = (
            last is not None and last.shard == entry.shard and entry.offset - last.end <= _JOINED_GAP_BYTES
        )
        if joins and entry.end - runs[-1][0].offset <= _READ_BYTES:
            runs[-1].append(entry)
        else:
            runs.append([entry])
    return runs


def _weights_sha256(sam: Sam) -> str:
    """SHA-256 of the image encoder's names, shapes and float32 weights, and of the statistics of pixels."""
    total = hashlib.sha256()
    tensors = {**sam.image_encoder.state_dict(), "pixel_mean": sam.pixel_mean, "pixel_std": sam.pixel_std}
    for name, tensor in sorted(tensors.items()):
        values = tensor.detach().to("cpu", torch.float32).contiguous()
        total.update(f"{name} {tuple(values.shape)}\n".encode())
        total.update(values.numpy().tobytes())
    return total.hexdigest()
