"""DuckDB for pack: bounded memory, spills into the work folder, touches no other file than it was given."""

from __future__ import annotations

import errno
import glob
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb

from medcurate.commit import committed_path, output_error
from medcurate.condition import literal
from medcurate.errors import OutputError
from medcurate.format.columns import Column

MEMORY_LIMIT = "512MB"
ROW_GROUP_ROWS = 65_536  # of intermediate tables: what a shard's job reads beyond its own rows
_SPILL = "spill"


@contextmanager
def database(work: Path, files: Iterable[Path]) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection that can read ``files`` and read and write in ``work``, and nothing else.

    Raises OutputError when the disk is full, memory does not suffice, or a file cannot be read or written.
    """
    spill = work / _SPILL
    spill.mkdir(parents=True, exist_ok=True)
    connection = duckdb.connect(config={"memory_limit": MEMORY_LIMIT, "temp_directory": str(spill)})
    try:
        connection.execute(f"SET allowed_directories = [{_allowed([work])}]")
        connection.execute(f"SET allowed_paths = [{_allowed(files)}]")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        yield connection
    except duckdb.Error as error:
        raise _output_error(error, work) from error
    except RuntimeError as error:
        if "interrupted" in str(error):  # what DuckDB makes of Ctrl-C while it computes
            raise KeyboardInterrupt from error
        raise
    finally:
        connection.close()
        shutil.rmtree(spill, ignore_errors=True)


def save(connection: duckdb.DuckDBPyConnection, query: str, path: Path) -> None:
    """Commit the rows of ``query``, in their order, as Parquet at ``path`` (inside the work folder)."""
    options = f"FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {ROW_GROUP_ROWS}"
    with committed_path(path) as temporary:
        connection.execute(f"COPY ({query}) TO {literal(str(temporary))} ({options})")


def from_parquet(paths: Sequence[Path], columns: Sequence[Column]) -> str:
    """A subquery with ``columns`` of all files; names are taken literally, whatever characters they hold."""
    if not paths:
        nothing = ", ".join(f'NULL AS "{column.name}"' for column in columns)
        return f"(SELECT {nothing} WHERE false)"
    listed = ", ".join(literal(glob.escape(str(path))) for path in paths)
    return f"(SELECT {names(columns)} FROM read_parquet([{listed}], hive_partitioning = false))"


def names(columns: Sequence[Column], table: str = "") -> str:
    """Quoted column names, separated by commas."""
    return ", ".join(f'{table}"{column.name}"' for column in columns)


def _allowed(paths: Iterable[Path]) -> str:
    """A list of paths; as patterns too, for DuckDB checks a pattern before the file that it finds."""
    written = {text for path in paths for text in (str(path), glob.escape(str(path)))}
    return ", ".join(literal(text) for text in sorted(written))


def _output_error(error: duckdb.Error, work: Path) -> OutputError:
    text = str(error)
    if "No space left" in text or "max_temp_directory_size" in text:
        return output_error(OSError(errno.ENOSPC, text), work / _SPILL)
    return OutputError(
        f"reading or sorting the tables failed: {text.splitlines()[0]}. "
        "If an input file is damaged (`medcurate verify` names it), mend it and run the same command again."
    )
