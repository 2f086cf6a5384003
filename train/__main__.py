"""``python -m medcurate.train RECIPE --data DATASET``: what torchrun starts, a process a GPU."""

from __future__ import annotations

import sys

import typer

from medcurate.errors import ConfigError, MedcurateError
from medcurate.train.command import train
from medcurate.train.launch import Hopeless, tell_launcher


def main() -> None:
    """Entry point. A user's mistake is one paragraph and exit code 1."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(train)
    try:
        app()
    except MedcurateError as error:
        message = f"error: {error}"
        if isinstance(error, ConfigError | Hopeless):
            tell_launcher(message)
        else:
            typer.echo(message, err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
