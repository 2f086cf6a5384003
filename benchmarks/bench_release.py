"""The SA-Med2D release read from its joined zip against "unzip, then read", on a generated release.

    python benchmarks/bench_release.py [--pictures 5000] [--side 128] [--runs 3] [--folder /tmp] [--bytes]

A picture has three masks, so that 5,000 pictures are 20,000 files. Reading is what a build does: every file through
``CaseFiles`` (size, CRC of a zip's member, SHA-256), then decoded by the raster reader. "In place" includes making the
index. The reading arms are also timed alone, and memory is measured in processes of their own.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import measure
import numpy as np

from medcurate.config.source import Unpack
from medcurate.pairings.found import Names
from medcurate.pairings.sa_med2d import Options, find
from medcurate.progress import configure
from medcurate.readers import raster
from medcurate.readers.files import CaseFiles
from medcurate.unpack import unpack

ROOT = "SAMed2Dv1"
MASKS = 3
DECODED = True  # --bytes: files are verified but not decoded
RULE = Unpack(into=ROOT, strip=1, in_place=True)
MEMORY = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import bench_release
getattr(bench_release, sys.argv[2])(Path(sys.argv[3]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000)
"""


def make_zip(path: Path, pictures: int, side: int) -> None:
    """A joined zip of a release whose pictures are noisy and whose masks are ellipses."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:side, :side]
    masks = [
        _png(
            (((rows - side // 2) ** 2 + (columns - side // 3) ** 2) < (side // (3 + number)) ** 2)
            * np.uint8(255)
        )
        for number in range(MASKS)
    ]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(
            f"{ROOT}/SAMed2D_v1_class_mapping_id.json", '{"Set": {"liver": 0, "kidney": 1, "spleen": 2}}'
        )
        for number in range(pictures):
            stem = f"ct_00--Set--Case_{number // 50:05d}--x_{number % 50:04d}"
            smooth = cv2.GaussianBlur(rng.integers(0, 256, (side, side), np.uint8), (5, 5), 0)
            archive.writestr(f"{ROOT}/images/{stem}.png", _png(smooth))
            for mask_number, mask in enumerate(masks):
                archive.writestr(f"{ROOT}/masks/{stem}--{mask_number:04d}_000.png", mask)


def _png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


def unzip_then_read(folder: Path) -> None:
    """The system's unzip, then every picture with its masks."""
    subprocess.run(["unzip", "-q", "release.zip"], cwd=folder, check=True)
    read(folder)


def in_place(folder: Path) -> None:
    """The index, then every picture with its masks out of the zip."""
    unpack(folder / "release.zip", folder / ROOT, RULE)
    read(folder)


def read(folder: Path) -> None:
    """All pictures and masks, verified and decoded; nothing is kept."""
    labels = Names(labels=("liver", "kidney", "spleen"))
    options = raster.Options()
    count = 0
    for case in find(folder, Options(folder=ROOT), labels):
        files = CaseFiles(folder, 1 << 30)
        for file in (*case.images, *case.labels):
            if DECODED:
                raster.read(files, file.paths, options)
            else:
                files.read(file.paths[0])
            count += 1
    assert count, "nothing was read"


def peak_mb(arm: str, folder: Path) -> int:
    """Peak memory of ``arm`` in a process of its own."""
    arguments = [sys.executable, "-c", MEMORY, str(Path(__file__).parent), arm, str(folder)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    return int(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=5000)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--bytes", action="store_true", help="verify files without decoding them")
    arguments = parser.parse_args()
    globals()["DECODED"] = not arguments.bytes
    configure("plain")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folders = {arm: Path(name) / arm for arm in ("unzip_then_read", "in_place")}
        for folder in folders.values():
            folder.mkdir()
        make_zip(folders["in_place"] / "release.zip", arguments.pictures, arguments.side)
        shutil.copy(folders["in_place"] / "release.zip", folders["unzip_then_read"] / "release.zip")
        _report(folders, arguments.pictures, arguments.runs)


def _report(folders: dict[str, Path], pictures: int, runs: int) -> None:
    zipped, packed = folders["unzip_then_read"], folders["in_place"]
    arms = {
        "unzip, then read": (unzip_then_read, zipped, True),
        "index, then read in place": (in_place, packed, True),
        "read alone, unzipped": (read, zipped, False),
        "read alone, in place": (read, packed, False),
    }
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(runs + 1):
        for name, (work, folder, anew) in arms.items():
            taken = _seconds(work, folder, anew=anew)
            seconds[name] += [taken] if number else []
    print(f"{measure.machine()}; {pictures * (1 + MASKS):,} files")
    print("| arm | pictures/s | times unzip, then read |\n|---|---|---|")
    base = seconds["unzip, then read"]
    for arm, taken in seconds.items():
        print(f"| {arm} | {pictures / statistics.median(taken):,.0f} | {measure.ratio(base, taken):.2f} |")
    shutil.rmtree(packed / ROOT)
    print(f"peak memory in place: {peak_mb('in_place', packed)} MB")


def _seconds(work: Callable[[Path], None], folder: Path, *, anew: bool) -> float:
    """Seconds of one arm; what an earlier one left to be written is written before, and not counted."""
    if anew:
        shutil.rmtree(folder / ROOT, ignore_errors=True)
    os.sync()
    started = time.perf_counter()
    work(folder)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
