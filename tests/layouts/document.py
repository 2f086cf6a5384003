"""docs/sources.md, made from the packaged sources and recipes. Write it anew: python tests/layouts/document.py"""

from __future__ import annotations

import io
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from rich.console import Console

from layouts.cells import cells, table
from medcurate.cli.listing import files_of, size_cell
from medcurate.config.source import Source
from medcurate.forecast import show
from medcurate.forecast.plan import forecast
from medcurate.library import load_source, ontology, resolve, source_ids

PATH = Path(__file__).parents[2] / "docs" / "sources.md"
NOWHERE = Path("/nonexistent")  # a plan of a machine that has nothing yet
WORKERS = 8
RECIPES = ("sa-med2d", "medsam")

HEAD = """\
# The packaged sources

Made by `python tests/layouts/document.py` from `manifests/sources/`; a test compares. `medcurate sources` prints the
list, `medcurate sources show ID` one whole: citation, notes, labels and files.

Every one is built by a test from a small tree in its true layout, which is made from nothing but its TOML; none was
downloaded for that. `medcurate check ID --data FOLDER` holds a source against real files.
`python tests/layouts/show.py` makes trees of more than 50 sets, builds one dataset of them, and prints the closing
table, what the sets share and the statistics.

*Licence* `unresolved`: statements conflict or none was read; nothing is assumed, and a build asks for
`--accept-licence`. *Copies*: whether they may be passed on; `?` unknown, which counts as no. *Size*: of the files that
travel; `?` unknown, `>` where only some are known. *Digests*: of how many files one is known; the others are trusted
the first time and recorded. A folder whose files its host lists counts as one file: sizes, and with most hosts
digests, come with the list.
"""


def document() -> str:
    """The whole file."""
    sources = [load_source(name) for name in source_ids()]
    lines = [HEAD, *_counts(sources)]
    for modality, found in _by_modality(sources).items():
        lines += ["", f"## {ontology().modalities[modality].title}: {len(found)}", *_list(found)]
    lines += ["", *_cells(sources)]
    for name in RECIPES:
        lines += ["", *_plan(name)]
    return "\n".join(lines) + "\n"


def _counts(sources: list[Source]) -> Iterator[str]:
    fetched = sum(files_of(source).by_hand == 0 and source.access == "open" for source in sources)
    digests = sum(files_of(source).digests == files_of(source).count for source in sources)
    yield (
        f"{len(sources)} sources: {fetched} are fetched without an account or a hand, {digests} have a digest for "
        f"every file; {sum(source.licence.commercial == 'yes' for source in sources)} allow commercial use, "
        f"{sum(source.licence.redistribute == 'yes' for source in sources)} copies."
    )


def _by_modality(sources: list[Source]) -> dict[str, list[Source]]:
    found: defaultdict[str, list[Source]] = defaultdict(list)
    for source in sources:
        found[source.modality].append(source)
    return dict(sorted(found.items(), key=lambda entry: (-len(entry[1]), entry[0])))


def _list(sources: list[Source]) -> Iterator[str]:
    yield "| source | title | cases | licence | commercial | copies | access | size | digests |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for source in sources:
        files = files_of(source)
        licence = source.licence
        row = (
            f"`{source.id}`",
            source.title,
            "?" if source.cases is None else f"{source.cases:,}",
            licence.id,
            licence.commercial.replace("unknown", "?"),
            licence.redistribute.replace("unknown", "?"),
            source.access,
            size_cell(files),
            f"{files.digests}/{files.count}" if files.count else "-",
        )
        yield f"| {' | '.join(row)} |"


def _cells(sources: list[Source]) -> Iterator[str]:
    yield f"## Cells: {len(cells())}"
    yield (
        f"Pairing x image reader x label reader x decoder, and how many pairings of the "
        f"{len(sources)} sources use each. `python tests/layouts/cells.py` prints it."
    )
    yield ""
    yield table()


def _plan(name: str) -> Iterator[str]:
    """What ``medcurate plan`` prints of a recipe, but for the disks of the machine."""
    found = forecast(resolve(name), NOWHERE / "data", NOWHERE / "out", WORKERS)
    console = Console(file=io.StringIO(), width=160, highlight=False, markup=False)
    console.print(show.table(found))
    yield f"## `medcurate plan --recipe {name} --workers {WORKERS}`"
    yield "On a machine that has none of the files yet, without the lines about its disks. Counts are estimates."
    yield "\n```text"
    yield "\n".join(
        line.rstrip() for line in console.file.getvalue().strip("\n").splitlines() if line.strip()
    )
    yield from (line for line in show.lines(found) if not line.startswith("disk "))
    yield "```"


if __name__ == "__main__":
    PATH.write_text(document(), encoding="utf-8")
