"""The tables that a build tells at its end and ``status`` shows: their numbers are whole at any width."""

from __future__ import annotations

import io
from collections.abc import Mapping

import pytest
from rich.console import Console
from rich.table import Table

from medcurate.build.report import BuildReport, SourceReport, closing_table
from medcurate.build.status import SourceStatus, Status, status_table

NAME = "totalsegmentator-ct-v2-with-more"
COUNTS = {
    kind: {"discovered": 234_567, "written": written, "rejected": 234_567 - written}
    for kind, written in (("cases", 234_566), ("slices", 4_634_567), ("masks", 19_734_567))
}


FEW = {kind: {"discovered": 12, "written": 12, "rejected": 0} for kind in COUNTS}


def built(name: str, counts: Mapping[str, Mapping[str, int]] = COUNTS) -> Table:
    one = SourceReport(
        source=name,
        counts=counts,
        reasons={},
        input_bytes=250_000_000_000,
        part_bytes=999_900_000,
        seconds=123_456.7,
    )
    return closing_table(
        BuildReport(
            sources=(one, one),
            counts=counts,
            quarantined_cases=0,
            patients={},
            joined_groups=0,
            output_bytes=0,
            seconds=0.0,
        )
    )


def running(name: str) -> Table:
    one = SourceStatus(
        source=name,
        jobs=12_345,
        jobs_done=1_234,
        cases=234_567,
        cases_written=234_566,
        cases_refused=12_345,
        masks=19_734_567,
    )
    return status_table(Status(state="running", sources=(one,)))


def shown(table: Table, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, soft_wrap=True)  # as the verbs have it
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [40, 80, 200])
def test_no_number_is_cut(width: int) -> None:
    closing = shown(built(NAME), width)
    for number in ("234,567", "234,566", "4,634,567", "19,734,567", "250,000", "999.9", "123,457"):
        assert closing.count(number) >= 2
    status = shown(running(NAME), width)
    for number in ("1,234 of 12,345", "234,566 of 234,567", "12,345", "19,734,567"):
        assert number in status


def test_a_long_name_is_folded_and_a_line_is_at_most_80_wide_where_numbers_allow_it() -> None:
    closing = shown(built(NAME), 80)
    assert max(len(line.rstrip()) for line in closing.splitlines()) <= 80
    assert "".join(line.split(" ")[0] for line in closing.splitlines()[1:]) == NAME * 2 + "all"
    assert NAME not in closing
    assert "msd-task03-liver  " in shown(built("msd-task03-liver", FEW), 80)
