"""``medcurate query``: right answers, read-only, one clear line for mistakes, ranges on remote files."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from http_kit import served
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kit import pieces, write_dataset
from pack_kit import summarise
from rich.console import Console
from typer.testing import CliRunner

from medcurate.cli.main import app
from medcurate.errors import ConfigError, MedcurateError
from medcurate.explore import rows
from medcurate.explore.query import SharedFile, connect, run, stream
from medcurate.format.columns import MANIFEST, schema
from medcurate.format.tables import write_table
from medcurate.storage import StorageError, locate

cli = CliRunner()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("query") / "it's [a] *set", pieces(24))


@pytest.fixture(scope="module")
def manifest(dataset):
    return pq.ParquetFile(dataset / "manifest.parquet").read()


def test_counts_equal_pyarrows(dataset, manifest):
    found = run(dataset, "SELECT organ, count(*) AS n, sum(area_px) AS area FROM manifest GROUP BY ALL")
    wanted = manifest.group_by("organ").aggregate([([], "count_all"), ("area_px", "sum")])
    assert {(r["organ"], r["n"], r["area"]) for r in found.to_pylist()} == {
        (r["organ"], r["count_all"], r["area_px_sum"]) for r in wanted.to_pylist()
    }
    assert found.schema.field("area").type == pa.int64()


def test_every_column_arrives_as_written(dataset, manifest):
    found = run(dataset, "SELECT * FROM manifest")
    assert found.column_names == [column.name for column in MANIFEST]
    plain = manifest.cast(pa.schema([(f.name, _decoded(f.type)) for f in manifest.schema]))
    assert found.to_pylist() == plain.to_pylist()


def _decoded(kind):
    return kind.value_type if pa.types.is_dictionary(kind) else kind


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bound=st.integers(0, 700), organ=st.sampled_from(["liver", "kidney", "lung", "x' OR 'a'='a"]))
def test_filters_equal_pyarrows(dataset, manifest, bound, organ):
    quoted = organ.replace("'", "''")
    found = run(dataset, f"SELECT count(*) AS n FROM manifest WHERE area_px > {bound} AND organ = '{quoted}'")
    wanted = manifest.filter((pc.field("area_px") > bound) & (pc.field("organ") == organ)).num_rows
    assert found.to_pylist() == [{"n": wanted}]


def test_both_tables_and_single_files(dataset):
    assert run(dataset, "SELECT reason FROM rejects").to_pylist() == [{"reason": "CORRUPT"}]
    assert run(dataset / "rejects.parquet", "SELECT reason FROM rejects").num_rows == 1
    assert run(dataset / "manifest.parquet", "SELECT * FROM manifest").num_rows > 0


def test_the_summary_is_a_table_where_there_is_one(dataset, tmp_path, manifest):
    with pytest.raises(ConfigError, match=r"tables here: manifest, rejects\)"):
        run(dataset, "FROM summary")
    folder = shutil.copytree(dataset, tmp_path / "set")
    summarise(folder)
    sql = "SELECT organ, sum(masks) AS n FROM summary GROUP BY ALL ORDER BY ALL"
    wanted = sorted(Counter(manifest["organ"].to_pylist()).items())
    with served(folder) as server:
        for place in (folder, server.url, folder / "summary.parquet"):
            assert [tuple(row.values()) for row in run(place, sql).to_pylist()] == wanted


@pytest.mark.parametrize("sql", [
    "DESCRIBE manifest", "SUMMARIZE manifest", "EXPLAIN SELECT 1", "SHOW TABLES", "FROM manifest",
    "EXPLAIN (ANALYZE, FORMAT json) SELECT 1",
    "WITH a AS (SELECT 1) FROM a", "/* note */ SELECT 1 -- end",
])  # fmt: skip
def test_reading_statements_are_allowed(dataset, sql):
    assert run(dataset, sql).num_rows > 0


@pytest.mark.parametrize("sql", [
    "INSERT INTO manifest SELECT 1", "CREATE TABLE t AS SELECT 1", "DROP VIEW manifest",
    "DELETE FROM manifest", "UPDATE manifest SET split = 'train'", "COPY (SELECT 1) TO '{out}'",
    "EXPORT DATABASE '{out}'", "EXPLAIN ANALYZE COPY (SELECT 1) TO '{table}' (FORMAT parquet, USE_TMP_FILE false)",
    "EXPLAIN (ANALYZE) COPY (SELECT 1) TO '{table}' (USE_TMP_FILE false)", "EXPLAIN DROP VIEW manifest",
    "ATTACH '{out}'", "INSTALL httpfs", "LOAD httpfs", "PRAGMA threads=1", "SET threads = 1", "RESET threads",
    "SET VARIABLE x = 1", "CALL pragma_version()", "CREATE SECRET (TYPE s3)", "CHECKPOINT",
    "SELECT 1; SELECT 2", "",
])  # fmt: skip
def test_everything_else_is_refused(dataset, tmp_path, sql):
    table = str(dataset / "manifest.parquet").replace("'", "''")
    with pytest.raises(ConfigError, match=r"not allowed: a dataset is read-only|one statement is wanted"):
        run(dataset, sql.format(out=tmp_path / "out", table=table))
    assert list(tmp_path.iterdir()) == []
    assert run(dataset, "FROM manifest").num_rows > 0


@pytest.mark.parametrize("sql", [
    "SELECT * FROM '{file}'", "SELECT * FROM read_text('{file}')", "SELECT * FROM read_csv('{file}')",
    "SELECT * FROM read_parquet('{folder}/*.parquet')", "SELECT * FROM glob('{folder}/*')",
    "SELECT * FROM duckdb_secrets()", "EXPLAIN ANALYZE COPY (SELECT 1) TO '{folder}/new'",
    "SELECT * FROM 'https://example.org/a.parquet'",
])  # fmt: skip
def test_no_other_file_can_be_reached(dataset, tmp_path, sql):
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")
    with pytest.raises(ConfigError) as caught:
        run(dataset, sql.format(file=secret, folder=tmp_path))
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["secret.csv"]


def test_settings_are_locked_even_without_the_statement_check(dataset):
    with connect(dataset) as connection, pytest.raises(Exception, match="locked"):
        connection.execute("SET enable_external_access = true")


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("SELECT modalty FROM manifest", ["modalty", '"modality"']),
        ("SELECT m.labl FROM manifest m", ["labl", "label"]),
        ("SELECT group FROM manifest", ['double quotes: "group"']),
        ("SELECT organ, offset FROM manifest", ['double quotes: "offset"']),
        ("SELECT * FROM manifests", ["manifests", "manifest, rejects"]),
        ("SELEC 1", ["SELEC"]),
        ("SELECT sum(organ) FROM manifest", ["sum(VARCHAR)"]),
        ("SELECT sum(digest) FROM manifest", ["exceeds 64 bits"]),
        ("SELECT CASE WHEN i = 900000 THEN error('late') ELSE i END FROM range(1000000) t(i)", ["late"]),
    ],
)
def test_a_mistake_gives_one_clear_line(dataset, sql, words):
    result = cli.invoke(app, ["query", str(dataset), sql], standalone_mode=False)
    assert isinstance(result.exception, ConfigError)
    text = str(result.exception)
    assert "\n" not in text
    assert len(text) < 500
    assert all(word in text for word in words), text


def test_the_command_ends_with_1_and_one_line(dataset):
    command = [sys.executable, "-m", "medcurate", "query", str(dataset), "SELECT modalty FROM manifest"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "modality" in done.stderr


def _processor_seconds(pid: int) -> float:
    """Of all threads, in user mode."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) / os.sysconf("SC_CLK_TCK")


