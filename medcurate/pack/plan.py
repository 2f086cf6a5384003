"""The plan: every mask in its final order, cut into shards, before any pixel is touched.

Order: split, then md5 of "<seed>:<key>", then key and annotation. It does not depend on how samples lie in
the input, on the number of workers or on the engine; md5 because it is a fixed standard that any tool can
repeat. DuckDB sorts outside of memory, so the dataset may be of any size.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from medcurate.commit import sha256_file, write_json
from medcurate.condition import check_condition, literal, running
from medcurate.errors import OutputError
from medcurate.format import FORMAT_VERSION, SPLITS
from medcurate.format.columns import MANIFEST, Column
from medcurate.format.sample import END_OF_TAR
from medcurate.pack.bounds import resized_sizes
from medcurate.pack.database import from_parquet, names, save
from medcurate.pack.inputs import Inputs
from medcurate.pack.types import PackInput, PackRules, ShardPlan

_PLAN_FILE = "plan.parquet"
_PLAN_RECORD = "plan.json"
_SCANNED = ("key", "shard", "offset", "split", "size", "digest", "height", "width")
_BATCH_ROWS = 131_072
_ASSIGNED = tuple(Column(name, "string", "") for name in ("own", "group", "split"))


class _Planned(NamedTuple):
    """A sample: ``rows`` of the plan's table, and the bytes that it has in a shard."""

    split: str
    rows: int
    most_bytes: int
    likely_bytes: int


@dataclass(frozen=True, slots=True)
class Plan:
    """``digest`` identifies the input's tables and the rules; ``table`` is the sorted Parquet file."""

    digest: str
    table: Path
    shards: tuple[ShardPlan, ...]

    @property
    def samples(self) -> int:
        """Samples of all shards."""
        return sum(shard.samples for shard in self.shards)


def make_plan(connection: duckdb.DuckDBPyConnection, inputs: PackInput, rules: PackRules, work: Path) -> Plan:
    """The plan for ``inputs``, kept in ``work`` and used again while the inputs and the rules are the same.

    ``connection`` may read the tables of ``inputs`` and write in ``work``.

    Raises ConfigError for a mistake in ``rules.where``, OutputError for tables that no dataset can have, and
    DamagedInput for a sample that is to be resized and begins as none does.
    """
    if rules.where:
        check_condition(rules.where)
    digest = _digest(inputs, rules)
    stored = _stored(work, digest)
    if stored is None:
        work.mkdir(parents=True, exist_ok=True)
        (work / _PLAN_RECORD).unlink(missing_ok=True)
        _sort(connection, inputs, rules, work)
        with Inputs(inputs.root) as tars:
            samples = _samples(work / _PLAN_FILE, tars, rules.size_px)
            shards = tuple(_cut(samples, rules.shard_bytes))
        write_json(work / _PLAN_RECORD, {"digest": digest, "shards": [asdict(shard) for shard in shards]})
        stored = Plan(digest, work / _PLAN_FILE, shards)
    return stored


def assigned(inputs: PackInput, tables: Sequence[Path], columns: Sequence[Column]) -> str:
    """A query for the rows of ``tables`` with the group and split that the assignments give to their patient."""
    rows = from_parquet(tables, columns)
    if inputs.assignments is None:
        return rows
    replaced = ", ".join(
        f'coalesce(a."{column.name}", r."{column.name}") AS "{column.name}"'
        if column.name in {"group", "split"}
        else f'r."{column.name}"'
        for column in columns
    )
    assignments = from_parquet([inputs.assignments], _ASSIGNED)
    return f'(SELECT {replaced} FROM {rows} r LEFT JOIN {assignments} a ON a."own" = r."group")'


