"""Unpacking with every check on against the system's tar, gzip and unzip, which check less, in one run.

    python benchmarks/bench_unpack.py [--megabytes 600] [--runs 5] [--folder /tmp]

The tree is shaped like a public set: compressed volumes of 2 to 30 MB, and pictures of 5 to 200 kB. Both sides
unpack into a fresh folder; medcurate also checks every CRC, size, name and bound and makes all of it durable, so
that the system's tools are timed twice: as they are, and with ``sync`` after them.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import measure
import numpy as np

from medcurate.config.source import Unpack
from medcurate.progress import configure
from medcurate.unpack import unpack

PRESS = {
    "set.tar": ["tar", "-cf", "../set.tar", "."],
    "set.tar.gz": ["tar", "-czf", "../set.tar.gz", "."],
    "set.zip": ["zip", "-q", "-r", "../set.zip", "."],
    "small.tar": ["tar", "-cf", "../small.tar", "pictures"],
    "small.zip": ["zip", "-q", "-r", "../small.zip", "pictures"],
}
SYSTEM = {
    ".tar": ["tar", "-xf"],
    ".gz": ["tar", "-xzf"],
    ".zip": ["unzip", "-q"],
}


def make_tree(folder: Path, megabytes: int) -> None:
    """Two thirds of the bytes in volumes, a third in pictures; about as compressible as such files are."""
    rng = np.random.default_rng(0)
    left, number = megabytes * 2_000_000 // 3, 0
    while left > 0:
        size = int(rng.integers(2_000_000, 30_000_000))
        _write(folder / "volumes" / f"case{number:04d}.nii.gz", rng, size)
        left, number = left - size, number + 1
    left, number = megabytes * 1_000_000 // 3, 0
    while left > 0:
        size = int(rng.integers(5_000, 200_000))
        _write(folder / "pictures" / f"{number % 10}" / f"image{number:05d}.png", rng, size)
        left, number = left - size, number + 1


def _write(path: Path, rng: np.random.Generator, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = rng.integers(0, 256, size, np.uint8)
    content[: size // 4] //= 32  # a quarter that can be pressed, as headers and flat regions
    path.write_bytes(content.tobytes())


def system(archive: Path, out: Path, *, synced: bool) -> None:
    """The system's own tool, and with it ``sync`` of the file system where ``synced``."""
    _clear(out)
    out.mkdir()
    subprocess.run([*SYSTEM[archive.suffix], str(archive)], cwd=out, check=True)
    if synced:
        subprocess.run(["sync", "-f", str(out)], check=True)


def ours(archive: Path, out: Path) -> None:
    """``medcurate.unpack`` with all its checks."""
    _clear(out)
    unpack(archive, out, Unpack(into="set"))


def _clear(out: Path) -> None:
    shutil.rmtree(out, ignore_errors=True)


def check_equal(archive: Path, folder: Path) -> None:
    """Both sides give the same files."""
    ours(archive, folder / "ours")
    system(archive, folder / "theirs", synced=False)
    command = ["diff", "-r", "-x", ".unpacked.json", str(folder / "ours"), str(folder / "theirs")]
    subprocess.run(command, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=600)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None)
    arguments = parser.parse_args()
    configure("plain")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        make_tree(folder / "tree", arguments.megabytes)
        files, size, _ = measure.tree_bytes(folder / "tree")
        print(f"{measure.machine()}; {files:,} files, {size / 1e6:,.0f} MB")
        print("| archive | MB/s | times the system's tool | times the tool and sync |\n|---|---|---|---|")
        for archive, command in PRESS.items():
            subprocess.run(command, cwd=folder / "tree", check=True)
            print(_row(folder / archive, folder, arguments.runs), flush=True)
            (folder / archive).unlink()


def _row(archive: Path, folder: Path, runs: int) -> str:
    check_equal(archive, folder)
    arms: dict[str, Callable[[], object]] = {
        "system": partial(system, archive, folder / "theirs", synced=False),
        "ours": partial(ours, archive, folder / "ours"),
        "synced": partial(system, archive, folder / "theirs", synced=True),
    }
    size = measure.tree_bytes(folder / "ours")[1]
    os.sync()
    seconds = measure.interleaved(arms, runs)
    speed = size / 1e6 / statistics.median(seconds["ours"])
    plain, synced = (measure.ratio(seconds[arm], seconds["ours"]) for arm in ("system", "synced"))
    return f"| {archive.name} | {speed:,.0f} | **{plain:.2f}** | {synced:.2f} |"


if __name__ == "__main__":
    main()
