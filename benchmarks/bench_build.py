"""Build against the usual exporter and against the floor "inflate + encode", on the same generated volumes.

    python benchmarks/bench_build.py [--volumes 6] [--slices 100] [--runs 5]

One run prints the table of docs/benchmarks.md. All arms but the last pair are pinned to one processor.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import exporter
import measure
import numpy as np
import pyarrow.parquet as pq

from medcurate.build.run import BuildOptions, build
from medcurate.format import png, sample
from medcurate.phantom import CT_LABELS, MR_LABELS, ct_phantom, mr_phantom, write_nifti
from medcurate.progress import configure
from medcurate.readers.inflate import gunzip

SOURCE = """
id = "bench-{kind}"
title = "Generated {kind} volumes"
homepage = "https://example.org"
citation = "none"
modality = "{kind}"
dimensions = 3
synthetic = true
licence = {{ id = "CC0-1.0", commercial = "yes" }}
image = {{ reader = "nifti" }}
label = {{ reader = "nifti", decoder = "index" }}
case = {{ identifiers = "keep" }}
[[pairings]]
kind = "paired-folders"
options = {{ images = "images", labels = "labels", image_suffix = ".nii.gz", label_suffix = ".nii.gz" }}
[labels]
{labels}
"""
RECIPE = """
name = "bench-{kind}"
title = "Benchmark"
sources = ["{kind}.toml"]
slices = {{ axes = ["z"] }}
masks = {{ components = "2d", min_area = {{ pixels = 100, at = 256 }} }}
[intensity]
ct = {{ rule = "clip", low = -500, high = 1000 }}
mr = {{ rule = "percentiles", low = 0.5, high = 99.5 }}
"""


def make_input(folder: Path, kind: str, volumes: int, slices: int) -> None:
    """Generated volumes of 512 x 512 x ``slices`` with their source and recipe."""
    phantom, names = {"ct": (ct_phantom, CT_LABELS), "mr": (mr_phantom, MR_LABELS)}[kind]
    for number in range(volumes):
        image, labels, affine = phantom(number, (512, 512, slices), (0.8, 0.8, 3.0), lesions=6)
        write_nifti(folder / f"bench-{kind}" / "images" / f"case{number}.nii.gz", image, affine)
        write_nifti(folder / f"bench-{kind}" / "labels" / f"case{number}.nii.gz", labels, affine)
    lines = "\n".join(f'{value} = "{name}"' for value, name in names.items())
    (folder / f"{kind}.toml").write_text(SOURCE.format(kind=kind, labels=lines))
    (folder / f"{kind}-recipe.toml").write_text(RECIPE.format(kind=kind))


def ours(folder: Path, kind: str, out: Path, engine: str, workers: int) -> None:
    """One build of ``out`` from nothing."""
    work = out.with_name(f"{out.name}.work")
    options = BuildOptions(
        data=folder, out=out, work=work, engine=engine, workers=workers, memory_bytes=8 << 30
    )
    build(str(folder / f"{kind}-recipe.toml"), options)


def theirs(folder: Path, kind: str, out: Path) -> None:
    """One export to ``out`` from nothing."""
    data = folder / f"bench-{kind}"
    exporter.export(data / "images", data / "labels", out, percentiles=kind == "mr")


def remove(out: Path) -> None:
    """Forget what an earlier run made of ``out``."""
    for path in (out, out.with_name(f"{out.name}.work")):
        shutil.rmtree(path, ignore_errors=True)


def floor(folder: Path, kind: str, pictures: list[np.ndarray]) -> None:
    """What cannot be left out: inflate images and labels, encode the pictures that were written."""
    for path in sorted((folder / f"bench-{kind}").rglob("*.nii.gz")):
        gunzip(path.read_bytes(), limit=1 << 32, expected_bytes=None)
    for picture in pictures:
        png.encode(picture)


def samples_of(dataset: Path) -> list[sample.Sample]:
    """All decoded samples of a dataset, by key."""
    rows = pq.read_table(dataset / "manifest.parquet", columns=["key", "shard", "offset", "size"]).to_pylist()
    spans = {row["key"]: row for row in rows}
    found = []
    for key in sorted(spans):
        with open(dataset / spans[key]["shard"], "rb") as stream:
            stream.seek(spans[key]["offset"])
            found.append(sample.decode(stream.read(spans[key]["size"])))
    return found


def check_same_masks(samples: list[sample.Sample], export: Path) -> int:
    """Raise unless both hold the same masks: per slice, the same pixels up to the viewing orientation."""
    expected: dict[str, Counter[bytes]] = {}
    for path in (export / "masks").glob("*.png"):
        name = path.name.rsplit("_", 2)[0]
        mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) > 0
        # The exporter writes (i, j) as stored; our planes are (row, column) = (j, i) of these LPS volumes.
        expected.setdefault(name, Counter())[np.packbits(mask.T).tobytes()] += 1
    found = {_export_name(s.key): Counter(np.packbits(mask).tobytes() for mask in s.masks) for s in samples}
    if found != expected:
        raise SystemExit("the exporter's masks differ from ours")
    return sum(map(Counter.total, found.values()))


def _export_name(key: str) -> str:
    _, case, plane = key.split("--")
    return f"{case}_{plane[1:]}"


def compare(folder: Path, kind: str, runs: int) -> list[str]:
    """The rows of one modality."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    export, dataset = folder / f"exporter-{kind}", folder / f"medcurate-{kind}"
    theirs(folder, kind, export)
    ours(folder, kind, dataset, "serial", 1)
    samples = samples_of(dataset)
    masks = check_same_masks(samples, export)
    pictures = [s.image for s in samples]
    arms: dict[str, Callable[[], object]] = {
        "exporter": partial(theirs, folder, kind, export),
        "medcurate": partial(ours, folder, kind, dataset, "serial", 1),
        "floor": partial(floor, folder, kind, pictures),
    }
    seconds = measure.interleaved(arms, runs, before=lambda name: remove(folder / f"{name}-{kind}"))
    median = {name: statistics.median(values) for name, values in seconds.items()}
    rows = []
    for name in arms:
        gain = measure.ratio(seconds["exporter"], seconds[name])
        over = measure.ratio(seconds[name], seconds["floor"])
        rate = len(pictures) / median[name]
        rows.append(f"| {kind} | {name} | {rate:,.0f} | {median[name]:.2f} | {gain:.1f} | {over:.2f} |")
    return [*rows, *_sizes(kind, dataset, export, samples, masks)]


