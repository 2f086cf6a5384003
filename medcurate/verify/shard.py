"""One shard against its record and its manifest rows: the job that an engine runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from medcurate.commit import sha256_file
from medcurate.engines.types import Guard
from medcurate.format import DATASET_FILE, MANIFEST_FILE
from medcurate.format.record import FileRecord
from medcurate.format.sample import END_OF_TAR, SampleError, split_members
from medcurate.format.shards import read_sample
from medcurate.verify import deep
from medcurate.verify.findings import Findings, Problem

_SHOWN_PER_SHARD = 20
_PLACE = ("offset", "size", "digest", "split", "source", "case", "group", "height", "width")
_MASK = ("annotation", "label", "area_px", "area_mm2", "area_fraction", "x0", "y0", "x1", "y1")
_COLUMNS = ("key", *_PLACE, *_MASK, "touches_border", "row_spacing_mm", "col_spacing_mm")


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardCheck:
    """One shard. ``with_rows``: the manifest can be read; ``remedy``: how a damaged file is mended."""

    folder: Path
    name: str
    expected: FileRecord
    deep: bool
    with_rows: bool
    remedy: str


@dataclass(frozen=True, slots=True)
class ShardFindings:
    """``problems`` are the first of ``count``."""

    problems: tuple[Problem, ...]
    count: int
    samples: int
    masks: int


def check_shard(check: ShardCheck, guard: Guard) -> ShardFindings:
    """Size, SHA-256, and every sample that the manifest places in the shard."""
    findings = Findings(_SHOWN_PER_SHARD)
    path = check.folder / check.name
    with guard(check.name):
        rows = _rows(check)
        found = _problems(path, check, rows) if path.is_file() else iter(["is missing"])
        for what in found:
            findings.add(check.name, what, check.remedy)
    samples = len(_starts(rows)) - 1
    return ShardFindings(tuple(findings.problems), findings.count, samples, rows.num_rows)


def _rows(check: ShardCheck) -> pa.Table:
    """The shard's manifest rows by place; other shards' row groups are skipped by their statistics."""
    if not check.with_rows:
        return pa.table({name: [] for name in _COLUMNS})
    columns = list(dict.fromkeys([*_COLUMNS, *(deep.COLUMNS if check.deep else ())]))
    rows = pq.read_table(check.folder / MANIFEST_FILE, columns=columns, filters=[("shard", "=", check.name)])
    return rows.sort_by([("offset", "ascending"), ("key", "ascending"), ("annotation", "ascending")])


def _starts(rows: pa.Table) -> list[int]:
    """First rows of the samples, and the number of rows."""
    if not rows.num_rows:
        return [0]
    keys, offsets = rows["key"].to_numpy(), rows["offset"].to_numpy()
    changed = (keys[1:] != keys[:-1]) | (offsets[1:] != offsets[:-1])
    return [0, *(np.flatnonzero(changed) + 1).tolist(), rows.num_rows]


def _problems(path: Path, check: ShardCheck, rows: pa.Table) -> Iterator[str]:
    size_bytes, expected = path.stat().st_size, check.expected
    if size_bytes != expected.size_bytes:
        yield f"has {size_bytes:,} bytes; {DATASET_FILE} says {expected.size_bytes:,}"
    elif sha256_file(path) != expected.sha256:
        yield f"its content is not what was written: the SHA-256 differs from {DATASET_FILE}"
    if check.with_rows:
        with open(path, "rb", buffering=0) as stream:
            yield from _content_problems(stream.fileno(), size_bytes, check, rows)


def _content_problems(descriptor: int, size_bytes: int, check: ShardCheck, rows: pa.Table) -> Iterator[str]:
    """Samples must follow each other without gap or overlap, and only the tar's end may come after them."""
    position = 0
    starts = _starts(rows)
    for first, stop in pairwise(starts):
        masks = rows.slice(first, stop - first).to_pylist()
        sample = masks[0]
        if sample["offset"] != position:
            yield f"sample {sample['key']} starts at byte {sample['offset']:,} instead of {position:,}"
        position = sample["offset"] + sample["size"]
        for what in _sample_problems(descriptor, masks, deeply=check.deep):
            yield f"sample {sample['key']}: {what}"
    needed = position + len(END_OF_TAR)
    if size_bytes < needed:
        yield f"ends at byte {size_bytes:,}; its last sample and the tar's end need {needed:,}"
    elif os.pread(descriptor, len(END_OF_TAR) + 1, position) != END_OF_TAR:
        yield f"after its last sample, at byte {position:,}, something other than the tar's end follows"


def _sample_problems(descriptor: int, masks: list[dict[str, Any]], *, deeply: bool) -> Iterator[str]:
    sample = masks[0]
    for name in (*_PLACE, "row_spacing_mm", "col_spacing_mm"):
        if any(mask[name] != sample[name] for mask in masks):
            yield f"its manifest rows do not agree on {name}"
    if [mask["annotation"] for mask in masks] != list(range(len(masks))):
        yield f"its {len(masks)} manifest rows are not numbered 0 to {len(masks) - 1} in annotation"
    try:
        blob = read_sample(descriptor, sample["offset"], sample["size"], sample["digest"])
        key, _, info = split_members(blob)
    except (OSError, SampleError) as error:  # OSError: no file has bytes at such a place
        yield str(error)
        return
    annotations = info.get("annotations")
    if key != sample["key"]:
        yield f"the tar calls it {key}"
    if not isinstance(annotations, list):
        yield "its JSON has no list of annotations"
    elif len(annotations) != len(masks):
        yield f"its JSON has {len(annotations)} annotations; the manifest has {len(masks)} rows"
    elif deeply:
        yield from deep.deep_problems(blob, masks)
