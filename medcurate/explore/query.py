"""Read-only SQL over a dataset's tables, on a folder or a URL, by DuckDB.

Tables ``manifest``, ``rejects`` and, where a dataset has one, ``summary`` (columns: ``medcurate.format.columns``);
in the folder of an evaluation ``scores``, ``volumes``, ``predictions`` and ``prompts``. A connection is closed in both
senses of safety: SQL can reach these files and nothing else, and no setting can be changed.
"""

from __future__ import annotations

import difflib
import glob
import re
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar, cast

import duckdb
from fsspec import AbstractFileSystem

from medcurate.commit import sha256_file
from medcurate.engines.allotted import allotted_cpus
from medcurate.errors import ConfigError, MedcurateError
from medcurate.format import DATASET_FILE, MANIFEST_FILE, REJECTS_FILE, SCORE_FILES, SUMMARY_FILE
from medcurate.format.columns import MANIFEST, REJECTS, SUMMARY
from medcurate.format.record import parse_record, read_record
from medcurate.storage import Location, MissingFileError, RangeFile, StorageError, locate

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")

MEMORY_LIMIT = "1500MB"  # of DuckDB; larger intermediate results spill to the temporary folder
_EXPLAIN = re.compile(r"\s*EXPLAIN(\s+ANALYZE\b|\s*\([^()]*\))?", re.IGNORECASE)
_RESERVED = ("case", "group", "offset")  # columns that are words of SQL
_REMOTE = "dataset"  # protocol under which DuckDB sees remote tables


def run(dataset: str | Path, sql: str) -> pa.Table:
    """The result of one reading statement over ``dataset``. Raises ConfigError, StorageError."""
    with connect(dataset) as connection:
        return stream(connection, sql).read_all()


def connect(dataset: str | Path) -> duckdb.DuckDBPyConnection:
    """A locked-down connection with the views ``manifest``, ``rejects`` and ``summary``; close it after use.

    ``dataset``: a dataset's folder or URL, or one Parquet file of it. ``summary`` is there only where it is known to be
    that of the manifest. Threads are the CPUs allotted.
    Remote tables are read by ranges: the columns and row groups that a query touches, no more.
    Raises ConfigError when there is no dataset, StorageError when it cannot be read.
    """
    files = tables(dataset)
    connection = opened(files)
    try:
        for name, file in files.items():
            add_view(connection, name, file)
    except BaseException:
        connection.close()
        raise
    return connection


def opened(files: Mapping[str, Location]) -> duckdb.DuckDBPyConnection:
    """A locked-down connection that can reach ``files`` and nothing else, and has no view yet; close it after use."""
    connection = duckdb.connect(
        config={
            "memory_limit": MEMORY_LIMIT,
            "temp_directory": str(Path(tempfile.gettempdir(), f"medcurate-{uuid.uuid4().hex}")),
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "python_enable_replacements": "false",
        }
    )
    try:
        _close_off(connection, files)
    except BaseException:
        connection.close()
        raise
    return connection


def add_view(connection: duckdb.DuckDBPyConnection, name: str, file: Location) -> None:
    """Let SQL read ``file``, one of those that the connection can reach, as ``name``; its footer is read now.

    Raises ConfigError where it is no table, StorageError when it cannot be read.
    """
    source = f"read_parquet({literal(glob.escape(_path(name, file)))}, hive_partitioning = false)"
    try:
        connection.execute(f"CREATE VIEW {name} AS SELECT * FROM {source}")
    except duckdb.Error as error:
        raise _unreadable(file, error) from error


def stream(connection: duckdb.DuckDBPyConnection, sql: str) -> pa.RecordBatchReader:
    """Run one reading statement; rows arrive in batches, so that results larger than memory can be written.

    Whole-number sums, which DuckDB widens to 128 bits, come as int64. Raises ConfigError in one line for
    mistakes and for statements that do more than read.
    """
    try:
        _check_reading(connection, sql)
        reader = _interruptibly(connection, lambda: connection.sql(sql).to_arrow_reader())
    except duckdb.Error as error:
        raise _mistake(connection, error, sql) from error
    return _checked(connection, reader, sql)


