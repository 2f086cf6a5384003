"""The ``medcurate`` command: verbs are registered by group; a user's mistake never ends in a traceback."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated

import typer

from medcurate import __version__
from medcurate.cli.verbs import Verbs
from medcurate.errors import ConfigError, ended_by_mistake
from medcurate.interrupt import INTERRUPTED, TOLD

GROUPS = (
    "build",
    "catalogue",
    "check",
    "download",
    "explore",
    "export",
    "dataset",
    "inspect",
    "plan",
    "predict",
    "train",
)

app = typer.Typer(
    name="medcurate",
    cls=Verbs,
    help="Turn medical image sets into reproducible, patient-safe training corpora.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _version(value: bool) -> None:
    if value:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


for _group in GROUPS:
    import_module(f"medcurate.cli.{_group}").register(app)


def _check_encoding(words: Sequence[str]) -> None:
    """Raise ConfigError for a path that is no UTF-8: no record and no table could hold it."""
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError as error:
            raise ConfigError(
                f"{word!a}: is not UTF-8, so no record could name it. Rename the folder or the file, or mend the "
                "locale that the command is started with."
            ) from error


def _here() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError as error:
        raise ConfigError(
            "the folder that this command is started in is gone: change to another one."
        ) from error


def run() -> None:
    """Entry point. Exit codes: 0 done, 1 error, 2 usage, 3 done with quarantined cases, 130 interrupted."""
    # What the terminal's encoding lacks is written as an escape, instead of ending a table with a traceback.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    # A scheduler's SIGTERM ends a build as Ctrl-C does: workers first, then a message.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with ended_by_mistake():
            _check_encoding([*sys.argv[1:], _here()])
            app()
    except KeyboardInterrupt:  # typer was still putting the command together: nothing had begun
        sys.exit(INTERRUPTED)
    except SystemExit as end:
        if end.code == INTERRUPTED:
            typer.echo(TOLD, err=True)
        raise
