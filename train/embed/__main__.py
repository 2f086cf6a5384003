"""``python -m medcurate.train.embed RECIPE --data DATASET --checkpoint CHECKPOINT``; torchrun shares the work."""

from __future__ import annotations

import sys

from medcurate.errors import ended_by_mistake
from medcurate.interrupt import INTERRUPTED, TOLD
from medcurate.train.entry import loading, packages_needed


def main() -> None:
    """Entry point. A user's mistake is one paragraph and exit code 1."""
    with ended_by_mistake():
        with loading(), packages_needed("embedding"):
            import typer

            from medcurate.train.embed.command import embed
        try:
            typer.run(embed)
        except SystemExit as end:
            if end.code == INTERRUPTED:
                sys.stderr.write(f"{TOLD}\n")
            raise


if __name__ == "__main__":
    main()