def make(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Run a statement of medcurate's own that makes a temporary table or view. Raises as ``stream`` does."""
    try:
        _interruptibly(connection, lambda: connection.execute(sql))
    except duckdb.Error as error:
        raise _mistake(connection, error, sql) from error


def _interruptibly(connection: duckdb.DuckDBPyConnection, call: Callable[[], T]) -> T:
    """``call()`` in a thread of its own: while DuckDB computes in this one, Python sees no Ctrl-C."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(call)
        try:
            return future.result()
        except KeyboardInterrupt:
            while not future.done():  # an interrupt that comes before the query has begun is lost
                connection.interrupt()
                wait([future], timeout=0.1)
            raise


def one_line(error: BaseException) -> str:
    """DuckDB's message without its position drawing, its lists of overloads and its traceback of readers."""
    text = str(error)
    if "Traceback (most recent call last)" in text:
        raised = re.findall(
            r"^(?:\w+\.)*(\w+: .+)$", text.split("Traceback (most recent call last)")[1], re.MULTILINE
        )
        return str(raised[-1] if raised else text.splitlines()[0])
    text = re.split(r"\n\s*\nLINE \d+:|\n\tCandidate functions:", text)[0]
    text = re.sub(r'Did you mean "(pg|duckdb)_\w+"\?', "", text)
    return " ".join(text.split())


def literal(text: str) -> str:
    """``text`` as an SQL string."""
    return "'" + text.replace("'", "''") + "'"


def tables(dataset: str | Path) -> dict[str, Location]:
    """Table name to file. Raises ConfigError when the manifest is not there."""
    where = locate(dataset)
    if where.url.endswith(".parquet"):
        known = (REJECTS_FILE, SUMMARY_FILE, *SCORE_FILES)
        file = where.url.rsplit("/", 1)[-1]
        name = file.removesuffix(".parquet") if file in known else "manifest"
        if not _stands(where):
            raise ConfigError(f"{where}: no such file")
        return {name: where}
    manifest, rejects, summary = map(where.member, (MANIFEST_FILE, REJECTS_FILE, SUMMARY_FILE))
    if not _stands(manifest):
        if _stands(where.member(SCORE_FILES[0])):
            scores = {name.removesuffix(".parquet"): where.member(name) for name in SCORE_FILES}
            return {name: file for name, file in scores.items() if _stands(file)}
        if where.is_local:
            read_record(where.path)
        raise ConfigError(f"{where}: no dataset here ({MANIFEST_FILE} is missing).")
    found = {"manifest": manifest}
    if _stands(rejects):
        found["rejects"] = rejects
    if _are_as_recorded(where, manifest, summary):
        found["summary"] = summary
    return found


def _stands(file: Location) -> bool:
    """Whether there is such a file. Of a remote one the size tells, which is asked for once and needed anyway."""
    if file.is_local:
        return file.exists()
    try:
        return file.size_bytes >= 0
    except MissingFileError:
        return False


def _are_as_recorded(dataset: Location, manifest: Location, summary: Location) -> bool:
    """Whether the dataset's record names both files in the sizes that they have; of a local summary the digest too.

    The manifest's digest would cost more than all answers: what it alone can find, ``verify`` finds.
    """
    path = dataset.member(DATASET_FILE)
    try:
        stated = parse_record(path.read_range(0, path.size_bytes), path.url).files
        for name, file in ((MANIFEST_FILE, manifest), (SUMMARY_FILE, summary)):
            if name not in stated or stated[name].size_bytes != file.size_bytes:
                return False
        return not summary.is_local or sha256_file(summary.path) == stated[SUMMARY_FILE].sha256
    except (MedcurateError, OSError):
        return False  # no record, or a file that cannot be read: the manifest alone answers then


def _close_off(connection: duckdb.DuckDBPyConnection, files: Mapping[str, Location]) -> None:
    remote = {_path(name, file): file for name, file in files.items() if not file.is_local}
    if remote:
        connection.register_filesystem(RemoteTables(remote))
        connection.execute("SET parquet_metadata_cache = true")  # else every query asks for its footers anew
    paths = [_path(name, file) for name, file in files.items()]
    # DuckDB checks the pattern as well as the file that it finds.
    allowed = {*paths, *map(glob.escape, paths)}
    connection.execute(f"SET allowed_paths = [{', '.join(map(literal, sorted(allowed)))}]")
    connection.execute(f"SET threads = {allotted_cpus()}")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def _path(name: str, file: Location) -> str:
    """How DuckDB calls the file of a table."""
    return file.url if file.is_local else f"{_REMOTE}://{name}"


class SharedFile(RangeFile):
    """A file with a position of its own in every thread.

    DuckDB's threads share one handle, and each calls ``seek`` and then ``read`` without a lock: with a
    common position they would silently read each other's bytes.
    """

    def __init__(self, location: Location) -> None:
        self._here = threading.local()
        super().__init__(location)

    @property
    def _position(self) -> int:
        return int(getattr(self._here, "position", 0))

    @_position.setter
    def _position(self, value: int) -> None:
        self._here.position = value


class RemoteTables(AbstractFileSystem):  # type: ignore[misc]
    """The few files that a connection may read, as DuckDB asks for them: by fixed names, read-only."""

    protocol = _REMOTE
    cachable = False

    def __init__(self, files: Mapping[str, Location]) -> None:
        super().__init__()
        self._files = dict(files)

    def glob(self, path: str, **_: Any) -> list[str]:
        """The path itself where it is one of the files."""
        return [path] if path in self._files else []

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Name, type and size in bytes."""
        return {"name": path, "type": "file", "size": self._file(path).size_bytes}

    def modified(self, path: str) -> datetime:
        """A constant: a dataset's files never change under their name."""
        self._file(path)
        return datetime(1980, 1, 1, tzinfo=UTC)

    def open(self, path: str, mode: str = "rb", **_: Any) -> IO[bytes]:
        """Open for reading by exact ranges."""
        if mode != "rb":
            raise PermissionError(f"{path}: datasets are read-only")
        return cast("IO[bytes]", SharedFile(self._file(path)))

    def _file(self, path: str) -> Location:
        if path not in self._files:
            raise FileNotFoundError(path)
        return self._files[path]


def _check_reading(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    statements = connection.extract_statements(sql)
    if len(statements) != 1:
        raise ConfigError(f"query: one statement is wanted, not {len(statements)}.")
    kind, word = statements[0].type, sql.split(maxsplit=1)[0].upper()
    if (
        kind == duckdb.StatementType.EXPLAIN
    ):  # ANALYZE runs what it explains, and COPY could replace the table
        explained = connection.extract_statements(_EXPLAIN.sub("", sql, count=1))
        kind, word = explained[0].type if explained else kind, "EXPLAIN of what does not read"
    if kind != duckdb.StatementType.SELECT:
        raise ConfigError(
            f"query: {word} is not allowed: a dataset is read-only. "
            "Use SELECT, WITH, DESCRIBE, SUMMARIZE or EXPLAIN."
        )


def _unreadable(file: Location, error: Exception) -> ConfigError | StorageError:
    return _of_storage(error) or ConfigError(f"{file}: {one_line(error)}")


def _of_storage(error: Exception) -> StorageError | None:
    """What DuckDB was told when it could not read a remote table."""
    text = one_line(error)
    return StorageError(text.split(": ", 1)[1]) if text.startswith(StorageError.__name__) else None


def _mistake(connection: duckdb.DuckDBPyConnection, error: Exception, sql: str) -> ConfigError | StorageError:
    if failed := _of_storage(error):
        return failed
    text = one_line(error)
    hint = _tables_hint(connection) if "Table with name" in text else _hint(error, text, sql)
    return ConfigError(f"query: {text}{hint}")


def _tables_hint(connection: duckdb.DuckDBPyConnection) -> str:
    found = connection.execute(
        "SELECT view_name FROM duckdb_views() WHERE NOT internal ORDER BY ALL"
    ).fetchall()
    more = "; give the dataset's folder for its others" if len(found) == 1 else ""
    return f" (tables here: {', '.join(name for (name,) in found)}{more})"


def _hint(error: Exception, text: str, sql: str) -> str:
    if isinstance(error, duckdb.ParserException):
        bare = re.sub(r"'[^']*'|\"[^\"]*\"", "", sql.lower())
        bare = re.sub(r"\b(group|order)\s+by\b|\bcase\s+when\b", "", bare)
        found = [name for name in _RESERVED if re.search(rf"\b{name}\b", bare)]
        return f' (columns named like words of SQL need double quotes: "{found[0]}")' if found else ""
    unknown = re.search(r'(?:does not have a column named|Referenced column) "([^"]+)"', text)
    if unknown and "Candidate" not in text:
        known = sorted({column.name for column in MANIFEST + REJECTS + SUMMARY})
        near = difflib.get_close_matches(unknown[1], known, 3)
        return f" (did you mean {' or '.join(near)}?)" if near else f"; columns: {', '.join(known)}"
    return ""


def _checked(
    connection: duckdb.DuckDBPyConnection, reader: pa.RecordBatchReader, sql: str
) -> pa.RecordBatchReader:
    """The same rows with readable errors, and with int64 for HUGEINT.

    HUGEINT arrives as decimal128(38, 0), which few tools read as a number; sums of counts fit int64.
    """
    import pyarrow as pa

    wide = pa.decimal128(38, 0)
    target = pa.schema([f.with_type(pa.int64()) if f.type == wide else f for f in reader.schema])

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            while (batch := _interruptibly(connection, lambda: next(reader, None))) is not None:
                yield batch.cast(target)
        except pa.ArrowInvalid as error:
            raise ConfigError(
                "query: a whole number exceeds 64 bits; write sum(x)::DOUBLE for it."
            ) from error
        except OSError as error:
            raise _mistake(connection, error, sql) from error

    return pa.RecordBatchReader.from_batches(target, batches())
