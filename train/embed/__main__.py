"""``python -m medcurate.train.embed RECIPE --data DATASET --checkpoint CHECKPOINT``; torchrun shares the work."""

from __future__ import annotations

import sys

from medcurate.interrupt import INTERRUPTED, TOLD
from medcurate.train.entry import loading


def main() -> None:
    """Entry point. A user's mistake is one paragraph and exit code 1."""
    with loading():
        import typer

        from medcurate.errors import MedcurateError
        from medcurate.train.embed.command import embed
    try:
        typer.run(embed)
    except MedcurateError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)
    except OSError as error:
        typer.echo(f"error: {error.filename or 'system'}: {error.strerror or error}", err=True)
        sys.exit(1)
    except SystemExit as end:
        if end.code == INTERRUPTED:
            typer.echo(TOLD, err=True)
        raise


if __name__ == "__main__":
    main()
