"""Embed all images of a dataset, shard by shard: what is there is kept, what a kill left half done is made again."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from medcurate.commit import committed, committed_path, write_json
from medcurate.errors import ConfigError
from medcurate.format import png
from medcurate.format.sample import BLOCK_BYTES, END_OF_TAR, digest, member, split_members
from medcurate.progress import progress
from medcurate.train.embed.store import IDENTITY_FILE, INDEX_FILE, SCHEMA, SHARD_FOLDER, Identity
from medcurate.train.embed.writers import among_writers
from medcurate.train.geometry import PADDING, frame_of, place_image
from medcurate.train.model.sam import Sam
from medcurate.train.stream.index import Index
from medcurate.train.stream.reading import Reader

SHARD_BYTES = 256 << 20
_RECORD_SUFFIX = ".parquet"  # beside a shard: its rows of the index, until that has them
_THREADS = 4

Images = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Which of the missing shards this process makes: every ``world``-th, from ``rank`` on."""

    rank: int = 0
    world: int = 1


class Embedding:
    """Writes embeddings of ``sam`` for the samples of ``index`` into ``folder``, a local folder named by ``identity``.

    ``batch``: images that go through the encoder together.
    """

    def __init__(
        self, sam: Sam, identity: Identity, index: Index, reader: Reader, folder: Path, *, batch: int = 8
    ) -> None:
        self._sam, self._identity, self._index, self._reader = sam, identity, index, reader
        self._folder, self._batch = folder / identity.id, batch
        self._shards = self._folder / SHARD_FOLDER
        self._device = sam.pixel_mean.device

    def run(self, share: Share) -> int:
        """Make this process's share of what is missing; returns the number of images embedded.

        The process that finds all of them done writes the index. Raises OutputError, ConfigError, BadSampleError.
        """
        self._shards.mkdir(parents=True, exist_ok=True)
        with among_writers(self._folder, self._shards):
            return self._run(share)

    def _run(self, share: Share) -> int:
        self._begin()
        there = _pairs(self._done())
        # Cut before what is there is left out: then processes that start at different times cut alike.
        groups = [range(len(self._index))[at : at + self._per_shard] for at in self._starts]
        mine = [self._missing(group, there) for group in groups[share.rank :: share.world]]
        count = sum(map(len, mine))
        with progress("embedding", count, "images") as shown, torch.inference_mode():
            for samples in filter(None, mine):
                self._write_shard(samples, shown.advance)
        self._finish()
        return count

    @property
    def _starts(self) -> range:
        return range(0, len(self._index), self._per_shard)

    @property
    def _per_shard(self) -> int:
        return max(SHARD_BYTES // (2 * math.prod(self._identity.shape)), 1)

    def _begin(self) -> None:
        """Say what the folder holds; a folder of this name that says something else was changed by hand."""
        path = self._folder / IDENTITY_FILE
        if not path.exists():
            write_json(path, asdict(self._identity))

    def _done(self) -> pa.Table:
        """Rows of all whole shards: of the index, then of those that came after it."""
        while True:
            try:  # records before the index: what another process moves between the two is then found twice, not never
                records = [pq.read_table(file, schema=SCHEMA) for file in self._records()]
            except FileNotFoundError:  # another process has just put it into the index
                continue
            index = self._folder / INDEX_FILE
            before = pq.read_table(index, schema=SCHEMA) if index.exists() else SCHEMA.empty_table()
            return pa.concat_tables([before, *records])

    def _records(self) -> list[Path]:
        return sorted(self._shards.glob(f"*{_RECORD_SUFFIX}"))

    def _missing(self, samples: Sequence[int], there: set[tuple[str, int]]) -> list[int]:
        """Those of ``samples`` without an embedding of their bytes."""
        index = self._index
        return [at for at in samples if (index.key(at), int(index.digest[at])) not in there]

    def _write_shard(self, samples: Sequence[int], advance: Callable[[int], None]) -> None:
        """Commit one shard, then the record of its rows. Its name is that of its content, so it never changes."""
        facts = " ".join(f"{int(self._index.digest[at]):016x}" for at in samples)
        path = self._shards / f"{hashlib.sha256(facts.encode()).hexdigest()[:16]}.tar"
        rows: list[dict[str, Any]] = []
        with committed(path) as stream:
            offset = 0
            for at, embedding in self._embedded(samples):
                blob, content = _tar_member(self._index.key(at), embedding)
                rows.append({
                    "key": self._index.key(at),
                    "sample_digest": int(self._index.digest[at]),
                    "shard": f"{SHARD_FOLDER}/{path.name}",
                    "offset": offset + BLOCK_BYTES,
                    "size": len(content),
                    "digest": digest(content),
                })
                offset += len(blob)
                stream.write(blob)
                advance(1)
            stream.write(END_OF_TAR)
        _write_table(path.with_suffix(_RECORD_SUFFIX), pa.Table.from_pylist(rows, schema=SCHEMA))

    def _embedded(self, samples: Sequence[int]) -> Iterator[tuple[int, npt.NDArray[np.float16]]]:
        """Every sample with its embedding, float16 (C, S/16, S/16); images are decoded while others are embedded."""
        starts = range(0, len(samples), self._batch)
        with ThreadPoolExecutor(_THREADS, "decode") as pool:
            ahead = pool.submit(self._images, samples[: self._batch])
            for start in starts:
                images = ahead.result()
                ahead = pool.submit(self._images, samples[start + self._batch : start + 2 * self._batch])
                found = self._sam.encode(torch.from_numpy(images).to(self._device)).half().cpu().numpy()
                if not np.isfinite(found).all():
                    raise ConfigError(
                        f"{self._folder}: embeddings beyond the range of half precision, or not a number, near sample "
                        f"{self._index.key(samples[start])}: is the checkpoint whole?"
                    )
                yield from zip(samples[start : start + self._batch], found, strict=True)

    def _images(self, samples: Sequence[int]) -> Images:
        """uint8 (n, 3, S, S), in the model's square. Raises BadSampleError."""
        side = self._identity.image_side
        out = np.empty((len(samples), 3, side, side), np.uint8)
        padding = PADDING[self._identity.channel_order]
        for row, wanted in zip(out, self._reader.ask(np.asarray(samples, np.int64)), strict=True):
            _, content, _ = split_members(bytes(wanted()))
            image = png.decode(content)
            frame = frame_of(image.shape[0], image.shape[1], side, self._identity.fit)  # type: ignore[arg-type]
            place_image(image, frame, self._identity.interpolation, row, padding)  # type: ignore[arg-type]
        return out

    def _finish(self) -> None:
        """Write the index once nothing is missing, and remove the records that it replaces."""
        records = self._records()
        done = self._done()
        if not records or self._missing(range(len(self._index)), _pairs(done)):
            return
        # Of a sample that was embedded twice, because another selection had it too or it has changed, the last.
        _, last = np.unique(np.asarray(done["key"].to_pylist())[::-1], return_index=True)
        _write_table(self._folder / INDEX_FILE, done.take(pa.array(len(done) - 1 - last)))
        for record in records:
            record.unlink(missing_ok=True)


def _pairs(rows: pa.Table) -> set[tuple[str, int]]:
    """Key and digest of every sample in ``rows``."""
    return set(zip(rows["key"].to_pylist(), rows["sample_digest"].to_pylist(), strict=True))


def _tar_member(key: str, embedding: npt.NDArray[np.float16]) -> tuple[bytes, bytes]:
    """The member's bytes, and those of the .npy file in it."""
    content = io.BytesIO()
    np.lib.format.write_array(content, np.ascontiguousarray(embedding), version=(1, 0), allow_pickle=False)
    return member(f"{key}.npy", content.getvalue()), content.getvalue()


def _write_table(path: Path, table: pa.Table) -> None:
    with committed_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