def _sizes(kind: str, dataset: Path, export: Path, samples: list[sample.Sample], masks: int) -> list[str]:
    slices = len(samples)
    codes = sum(len(a["segmentation"]["counts"]) for s in samples for a in s.info["annotations"]) / slices
    text = sum(len(json.dumps(s.info, separators=(",", ":"))) for s in samples) / slices
    files, content, blocks = measure.tree_bytes(export / "masks")
    ours, whole = measure.tree_bytes(dataset), measure.tree_bytes(export)
    return [
        f"{kind}: {slices:,} slices, {masks:,} masks, equal pixel by pixel",
        f"{kind}: bytes a slice: masks as RLE {codes:,.0f}, the whole JSON member {text:,.0f}; PNG per mask "
        f"{content / slices:,.0f} ({blocks / slices:,.0f} in disk blocks)",
        f"{kind}: whole dataset {ours[1] / 1e6:,.1f} MB in {ours[0]} files; exporter's tree {whole[1] / 1e6:,.1f} MB "
        f"({whole[2] / 1e6:,.1f} MB in disk blocks) in {whole[0]:,} files, {files:,} of them masks",
    ]


def scaling(folder: Path, kind: str, runs: int) -> str:
    """Two workers against one, on two processors. Workers keep the processors that the first build had."""
    arms = {str(n): partial(ours, folder, kind, folder / f"{n}-{kind}", "pool", n) for n in (1, 2)}
    seconds = measure.interleaved(arms, runs, before=lambda name: remove(folder / f"{name}-{kind}"))
    return f"{kind}: 2 workers are {measure.ratio(seconds['1'], seconds['2']):.2f} times as fast as 1"


def one_core(folder: Path, volumes: int, slices: int, runs: int) -> None:
    """Print the comparison with the exporter and the floor, all arms on one processor."""
    print("| input | arm | slices/s | s | times the exporter | times the floor |\n|---|---|---|---|---|---|")
    notes = []
    for kind in ("ct", "mr"):
        make_input(folder, kind, volumes, slices)
        lines = compare(folder, kind, runs)
        print("\n".join(line for line in lines if line.startswith("|")), flush=True)
        notes += [line for line in lines if not line.startswith("|")]
    print("\n" + "\n".join(f"- {note}" for note in notes))


def main() -> None:
    """Run all arms and print Markdown."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--volumes", type=int, default=10)
    parser.add_argument("--slices", type=int, default=100)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--scaling", action="store_true", help="two workers against one, instead of one core")
    arguments = parser.parse_args()
    configure("plain")
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as name:
        size = f"{arguments.volumes} volumes of 512 x 512 x {arguments.slices}"
        print(f"{measure.machine()}; {size}, medians of {arguments.runs}\n")
        if arguments.scaling:
            make_input(Path(name), "ct", arguments.volumes, arguments.slices)
            print(scaling(Path(name), "ct", arguments.runs))
        else:
            one_core(Path(name), arguments.volumes, arguments.slices, arguments.runs)


if __name__ == "__main__":
    main()
