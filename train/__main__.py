"""``python -m medcurate.train RECIPE --data DATASET``: what torchrun starts, a process a GPU."""

from __future__ import annotations

from medcurate.train.entry import loading


def main() -> None:
    """Entry point. A user's mistake is one paragraph and no traceback."""
    with loading():  # until the run notes signals by itself: before, there is nothing to save
        _main()


def _main() -> None:
    import typer

    from medcurate.errors import ended_by_mistake
    from medcurate.train.command import train
    from medcurate.train.launch import begin

    begin()
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(train)
    with ended_by_mistake():
        app()


if __name__ == "__main__":
    main()
