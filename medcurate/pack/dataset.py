"""The verb ``pack``: a finished dataset to another one, claimed, locked, resumable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from medcurate import __version__
from medcurate.claim import check_claim, claim, release, work_folder
from medcurate.commit import remove_temporaries, sha256_file
from medcurate.condition import check_condition, running
from medcurate.engines.types import Engine
from medcurate.errors import ConfigError
from medcurate.format import DATASET_FILE, FORMAT_VERSION, MANIFEST_FILE, REJECTS_FILE, SUMMARY_FILE
from medcurate.format.columns import MANIFEST, REJECTS
from medcurate.format.record import DatasetRecord, read_record
from medcurate.lock import locked
from medcurate.pack.database import database, from_parquet
from medcurate.pack.publish import check_publishable, write_texts
from medcurate.pack.run import write_shards
from medcurate.pack.types import PackInput, PackResult, PackRules, Progress

# Packages that touch the bytes of a packed sample, by what the rules ask for.
_RESIZE_TOOLS = ("isal", "numpy", "opencv-python-headless")
_WHERE_TOOLS = ("duckdb",)


def pack_dataset(
    source: Path,
    out: Path,
    rules: PackRules,
    *,
    engine: Engine,
    workers: int,
    publish: bool = False,
    progress: Progress | None = None,
) -> PackResult:
    """Pack the dataset in ``source`` into ``out``; the same arguments continue or repair an earlier run.

    ``publish``: refuse rows that may not be passed on, and add the texts that must go with the others.

    Raises ConfigError (no dataset, a mistake in the rules, an output made from something else), DamagedInput
    (a bad sample in ``source``) and OutputError (disk full, in use by another process).
    """
    source, out = source.resolve(), out.resolve()
    if out == source or out in source.parents or source in out.parents:
        raise ConfigError(f"{out}: the output must be another folder, outside of the input {source}.")
    record = read_record(source)
    if rules.where:
        check_condition(rules.where)
    made_by = _made_by(source, record, rules)
    work = work_folder(out)
    if not work.exists():  # nor is one left beside a folder that is refused
        check_claim(out, made_by, work)
    with locked(work, f"packing {out.name}"):
        if out.is_dir():
            remove_temporaries(out)
        inputs = PackInput(source, (source / MANIFEST_FILE,), (source / REJECTS_FILE,))
        with _claimed(out, made_by, work):
            if publish:
                check_publishable(record.sources, _sources_of(inputs, rules.where, work))
            result = write_shards(inputs, rules, out, work, engine=engine, workers=workers, progress=progress)
        _write_record(record, made_by, out, result, publish=publish)
        release(out)
    return result


@contextmanager
def _claimed(out: Path, made_by: Mapping[str, Any], work: Path) -> Iterator[None]:
    """``out`` is claimed; not any more after a mistake of the user, which is found before anything is written."""
    claim(out, made_by, work)
    try:
        yield
    except ConfigError:
        release(out)
        with suppress(OSError):
            out.rmdir()
        raise


def _sources_of(inputs: PackInput, where: str, work: Path) -> list[str]:
    """The sources of the rows that fit ``where``, without one those of the ledger too.

    Raises ConfigError for a condition that cannot be run.
    """
    query = f"SELECT source FROM {from_parquet(inputs.manifests, MANIFEST)} manifest"
    if where:
        query += f" WHERE (\n{where}\n)"
    else:
        query += f" UNION ALL SELECT source FROM {from_parquet(inputs.rejects, REJECTS)}"
    query = f"SELECT DISTINCT source FROM ({query}) ORDER BY source"
    with database(work, (*inputs.manifests, *inputs.rejects)) as connection, running(where):
        return [source for (source,) in connection.execute(query).fetchall()]


def _made_by(source: Path, record: DatasetRecord, rules: PackRules) -> dict[str, Any]:
    tools = (*(_RESIZE_TOOLS if rules.size_px else ()), *(_WHERE_TOOLS if rules.where else ()))
    return {
        "verb": "pack",
        "input": {
            "name": record.name,
            "record_sha256": sha256_file(source / DATASET_FILE),
            "made_by": record.made_by,
        },
        "rules": rules.as_dict(),
        "tools": {
            "medcurate": __version__,
            "format": FORMAT_VERSION,
            **{tool: _version(tool) for tool in tools},
        },
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def _write_record(
    given: DatasetRecord, made_by: Mapping[str, Any], out: Path, result: PackResult, *, publish: bool
) -> None:
    """Write ``dataset.json``, and before it the texts of ``publish``; one that stands already names only those anew."""
    finished = (out / DATASET_FILE).is_file()
    made = read_record(out) if finished else _record(given, made_by, out, result)
    if publish:
        made = replace(made, files={**made.files, **write_texts(out, made.sources)})
    if publish or not finished:
        made.write(out)


def _record(given: DatasetRecord, made_by: Mapping[str, Any], out: Path, result: PackResult) -> DatasetRecord:
    used = {name for table in (SUMMARY_FILE, REJECTS_FILE) for name in _sources_in(out / table)}
    return DatasetRecord(
        name=given.name,
        made_by=made_by,
        sources={name: _facts(given.sources[name]) for name in sorted(used & given.sources.keys())},
        counts=_counts(given.counts, result),
        files=result.files,
    )


def _sources_in(table: Path) -> set[str]:
    """The values of the column ``source``, a batch at a time: a ledger may have more rows than the manifest."""
    found: set[str] = set()
    for batch in pq.ParquetFile(table).iter_batches(columns=["source"]):
        found.update(pc.unique(batch["source"].cast("string")).to_pylist())
    return found


def _facts(source: Mapping[str, Any]) -> dict[str, Any]:
    """A source's facts without its counts, which were those of the input."""
    return {name: value for name, value in source.items() if name != "counts"}


def _counts(given: Mapping[str, Mapping[str, int]], result: PackResult) -> dict[str, dict[str, int]]:
    """Counting law: what the input had written and rejected is written, rejected or not selected."""
    counts = {}
    for kind, before in given.items():
        discovered = before["written"] + before["rejected"]
        written, rejected = result.written[kind], result.rejected[kind]
        counts[kind] = {
            "discovered": discovered,
            "written": written,
            "rejected": rejected,
            "not_selected": discovered - written - rejected,
        }
    return counts