def test_ctrl_c_ends_a_query_that_would_take_for_ever(dataset):
    sql = "SELECT count(*) FROM manifest a, range(100000000) b, range(100000000) c WHERE a.area_px + b.range = c.range"
    command = [sys.executable, "-m", "medcurate", "query", str(dataset), sql]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while _processor_seconds(process.pid) < 2:  # importing and planning take less
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        killer = threading.Timer(20, process.kill)
        killer.start()
        told = process.stderr.read()
        killer.cancel()
        assert process.wait() == 130
        assert "Traceback" not in told


def test_a_folder_without_a_dataset_says_so(tmp_path):
    with pytest.raises(ConfigError, match="no dataset here"):
        run(tmp_path, "SELECT 1")
    (tmp_path / "manifest.parquet").write_bytes(b"not a table" * 100)
    with pytest.raises(ConfigError, match=r"manifest\.parquet"):
        run(tmp_path, "SELECT 1")


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A manifest of 400,000 rows whose columns do not compress away."""
    folder = tmp_path_factory.mktemp("large")
    count, rng = 400_000, np.random.default_rng(0)
    made = {
        "modality": pa.array(rng.choice(["ct", "mr"], count)).dictionary_encode(),
        "digest": pa.array(rng.integers(0, 2**64, count, dtype=np.uint64)),
        "area_fraction": pa.array(rng.random(count)),
        "area_px": pa.array(np.arange(count, dtype=np.uint32)),
    }
    target = schema(MANIFEST)
    columns = [made.get(f.name, pa.nulls(count, f.type)) for f in target]
    write_table(folder / "manifest.parquet", MANIFEST, [pa.table(columns, schema=target)])
    return folder


def test_a_remote_query_fetches_only_its_columns_and_row_groups(large):
    whole = (large / "manifest.parquet").stat().st_size
    one_column = "SELECT modality, count(*) AS n FROM manifest GROUP BY ALL ORDER BY ALL"
    one_group = "SELECT digest FROM manifest WHERE area_px = 5"
    with served(large) as server:
        assert run(server.url, one_column).equals(run(large, one_column))
        assert server.bytes_sent < whole / 20
        server.bodies.clear()
        assert run(server.url, one_group).equals(run(large, one_group))
        assert server.bytes_sent < whole / 2


def test_every_thread_has_its_own_position_in_a_shared_file(large):
    whole = (large / "manifest.parquet").read_bytes()
    with SharedFile(locate(large / "manifest.parquet")) as stream:
        stream.seek(4)
        other = threading.Thread(target=lambda: (stream.seek(1000), stream.read(10)))
        other.start()
        other.join()
        assert stream.read(8) == whole[4:12]


def test_threads_of_a_remote_query_never_mix_their_reads(large):
    sql = "SELECT count(*) AS n, bit_xor(digest) AS digests, sum(area_px) AS px FROM manifest"
    wanted = run(large, sql).to_pylist()
    with served(large, delay_s=0.01) as server:
        assert all(run(server.url, sql).to_pylist() == wanted for _ in range(5))


def test_a_remote_query_is_as_closed_as_a_local_one(large):
    with served(large) as server, pytest.raises(ConfigError, match="Permission"):
        run(server.url, f"SELECT * FROM read_parquet('{server.url}/manifest.parquet')")


# The footer comes in two requests one after the other, the columns in several at a time.
@pytest.mark.parametrize("fault", [{"ranges": False}, {"broken_after": 2}])
def test_a_failing_server_gives_one_line(large, fault):
    with served(large, **fault) as server, pytest.raises(MedcurateError) as caught:
        run(server.url, "SELECT * FROM manifest")
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, StorageError) or "manifest.parquet" in str(caught.value)


def test_csv_and_json_hold_the_rows_and_repeat(dataset, tmp_path):
    sql = 'SELECT key, lesion, area_fraction, "offset", NULL AS gap FROM manifest ORDER BY key, annotation'
    wanted = run(dataset, sql).to_pylist()
    first, again = (cli.invoke(app, ["query", str(dataset), sql, "--format", "json"]).stdout for _ in "ab")
    assert json.loads(first) == wanted
    assert first == again
    out = tmp_path / "rows.csv"
    assert cli.invoke(app, ["query", str(dataset), sql, "-o", str(out)]).exit_code == 0
    found = list(csv.DictReader(io.StringIO(out.read_text())))
    assert [(r["key"], int(r["offset"]), float(r["area_fraction"]), r["gap"]) for r in found] == [
        (r["key"], r["offset"], r["area_fraction"], "") for r in wanted
    ]


def test_json_has_no_nan_and_an_empty_result_is_a_list(dataset):
    sql = "SELECT 'nan'::DOUBLE AS a, [1.5, 'inf'::DOUBLE] AS b"
    assert json.loads(cli.invoke(app, ["query", str(dataset), sql, "--format", "json"]).stdout) == [
        {"a": None, "b": [1.5, None]}
    ]
    empty = "SELECT 1 AS a WHERE false"
    assert json.loads(cli.invoke(app, ["query", str(dataset), empty, "--format", "json"]).stdout) == []


def test_json_holds_decimals_as_numbers_and_nothing_but_json_below_maps(dataset):
    sql = "SELECT 1.5 AS a, [2.5] AS b, MAP {'k': 'nan'::DOUBLE} AS c, DATE '2026-01-02' AS d"
    found = cli.invoke(app, ["query", str(dataset), sql, "--format", "json"]).stdout
    assert json.loads(found, parse_constant=pytest.fail) == [
        {"a": 1.5, "b": [2.5], "c": [["k", None]], "d": "2026-01-02"}
    ]


def test_columns_of_one_name_are_told_apart_or_refused(dataset):
    sql = "SELECT 1 AS a, 2 AS a"
    assert [word for word in _shown(dataset, sql).split() if word in "12"] == ["1", "2", "1"]  # and "1 row"
    refused = cli.invoke(app, ["query", str(dataset), sql, "--format", "json"])
    assert isinstance(refused.exception, ConfigError)
    assert "several columns are called a, of which JSON keeps one; name them with AS" in str(
        refused.exception
    )


@pytest.mark.parametrize(
    ("name", "sql", "says"),
    [
        ("rows.csv", "SELECT [1] AS a", "CSV cannot hold a;"),
        ("rows.csv", "SELECT INTERVAL 1 DAY AS a", "csv cannot hold this result"),
        ("rows.parquet", "SELECT INTERVAL 1 DAY AS a", "parquet cannot hold this result"),
    ],
)
def test_what_a_form_cannot_hold_is_one_line_and_no_file(dataset, tmp_path, name, sql, says):
    refused = cli.invoke(app, ["query", str(dataset), sql, "-o", str(tmp_path / name)])
    assert isinstance(refused.exception, ConfigError)
    assert says in str(refused.exception)
    assert "\n" not in str(refused.exception)
    assert list(tmp_path.iterdir()) == []


def test_a_number_of_the_table_can_be_copied_into_another_query(dataset):
    for value in (0.9765625, 1234567.8, 0.1 + 0.2):
        assert repr(value) in _shown(dataset, f"SELECT {value!r}::DOUBLE AS a")


def test_parquet_needs_a_file_and_keeps_types(dataset, tmp_path):
    result = cli.invoke(
        app, ["query", str(dataset), "SELECT 1", "--format", "parquet"], standalone_mode=False
    )
    assert "-o FILE" in str(result.exception)
    out = tmp_path / "rows.parquet"
    assert cli.invoke(app, ["query", str(dataset), "FROM manifest", "-o", str(out)]).exit_code == 0
    assert pq.read_table(out).equals(run(dataset, "FROM manifest"))


def test_the_ending_says_the_format_and_an_unknown_one_is_refused(dataset, tmp_path):
    words = ["query", str(dataset), "SELECT 1 AS a", "-o"]
    result = cli.invoke(app, [*words, str(tmp_path / "rows.xlsx")])
    assert isinstance(result.exception, ConfigError)
    assert "end the name in .csv, .json, .parquet, or give --format" in str(result.exception)
    assert list(tmp_path.iterdir()) == []
    assert cli.invoke(app, [*words, str(tmp_path / "rows.txt"), "--format", "csv"]).exit_code == 0
    assert cli.invoke(app, [*words, str(tmp_path / "rows.JSON")]).exit_code == 0
    assert json.loads((tmp_path / "rows.JSON").read_text()) == [{"a": 1}]


def test_a_failed_query_leaves_no_file(dataset, tmp_path):
    out = tmp_path / "rows.csv"
    sql = "SELECT CASE WHEN i = 900000 THEN error('late') ELSE i END FROM range(1000000) t(i)"
    assert cli.invoke(app, ["query", str(dataset), sql, "-o", str(out)]).exit_code != 0
    assert list(tmp_path.iterdir()) == []


def _shown(dataset, sql, width=100):
    console = Console(file=io.StringIO(), width=width)
    with connect(dataset) as connection:
        rows.show(stream(connection, sql), console)
    return console.file.getvalue()


def test_the_table_says_what_it_leaves_out(dataset):
    text = _shown(dataset, "SELECT i FROM range(1234) t(i)")
    assert "1,234 rows, the first 50 shown" in text
    assert " 49 " in text
    assert " 50 │" not in text
    assert "1 row\n" in _shown(dataset, "SELECT 1")


def test_wide_rows_are_shown_one_value_a_line(dataset):
    text = _shown(dataset, "FROM manifest LIMIT 1", width=100)
    assert all(column.name in text for column in MANIFEST)


def test_text_of_a_dataset_is_no_markup(tmp_path):
    odd = [replace(piece, key=piece.key.replace("demo", "[red]x")) for piece in pieces(1)]
    assert "[red]x" in _shown(write_dataset(tmp_path / "odd", odd), "SELECT source FROM manifest LIMIT 1")


def test_decimals_are_numbers_where_no_digit_is_lost(dataset):
    sql = "SELECT 0.10::DECIMAL(4,2) AS short, 12345678901234567.89::DECIMAL(20,2) AS long"
    found = json.loads(cli.invoke(app, ["query", str(dataset), sql, "--format", "json"]).stdout)
    assert found == [{"short": 0.1, "long": "12345678901234567.89"}]


@pytest.mark.parametrize("when", ["'infinity'::TIMESTAMP", "DATE '290000-01-01'"])
def test_dates_that_no_calendar_here_has_are_refused_in_one_line(dataset, when):
    sql = f"SELECT {when} AS a"
    with pytest.raises(ConfigError, match=r"after 9999, or infinite.*::VARCHAR"):
        cli.invoke(app, ["query", str(dataset), sql, "--format", "json"], catch_exceptions=False)
    with pytest.raises(ConfigError, match="::VARCHAR"):
        _shown(dataset, sql)
    _shown(dataset, f"SELECT ({when})::VARCHAR AS a")
