"""``python -m medcurate.train RECIPE --data DATASET``: what torchrun starts, a process a GPU."""

from __future__ import annotations

import sys

from medcurate.train.entry import loading


def main() -> None:
    """Entry point. A user's mistake is one paragraph and no traceback."""
    with loading():  # until the run notes signals by itself: before, there is nothing to save
        _main()


def _main() -> None:
    import typer

    from medcurate.errors import MedcurateError
    from medcurate.train.command import train
    from medcurate.train.launch import begin

    begin()
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(train)
    try:
        app()
    except MedcurateError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)
    except OSError as error:
        typer.echo(f"error: {error.filename or 'system'}: {error.strerror or error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
