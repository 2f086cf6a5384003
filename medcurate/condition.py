"""Check a `where` condition before it runs: one condition on manifest columns, the same every time."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import duckdb

from medcurate.errors import ConfigError
from medcurate.format.columns import MANIFEST

_COLUMNS = frozenset(column.name for column in MANIFEST)
_ONE_CONDITION = "it must be one condition, not further clauses or statements"
# What DuckDB calls consistent, or lists under another name (its keywords), though it depends on the clock or on DuckDB.
_OF_TODAY = frozenset({
    "age",
    "current_localtime",
    "current_localtimestamp",
    "current_time",
    "current_timestamp",
    "localtime",
    "localtimestamp",
    "version",
})
_NO_CONDITION = {
    "SUBQUERY": "a subquery",
    "WINDOW": "a window function",
    "PARAMETER": "a parameter",
    "STAR": "COLUMNS",
}


def check_condition(where: str) -> None:
    """Raise ConfigError, one line, unless ``where`` is a condition on manifest columns and nothing more.

    DuckDB's own parser decides. Put into a query, the text may change the WHERE clause only, so it cannot
    add statements, joins or limits. Subqueries are refused, and with them every way to read another file;
    so are functions that may give another answer tomorrow, because a dataset must come out the same again.
    """
    with duckdb.connect() as connection:
        tree, plain = _parse(connection, where), _parse(connection, "true")
        condition = tree.pop("where_clause", None)
        plain.pop("where_clause")
        if tree != plain or condition is None:
            raise _error(where, _ONE_CONDITION)
        _parse(connection, where, "{}")  # one that closes a parenthesis it did not open is none
        unsteady = _unsteady(connection)
        for node in _nodes(condition):
            _check_node(where, node, unsteady)
        _bind(connection, where)


@contextmanager
def running(where: str) -> Iterator[None]:
    """What DuckDB says of the values that ``where`` meets becomes a ConfigError of one line."""
    try:
        yield
    except (duckdb.DataError, duckdb.ProgrammingError) as error:
        if not where:
            raise
        raise _complaint(where, error) from error


def literal(text: str) -> str:
    """An SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def _complaint(where: str, error: duckdb.Error) -> ConfigError:
    lines = str(error).split("\n\nLINE", 1)[0].splitlines()
    return _error(where, " ".join(line.strip() for line in lines))


def _error(where: str, why: str) -> ConfigError:
    return ConfigError(f"--where {where!r}: {why}")


def _parse(connection: duckdb.DuckDBPyConnection, where: str, around: str = "({})") -> dict[str, Any]:
    """The syntax tree of a query with this condition, without positions in the text."""
    sql = "SELECT * FROM manifest WHERE " + around.format(f"\n{where}\n")
    (text,) = connection.execute("SELECT json_serialize_sql(?)", [sql]).fetchall()[0]
    parsed = json.loads(text)
    if parsed.get("error_type") == "parser":
        raise _error(where, str(parsed["error_message"]).splitlines()[0])
    if parsed["error"] or len(parsed["statements"]) != 1:
        raise _error(where, _ONE_CONDITION)
    node = _without_positions(parsed["statements"][0]["node"])
    assert isinstance(node, dict)
    return node


def _without_positions(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_positions(v) for k, v in value.items() if not k.startswith("query_location")}
    return [_without_positions(entry) for entry in value] if isinstance(value, list) else value


def _nodes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for entry in value:
            yield from _nodes(entry)


def _check_node(where: str, node: dict[str, Any], unsteady: frozenset[str]) -> None:
    kind = node.get("class")
    if kind in _NO_CONDITION:
        raise _error(where, f"{_NO_CONDITION[kind]} cannot stand in a condition on one row")
    called = str(node.get("function_name", "")).lower()
    # SQL spells some functions without parentheses: current_date parses as a column.
    called = called or (str(node["column_names"][-1]).lower() if kind == "COLUMN_REF" else "")
    if called in unsteady - _COLUMNS:
        raise _error(
            where, f"{called} may give another answer tomorrow; for a random part write md5(key) < '4'"
        )


def _unsteady(connection: duckdb.DuckDBPyConnection) -> frozenset[str]:
    """Functions that are not the same for ever by DuckDB's own word, and macros that call them."""
    query = "SELECT function_name FROM duckdb_functions() WHERE stability <> 'CONSISTENT'"
    names = _OF_TODAY | {name for (name,) in connection.execute(query).fetchall()}
    macros = (
        "SELECT function_name, macro_definition FROM duckdb_functions() WHERE macro_definition IS NOT NULL"
    )
    calling = connection.execute(macros).fetchall()
    return names | {name for name, text in calling if names & set(re.findall(r"\w+", text.lower()))}


def _bind(connection: duckdb.DuckDBPyConnection, where: str) -> None:
    """Names and types, checked against a manifest of one row of nulls."""
    types = {"dictionary": "VARCHAR", "string": "VARCHAR", "bool": "BOOLEAN", "float64": "DOUBLE"}
    types |= {"uint16": "USMALLINT", "uint32": "UINTEGER", "uint64": "UBIGINT", "int64": "BIGINT"}
    columns = ", ".join(f'"{column.name}" {types[column.type]}' for column in MANIFEST)
    connection.execute(f"CREATE TABLE manifest ({columns})")
    connection.execute("INSERT INTO manifest DEFAULT VALUES")
    # DuckDB 2.0.0 fails to fold split_part over a column of which it knows that all is null.
    connection.execute("SET disabled_optimizers = 'statistics_propagation'")
    try:
        connection.execute(f"SELECT 1 FROM manifest WHERE (\n{where}\n)").fetchall()
    except duckdb.Error as error:
        raise _complaint(where, error) from error
