"""What a build of some 50 sets at once looks like: its closing table, lineage and statistics.

Run: python tests/layouts/show.py [FOLDER]
The trees are made from the sources' TOML alone; FOLDER (default: a temporary one) keeps them and the dataset.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from layouts.cells import cells, table
from layouts.many import make_many


def main() -> None:
    if len(sys.argv) > 1:
        show(Path(sys.argv[1]))
        return
    with tempfile.TemporaryDirectory() as folder:
        show(Path(folder))


def show(folder: Path) -> None:
    """Make, build, count."""
    many = make_many(folder)
    say(f"{len(many.sources)} trees below {folder / 'data'}")
    for patient, names in many.shared.items():
        say(f"patient {patient} is in {', '.join(names)}")
    common = ["--recipe", str(many.recipe), "--data", str(folder / "data"), "--out", str(folder / "out")]
    medcurate("build", *common, "--accept-licence", "all", "--log-format", "plain")
    medcurate("stats", str(folder / "out"))
    say(
        f"\nCells of pairing x readers x decoder that the {len(cells())} rows cover, each built by a test:\n{table()}"
    )


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def medcurate(*words: str) -> None:
    say(f"\n$ medcurate {' '.join(words)}")
    subprocess.run([sys.executable, "-m", "medcurate", *words], check=True)


if __name__ == "__main__":
    main()
