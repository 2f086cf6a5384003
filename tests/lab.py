"""A lab's own data as files: small CT-like volumes with labels, their source and recipe TOML files."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

SOURCE = """
id = "{name}"
title = "{name}"
homepage = "https://example.org"
citation = "{name} et al."
modality = "ct"
dimensions = 3
licence = {{ id = "CC-BY-4.0", commercial = "yes" }}
image = {{ reader = "nifti" }}
label = {{ reader = "nifti", decoder = "index" }}
case = {{ identifiers = "keep", pattern = '(?P<group>p\\d+)' }}
labels = {{ 1 = "liver", 2 = "spleen", 300 = "kidney-left" }}
[[pairings]]
kind = "paired-folders"
options = {{ images = "img", labels = "seg", image_suffix = ".nii.gz", label_suffix = ".nii.gz" }}
{more}
"""
RECIPE = """
name = "lab"
title = "A lab's own"
sources = [{sources}]
slices = {{ axes = ["out-of-plane"] }}
intensity = {{ ct = {{ rule = "clip", low = -500, high = 1000 }} }}
masks = {{ components = "2d", min_area = {{ pixels = {pixels}, at = 0 }} }}
split = {{ train = 0.5, val = 0.25, test = 0.25 }}
shards = {{ size_bytes = {shard_bytes} }}
limits = {{ case_seconds = {seconds} }}
"""


def volume(seed: int, shape: tuple[int, int, int] = (48, 40, 12)) -> tuple[np.ndarray, np.ndarray]:
    """(image int16 HU, label int16) of a few ellipsoids; the labels have ids below and above 255."""
    rng = np.random.default_rng(seed)
    grid = np.indices(shape).transpose(1, 2, 3, 0)
    image = rng.normal(-50, 30, shape)
    label = np.zeros(shape, np.int16)
    for value in (1, 2, 300, 1):
        centre, radius = rng.uniform(0.25, 0.75, 3) * shape, rng.uniform(0.1, 0.25, 3) * shape
        inside = (((grid - centre) / radius) ** 2).sum(axis=-1) <= 1
        label[inside] = value
        image[inside] += value % 7 * 40
    return image.astype(np.int16), label


def write_pair(
    folder: Path, name: str, image: np.ndarray, label: np.ndarray, affine: np.ndarray | None = None
) -> None:
    """img/<name>.nii.gz and seg/<name>.nii.gz, 1 x 1 x 3 mm unless ``affine`` says otherwise."""
    place = np.diag([-1.0, -1.0, 3.0, 1.0]) if affine is None else affine
    for part, array in (("img", image), ("seg", label)):
        (folder / part).mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(array, place), folder / part / f"{name}.nii.gz")


def write_source(folder: Path, name: str, *, cases: int = 3, seed: int = 0, more: str = "") -> Path:
    """A source with ``cases`` cases of as many patients below ``folder/<name>``; returns its TOML file."""
    for number in range(cases):
        write_pair(folder / name, f"p{number}_scan", *volume(seed * 1000 + number))
    path = folder / f"{name}.toml"
    path.write_text(SOURCE.format(name=name, more=more))
    return path


def write_recipe(
    folder: Path, *sources: str, pixels: int = 10, shard_bytes: int = 1 << 17, seconds: float = 60
) -> Path:
    """A recipe over source files beside it."""
    path = folder / "lab-recipe.toml"
    names = ", ".join(f'"{name}.toml"' for name in sources)
    path.write_text(RECIPE.format(sources=names, pixels=pixels, shard_bytes=shard_bytes, seconds=seconds))
    return path


def lab(folder: Path, *, sources: int = 3, cases: int = 3) -> Path:
    """A lab with several sources (so that a build has several jobs); returns the recipe."""
    names = [f"lab-{letter}" for letter in "abcdef"[:sources]]
    for seed, name in enumerate(names):
        write_source(folder, name, cases=cases, seed=seed)
    return write_recipe(folder, *names)


def medcurate(*words: str) -> list[str]:
    """A command line of medcurate."""
    return [sys.executable, "-m", "medcurate", *words]


def command(recipe: Path, out: Path, *more: str) -> list[str]:
    """The command line of a build whose data lie beside the recipe."""
    verb = medcurate("build", "--recipe", str(recipe), "--data", str(recipe.parent))
    return [*verb, "--out", str(out), "--log-format", "plain", *more]


def build(
    recipe: Path, out: Path, *more: str, code: int = 0, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run a build in a process of its own and check its exit code."""
    done = subprocess.run(command(recipe, out, *more), capture_output=True, text=True, timeout=120, **options)
    assert done.returncode == code, done.stderr
    return done


def digests(dataset: Path) -> dict[str, str]:
    """SHA-256 of every file of a dataset."""
    files = sorted(path for path in dataset.rglob("*") if path.is_file())
    return {p.relative_to(dataset).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def environment(**changes: str) -> dict[str, str]:
    """This process's environment with changes."""
    return {**os.environ, **changes}