def _digest(inputs: PackInput, rules: PackRules) -> str:
    tables = [*inputs.manifests, *([inputs.assignments] if inputs.assignments else [])]
    facts = {
        "format": FORMAT_VERSION,
        "rules": rules.as_dict(),
        "tables": [[path.name, sha256_file(path)] for path in tables],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _stored(work: Path, digest: str) -> Plan | None:
    try:
        value: dict[str, Any] = json.loads((work / _PLAN_RECORD).read_bytes())
        shards = tuple(ShardPlan(**shard) for shard in value["shards"])
        known = value["digest"] == digest and (work / _PLAN_FILE).is_file()
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None  # none, or a damaged one: the plan is made again
    return Plan(digest, work / _PLAN_FILE, shards) if known else None


def _sort(connection: duckdb.DuckDBPyConnection, inputs: PackInput, rules: PackRules, work: Path) -> None:
    where = f"WHERE (\n{rules.where}\n)" if rules.where else ""
    order = f"split, md5({literal(f'{rules.seed}:')} || key), key, annotation"
    manifest = assigned(inputs, inputs.manifests, MANIFEST)
    query = f"SELECT {names(MANIFEST)} FROM {manifest} manifest {where} ORDER BY {order}"
    with running(rules.where):
        save(connection, query, work / _PLAN_FILE)


def _cut(samples: Iterator[_Planned], shard_bytes: int) -> Iterator[ShardPlan]:
    """Consecutive samples to shards that are closed before they could pass ``shard_bytes``."""
    split, number, first_row = "", 0, 0
    rows = count = most = likely = 0
    for sample in samples:
        full = most + sample.most_bytes + len(END_OF_TAR) > shard_bytes
        if count and (sample.split != split or full):
            yield ShardPlan(f"{split}-{number:06d}", first_row, rows, count, likely + len(END_OF_TAR))
            first_row += rows
            number = number + 1 if sample.split == split else 0
            rows = count = most = likely = 0
        split = sample.split
        rows, count = rows + sample.rows, count + 1
        most, likely = most + sample.most_bytes, likely + sample.likely_bytes
    if count:
        yield ShardPlan(f"{split}-{number:06d}", first_row, rows, count, likely + len(END_OF_TAR))


def _samples(table: Path, inputs: Inputs, size_px: int) -> Iterator[_Planned]:
    """Every sample, in the plan's order; of one that is not resized the stored bytes are the most."""
    rest: pa.Table | None = None
    for batch in pq.ParquetFile(table).iter_batches(_BATCH_ROWS, columns=list(_SCANNED)):
        rows = pa.concat_tables([*([rest] if rest else []), pa.Table.from_batches([batch])])
        if not rows.num_rows:
            continue
        starts = _starts(rows)
        yield from _described(rows, starts, inputs, size_px)
        rest = rows.slice(int(starts[-1]))
    if rest:
        yield from _described(rest, np.array([0, rest.num_rows]), inputs, size_px)


def _starts(rows: pa.Table) -> np.ndarray[Any, np.dtype[np.int64]]:
    """First rows of the samples. Raises OutputError when two samples have one key."""
    changed = {
        name: np.asarray(pc.not_equal(rows[name].slice(1), rows[name].slice(0, rows.num_rows - 1)))
        for name in ("key", "shard", "offset")
    }
    twice = ~changed["key"] & (changed["shard"] | changed["offset"])
    if twice.any():
        key = rows["key"][int(np.flatnonzero(twice)[0])].as_py()
        raise OutputError(f"two samples have the key {key}; keys must be unique. Build the input again.")
    return np.concatenate([[0], np.flatnonzero(changed["key"]) + 1])


def _described(
    rows: pa.Table, starts: np.ndarray[Any, np.dtype[np.int64]], inputs: Inputs, size_px: int
) -> Iterator[_Planned]:
    first, masks = rows.take(starts[:-1]), np.diff(starts)
    splits = first["split"].to_pylist()
    if unknown := set(splits) - set(SPLITS):
        raise OutputError(f'split "{sorted(unknown)[0]}" is none of {", ".join(SPLITS)}; assign every case.')
    most = likely = first["size"].to_numpy()
    if size_px and splits:
        most, likely = resized_sizes(inputs, first, masks, size_px)
    yield from map(_Planned, splits, masks.tolist(), most.tolist(), likely.tolist())
