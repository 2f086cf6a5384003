"""``python -m medcurate`` is the ``medcurate`` command."""

from medcurate.cli.main import run

if __name__ == "__main__":
    run()
