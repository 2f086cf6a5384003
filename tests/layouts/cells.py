"""Which cells of pairing x reader x decoder the packaged sources use. Prints a Markdown table: python cells.py"""

from __future__ import annotations

from collections import Counter

from medcurate.library import load_source, source_ids


def cells() -> Counter[tuple[str, str, str, str]]:
    """(pairing, image reader, label reader, decoder) of every pairing of every packaged source."""
    sources = (load_source(name) for name in source_ids())
    return Counter(
        (pairing.kind, source.image.reader, source.label.reader, source.label.decoder)
        for source in sources
        for pairing in source.pairings
    )


def table() -> str:
    """All cells with the number of pairings in each; every one is built by ``test_sources_build.py``."""
    rows = [f"| {' | '.join(cell)} | {count} |" for cell, count in sorted(cells().items())]
    return "\n".join(["| pairing | image | label | decoder | pairings |", "|---|---|---|---|---|", *rows])


if __name__ == "__main__":
    import sys

    sys.stdout.write(table() + "\n")
