"""Make the index of what a run selects: SQL on the manifest, once a machine, kept in the cache folder."""

from __future__ import annotations

import fcntl
import glob
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb

from medcurate.commit import TEMP_PREFIX, committed, sha256_file
from medcurate.condition import check_condition, literal
from medcurate.errors import ConfigError
from medcurate.format import DATASET_FILE, FORMAT_VERSION, MANIFEST_FILE
from medcurate.storage import Location, MissingFileError
from medcurate.train.stream.columns import write_columns
from medcurate.train.stream.index import INDEX_VERSION, Index

MEMORY_LIMIT = "1500MB"  # of DuckDB; larger intermediate results spill to a temporary folder
_COPY_BYTES = 8 << 20
_BATCH_ROWS = 1 << 18


def open_index(
    dataset: Location,
    *,
    split: str,
    where: str,
    by: Sequence[str],
    cache: Path,
    where_is: str = "[data] where",
) -> Index:
    """The samples of ``split`` ("" for all) with a mask that fits ``where`` ("" for all), in storage order.

    A mask that does not fit is not selected, though others of its image are. ``by``: columns of the weights'
    strata; an image belongs to that of its first selected mask. ``cache``: folder of indexes; made.
    ``where_is``: what the user wrote ``where`` as, for messages.
    Raises ConfigError when there is no dataset, ``where`` is wrong or nothing fits, StorageError when the
    manifest cannot be read.
    """
    if where:
        _check(where, where_is)
    manifest, size_bytes = _manifest_facts(dataset)
    facts = json.dumps([INDEX_VERSION, manifest, split, where, list(by)])
    index = Index(cache / hashlib.sha256(facts.encode()).hexdigest()[:32])
    if not index.is_whole():
        with _alone(index.path.with_suffix(".lock")):
            if not Index(index.path).is_whole():
                with _local_manifest(dataset, manifest, size_bytes, cache) as file:
                    _write(index.path, file, _query(file, split, where, by), manifest)
        index = Index(index.path)
    if not len(index):
        asked = f' with where = "{where}"' if where else ""
        raise ConfigError(f'{dataset}: no mask of split "{split}"{asked}; see medcurate stats {dataset}.')
    return index


def _check(where: str, where_is: str) -> None:
    try:
        check_condition(where)
    except ConfigError as error:
        raise ConfigError(str(error).replace("--where", where_is, 1)) from error


def _manifest_facts(dataset: Location) -> tuple[str, int]:
    """SHA-256 and size in bytes of the manifest, from the dataset's record. Raises ConfigError."""
    record = dataset.member(DATASET_FILE)
    try:
        value = json.loads(record.read_range(0, record.size_bytes))
        entry = value["files"][MANIFEST_FILE]
        version, facts = value["format_version"], (str(entry["sha256"]), int(entry["size_bytes"]))
    except (MissingFileError, FileNotFoundError) as error:
        raise ConfigError(f"{dataset}: no finished dataset here ({DATASET_FILE} is missing).") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{record}: not a dataset record ({error}); build the dataset again.") from error
    if version != FORMAT_VERSION:
        raise ConfigError(f"{record}: format version {version}; this medcurate reads {FORMAT_VERSION}.")
    return facts


@contextmanager
def _local_manifest(dataset: Location, sha256: str, size_bytes: int, cache: Path) -> Iterator[Path]:
    """The manifest as a local file of the recorded bytes; a remote one is copied and removed afterwards."""
    source = dataset.member(MANIFEST_FILE)
    if source.size_bytes != size_bytes:
        raise ConfigError(
            f"{source}: {source.size_bytes:,} bytes, where {DATASET_FILE} says {size_bytes:,}: "
            "it was changed after the build; run medcurate verify, or build the dataset again."
        )
    if source.is_local:
        yield source.path
        return
    copy = cache / f"{sha256}.parquet"
    try:
        with committed(copy) as stream:
            for offset in range(0, size_bytes, _COPY_BYTES):
                stream.write(source.read_range(offset, min(_COPY_BYTES, size_bytes - offset)))
        if sha256_file(copy) != sha256:
            raise ConfigError(
                f"{source}: its bytes are not those that {DATASET_FILE} records; copy it again."
            )
        yield copy
    finally:
        copy.unlink(missing_ok=True)


def _query(manifest: Path, split: str, where: str, by: Sequence[str]) -> str:
    """The selected masks in the manifest's order, which is that of storage; DuckDB keeps it."""
    conditions = ([f"split = {literal(split)}"] if split else []) + ([f"(\n{where}\n)"] if where else [])
    chosen = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    stratum = f"concat_ws('/', {', '.join(by)})" if by else "''"
    return (
        f'SELECT shard, "offset", size, digest, annotation, "key", "group" AS patient, {stratum} AS stratum '
        f"FROM read_parquet({literal(glob.escape(str(manifest)))}, hive_partitioning = false) AS manifest {chosen}"
    )


def _write(path: Path, manifest: Path, sql: str, sha256: str) -> None:
    """Make the index under another name, and give it its own when it is complete."""
    unfinished = path.with_name(f"{TEMP_PREFIX}{path.name}")
    for leftover in (unfinished, path):  # of a killed process, or damaged
        shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="medcurate-") as spill:
        config = {
            "memory_limit": MEMORY_LIMIT,
            "temp_directory": spill,
            "python_enable_replacements": "false",
        }
        connection = duckdb.connect(config=config)  # type: ignore[arg-type]  # its stub allows no plain dict
        allowed = ", ".join(literal(name) for name in {str(manifest), glob.escape(str(manifest))})
        try:
            connection.execute(f"SET allowed_paths = [{allowed}]")
            connection.execute("SET enable_external_access = false")
            connection.execute("SET lock_configuration = true")
            write_columns(unfinished, connection.sql(sql).to_arrow_reader(_BATCH_ROWS), sha256)
        except duckdb.Error as error:
            raise ConfigError(f"{manifest}: {' '.join(str(error).split())}") from error
        finally:
            connection.close()
    os.rename(unfinished, path)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process of this machine at a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
