"""The ``medcurate`` command, also as ``python -m medcurate``."""

from medcurate.interrupt import ended_by_interrupt


def main() -> None:
    """Entry point. Ctrl-C while the verbs are being loaded ends at once: nothing has begun, and nothing is told."""
    with ended_by_interrupt():
        from medcurate.cli.main import run
    run()


if __name__ == "__main__":
    main()
