"""Bytes of datasets of real images against one PNG an image and one a mask.

    python benchmarks/bench_size.py [--atlases FOLDER]

FOLDER holds the T1 image and the AAL labels, and the macaque atlas INIA19, of Debian's package mricron-data
(``tests/realdata.py`` fetches it). Without it only the embedded MNI152 images are measured.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import measure
import nibabel as nib
import numpy as np
from bench_build import samples_of

from medcurate.build.run import BuildOptions, build
from medcurate.format import sample
from medcurate.places import default_data_folder
from medcurate.progress import configure

ATLASES = {
    "aal": ("ch2.nii.gz", "aal.nii.gz"),
    "inia19": ("inia19-t1-brain.nii.gz", "inia19-NeuroMaps.nii.gz"),
}
SOURCE = """
id = "{name}"
title = "{name}"
homepage = "https://example.org"
citation = "none"
modality = "mr"
dimensions = 3
licence = {{ id = "LicenseRef-mricron", commercial = "unknown" }}
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
name = "{name}"
title = "{name}"
sources = ["{source}"]
slices = {{ axes = ["x", "y", "z"] }}
masks = {{ components = "2d", min_area = {{ pixels = 100, at = 256 }} }}
[intensity]
mr = {{ rule = "percentiles", low = 0.5, high = 99.5 }}
"""


@dataclass(frozen=True)
class Set:
    """Real images with labels, and the recipe that takes all their slices along three axes."""

    title: str
    name: str
    recipe: Path
    data: Path


def sets(atlases: Path | None, folder: Path) -> Iterator[Set]:
    """Those that are there."""
    yield Set("MNI152, 2 tissues", "mni", _recipe(folder, "mni", "mni152-tissues"), default_data_folder())
    for name, (image, labels) in ATLASES.items() if atlases else ():
        for part, file in (("images", image), ("labels", labels)):
            (folder / name / part).mkdir(parents=True)
            (folder / name / part / "case.nii.gz").symlink_to((atlases / file).resolve())
        values = np.unique(np.asanyarray(nib.load(atlases / labels).dataobj))
        lines = "\n".join(f'{int(value)} = "brain"' for value in values if value)
        (folder / f"{name}.toml").write_text(SOURCE.format(name=name, labels=lines))
        recipe = _recipe(folder, name, f"{name}.toml")
        yield Set(f"{name.upper()}, {len(values) - 1} labels", name, recipe, folder)


def _recipe(folder: Path, name: str, source: str) -> Path:
    path = folder / f"{name}-recipe.toml"
    path.write_text(RECIPE.format(name=name, source=source))
    return path


def export(samples: list[sample.Sample], tree: Path) -> None:
    """The same images and masks, a PNG each, as OpenCV writes them by default."""
    for part in ("images", "masks"):
        (tree / part).mkdir(parents=True)
    for entry in samples:
        cv2.imwrite(str(tree / "images" / f"{entry.key}.png"), entry.image)
        for number, mask in enumerate(entry.masks):
            cv2.imwrite(str(tree / "masks" / f"{entry.key}_{number}.png"), mask.astype(np.uint8) * 255)


def row(one: Set, folder: Path) -> str:
    """The table's row of one set."""
    out, tree = folder / f"{one.name}-out", folder / f"{one.name}-tree"
    options = BuildOptions(
        data=one.data,
        out=out,
        work=folder / f"{one.name}-work",
        engine="serial",
        workers=1,
        memory_bytes=4 << 30,
    )
    build(str(one.recipe), options)
    samples = samples_of(out)
    export(samples, tree)
    codes = sum(
        len(mask["segmentation"]["counts"]) for entry in samples for mask in entry.info["annotations"]
    )
    masks, content, blocks = measure.tree_bytes(tree / "masks")
    files, whole, whole_blocks = measure.tree_bytes(tree)
    our_files, ours, _ = measure.tree_bytes(out)
    return (
        f"| {one.title} | {len(samples):,} | {masks:,} | 1/{content / codes:.1f} | 1/{blocks / codes:.0f} "
        f"| {ours / 1e6:.1f} MB in {our_files} files | {whole / 1e6:.1f} MB in {files:,} files | {ours / whole:.2f} "
        f"| {ours / whole_blocks:.2f} |"
    )


def main() -> None:
    """Measure all sets and print Markdown."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--atlases", type=Path, help="folder of mricron-data's templates")
    arguments = parser.parse_args()
    configure("plain")
    print(
        "| images | slices | masks | mask bytes | in disk blocks | dataset | a PNG each | bytes | in disk blocks |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        for one in sets(arguments.atlases, Path(name)):
            print(row(one, Path(name)), flush=True)


if __name__ == "__main__":
    main()
