"""A DICOM series of 200 slices to voxels: SimpleITK's series reader against ours, one core, in one run.

    python benchmarks/bench_dicom.py [--runs 9]

Ours checks what a build checks: order, spacing and likeness of planes, claims, pixel bytes, SHA-256 of every file.
Voxels and geometry are compared before anything is timed. Seconds are of the processor, which other processes disturb
less; both arms use one thread.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import measure
import numpy as np
import SimpleITK

from medcurate.readers import dicom
from medcurate.readers.files import CaseFiles

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from dicom_kit import dicom_bytes, series

SLICES = 200


def write(folder: Path) -> list[Path]:
    """512 x 512 int16, with a header as long as scanners write: 120 elements besides those that are needed."""
    rng = np.random.default_rng(0)
    voxels = rng.integers(-1000, 2000, (512, 512, SLICES), np.int16)
    paths = []
    for number, dataset in enumerate(series(voxels, RescaleSlope=1, RescaleIntercept=-1024)):
        for group in (0x0009, 0x0019, 0x0021, 0x0043):
            dataset.add_new((group, 0x0010), "LO", "MAKER")
            for element in range(29):
                dataset.add_new((group, 0x1000 + element), "LO", f"value {number} of {element}")
        path = folder / f"{number:03d}.dcm"
        path.write_bytes(dicom_bytes(dataset))
        paths.append(path)
    return paths


def ours(folder: Path, paths: list[Path]) -> Callable[[], object]:
    names = [Path(path.name) for path in paths]
    return lambda: dicom.read(CaseFiles(folder, 1 << 34), names, dicom.Options())


def by_names(paths: list[Path]) -> Callable[[], SimpleITK.Image]:
    """SimpleITK with names that are sorted already: it checks nothing."""

    def work() -> SimpleITK.Image:
        reader = SimpleITK.ImageSeriesReader()
        reader.SetFileNames([str(path) for path in paths])
        return reader.Execute()

    return work


def by_folder(folder: Path) -> Callable[[], SimpleITK.Image]:
    """SimpleITK as its documentation reads a folder: GDCM finds the series and sorts it by position."""

    def work() -> SimpleITK.Image:
        reader = SimpleITK.ImageSeriesReader()
        reader.SetFileNames(SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
        return reader.Execute()

    return work


def check(mine: object, theirs: SimpleITK.Image) -> None:
    """The same voxels in Hounsfield units, the same place."""
    voxels = SimpleITK.GetArrayFromImage(theirs).transpose(2, 1, 0)
    assert np.array_equal(mine.voxels * int(mine.slope) + int(mine.intercept), voxels)
    assert np.allclose(mine.affine[:3, 3] * (-1, -1, 1), theirs.GetOrigin())


def peak_mb(work: Callable[[], object]) -> float:
    """Peak resident memory of a fresh process that does ``work``, less what it had before."""
    receiving, sending = os.pipe()
    if os.fork() == 0:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        work()
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        os.write(sending, str(grown).encode())
        os._exit(0)
    os.close(sending)
    os.wait()
    with os.fdopen(receiving) as stream:
        return int(stream.read()) / 1024


def main() -> None:
    """Run the arms and print Markdown."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=9)
    runs = parser.parse_args().runs
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = write(folder)
        arms = {
            "SimpleITK, names given": by_names(paths),
            "SimpleITK, folder": by_folder(folder),
            "medcurate": ours(folder, paths),
        }
        peaks = {arm: peak_mb(work) for arm, work in arms.items()}
        check(arms["medcurate"](), arms["SimpleITK, folder"]())
        seconds = measure.interleaved(arms, runs, clock=time.process_time)
        print(f"{measure.machine()}; {SLICES} files of 512 x 512 int16, one core, medians of {runs}\n")
        print(
            "| arm | processor, ms a slice | times as fast as SimpleITK with names | peak, MB |\n|---|---|---|---|"
        )
        for arm, values in seconds.items():
            each = statistics.median(values) * 1e3 / SLICES
            ratio = measure.ratio(seconds["SimpleITK, names given"], values)
            print(f"| {arm} | {each:.2f} | {ratio:.2f} | {peaks[arm]:.0f} |")


if __name__ == "__main__":
    main()
