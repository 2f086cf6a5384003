"""Tables and JSON on standard output."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any

import typer

PIPE_WIDTH = 160  # characters a line where there is no terminal to fill


def echo_json(value: Any) -> None:
    """Print ``value`` as indented JSON."""
    typer.echo(json.dumps(value, indent=1, ensure_ascii=False))


def line_width() -> int:
    """Characters a line of the terminal, or ``PIPE_WIDTH`` where there is none."""
    from rich.console import Console

    console = Console()
    return console.width if console.is_terminal else PIPE_WIDTH


def echo_table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    right: Collection[str] = (),
    whole: Collection[str] = (),
) -> None:
    """Print a table as wide as the terminal.

    The columns named in ``right`` are set to the right; cells of the first column and of those in ``whole``
    are never folded.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for number, name in enumerate(head):
        table.add_column(
            name,
            overflow="fold",
            no_wrap=number == 0 or name in whole,
            justify="right" if name in right else "left",
        )
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console(width=line_width()).print(table)
