"""A worker's peak memory against the size of the volume that it works on."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import build_kit as kit
import lab
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from medcurate.format.columns import MANIFEST, schema
from medcurate.format.tables import table_writer
from medcurate.phantom import ct_phantom, write_nifti

SHAPE = (512, 384, 160)

# Peak of private and file-backed memory beyond that of a worker that has built a small case already.
_MEASURE = """
import contextlib, re, sys
from pathlib import Path
from medcurate.build.plan import plan
from medcurate.job.part import run_job
from medcurate.library import resolve

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text()).group(1)) * 1024

@contextlib.contextmanager
def guard(step):
    yield

recipes = [Path(name) for name in sys.argv[1:]]
for number, recipe in enumerate(recipes):
    parts = recipe.parent / "parts"
    parts.mkdir()
    if number:
        Path("/proc/self/clear_refs").write_text("5")
        base = peak()
    for entry in plan(resolve(str(recipe)), recipe.parent, parts, {}):
        for job in entry.jobs:
            run_job(job, guard)
print(peak() - base)
"""


def one_case(folder: Path, shape: tuple[int, int, int], *, intensity: str, dtype: type = np.int16) -> Path:
    image, labels, affine = ct_phantom(3, shape, (0.8, 0.8, 3.0))
    (folder / "lab-a").mkdir(parents=True)
    (folder / "lab-a.toml").write_text(
        lab.SOURCE.format(name="lab-a", more="").replace(
            'labels = { 1 = "liver", 2 = "spleen", 300 = "kidney-left" }',
            'labels = { 1 = "liver", 2 = "spleen", 3 = "kidney-left", 4 = "kidney-right", 5 = "spine", '
            '6 = "aorta", 7 = "liver-lesion" }',
        )
    )
    if dtype is np.int16:
        write_nifti(folder / "lab-a" / "img" / "p1.nii.gz", image, affine)
        write_nifti(folder / "lab-a" / "seg" / "p1.nii.gz", labels, affine)
    else:
        lab.write_pair(folder / "lab-a", "p1", image.astype(dtype), labels, affine)
    recipe = lab.write_recipe(folder, "lab-a")
    recipe.write_text(recipe.read_text().replace('{ rule = "clip", low = -500, high = 1000 }', intensity))
    return recipe


@pytest.mark.parametrize(
    ("intensity", "dtype"),
    [
        ('{ rule = "clip", low = -500, high = 1000 }', np.int16),
        ('{ rule = "percentiles", low = 0.5, high = 99.5 }', np.int16),
        ('{ rule = "percentiles", low = 0.5, high = 99.5, voxels = "nonzero" }', np.float32),
    ],
    ids=["clip", "percentiles", "float"],
)
def test_the_peak_is_at_most_three_times_the_volume(tmp_path: Path, intensity: str, dtype: type) -> None:
    small = one_case(tmp_path / "small", (64, 64, 20), intensity=intensity, dtype=dtype)
    large = one_case(tmp_path / "large", SHAPE, intensity=intensity, dtype=dtype)
    assert 1.0 < peak_ratio(small, large, np.prod(SHAPE) * np.dtype(dtype).itemsize) <= 3.0


def write_noise(folder: Path, name: str, shape: tuple[int, int, int]) -> None:
    """Labels that change in nearly every voxel: what thresholds make of noise."""
    rng = np.random.default_rng(0)
    label = rng.choice(np.array([0, 1, 2, 300], np.int16), shape)
    lab.write_pair(folder, name, rng.integers(-500, 900, shape).astype(np.int16), label)


def noise_case(folder: Path, shape: tuple[int, int, int], components: str) -> Path:
    write_noise(folder / "lab-a", "p1", shape)
    (folder / "lab-a.toml").write_text(lab.SOURCE.format(name="lab-a", more=""))
    recipe = lab.write_recipe(folder, "lab-a")
    recipe.write_text(recipe.read_text().replace('components = "2d"', f'components = "{components}"'))
    return recipe


def picture_case(folder: Path, height: int, width: int) -> Path:
    """A colour picture whose labels are colours, both as PNG."""
    coarse = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3)).astype(np.uint8)
    label = np.zeros((height, width, 3), np.uint8)
    label[height // 4 : height // 2, width // 4 : width // 2] = (255, 0, 0)
    (folder / "eyes").mkdir(parents=True)
    Image.fromarray(coarse).resize((width, height)).save(folder / "eyes" / "a_image.png", compress_level=1)
    Image.fromarray(label).save(folder / "eyes" / "a_label.png", compress_level=1)
    kit.write_source(
        folder,
        "eyes",
        modality="fundus",
        dimensions=2,
        image={"reader": "raster"},
        label={"reader": "raster", "decoder": "colour-map"},
        labels={"#ff0000": "optic-disc"},
        pairings=kit.flat_suffix("_image.png", "_label.png"),
    )
    return kit.write_recipe(folder, ["eyes"])


def channels_case(folder: Path, shape: tuple[int, int, int], names: Sequence[str]) -> Path:
    """One case whose images are files of one grid, as MR sequences are."""
    image, labels, affine = ct_phantom(3, shape, (0.8, 0.8, 3.0))
    case = folder / "mr" / "p1"
    case.mkdir(parents=True)
    write_nifti(case / "p1_seg.nii.gz", np.where(labels == 1, 1, 0).astype(np.uint8), affine)
    first, *others = (case / f"p1_{name}.nii.gz" for name in names)
    write_nifti(first, image, affine)
    for path in others:
        shutil.copy(first, path)
    kit.write_source(
        folder,
        "mr",
        modality="mr",
        channels=[{"name": name, "sequence": name} for name in names],
        labels={"1": "liver"},
        pairings=[
            {"kind": "case-folder", "options": {"image": "{case}_{channel}.nii.gz", "label": "*_seg.nii.gz"}}
        ],
        **kit.NIFTI,
    )
    return kit.write_recipe(folder, ["mr"])


def peak_ratio(small: Path, large: Path, volume_bytes: int) -> float:
    command = [sys.executable, "-c", _MEASURE, str(small), str(large)]
    env = lab.environment(ARROW_DEFAULT_MEMORY_POOL="system")  # as engines start workers
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    return int(done.stdout) / volume_bytes


@pytest.mark.parametrize(
    ("components", "shape", "most"), [("none", (256, 256, 100), 4.5), ("2d", (192, 192, 48), 13.0)]
)
def test_the_peak_of_labels_that_are_noise(
    tmp_path: Path, components: str, shape: tuple[int, int, int], most: float
) -> None:
    """As 2D components every fifth voxel is a mask, and nine of ten are refused."""
    small = noise_case(tmp_path / "small", (64, 64, 20), components)
    large = noise_case(tmp_path / "large", shape, components)
    assert peak_ratio(small, large, np.prod(shape) * 2) < most


def test_noise_that_needs_too_much_memory_costs_its_case_and_not_the_build(tmp_path: Path) -> None:
    """3D components need all runs of the volume at once, which the cap is not enough for."""
    recipe = lab.lab(tmp_path, sources=1, cases=2)
    recipe.write_text(recipe.read_text().replace('components = "2d"', 'components = "3d"'))
    write_noise(tmp_path / "lab-a", "p5_noise", (192, 192, 48))
    out = tmp_path / "out"
    lab.build(recipe, out, "--memory", "64MiB", "--workers", "1", code=3)
    refused = pq.read_table(out / "rejects.parquet", filters=[("stage", "=", "read")]).to_pylist()
    assert [(row["case"], row["reason"]) for row in refused] == [("p5_noise", "MEMORY")]
    kept = pq.read_table(out / "manifest.parquet", columns=["case"])["case"].to_pylist()
    assert set(kept) == {"p0_scan", "p1_scan"}


def test_the_ledger_of_many_noisy_cases_does_not_add_up_in_memory(tmp_path: Path) -> None:
    recipe = lab.lab(tmp_path, sources=1, cases=1)
    for number in range(1, 7):
        write_noise(tmp_path / "lab-a", f"p{number}_noise", (80, 80, 12))
    out = tmp_path / "out"
    lab.build(recipe, out, "--memory", "64MiB", "--workers", "1")
    refused = pq.read_table(out / "rejects.parquet", columns=["stage", "case"])
    assert set(refused["stage"].to_pylist()) == {"mask"}
    assert len(refused["case"].unique()) >= 6
    assert len(refused) > 70_000


def test_the_peak_of_a_colour_picture(tmp_path: Path) -> None:
    small, large = picture_case(tmp_path / "small", 240, 320), picture_case(tmp_path / "large", 4000, 6000)
    assert peak_ratio(small, large, 4000 * 6000 * 3) <= 3.0


def test_the_peak_does_not_grow_with_the_images_of_a_case(tmp_path: Path) -> None:
    """One is let go of before the next is read: a second one in memory would be a whole volume more."""
    shape = (192, 192, 100)
    small = channels_case(tmp_path / "small", (64, 64, 20), ["t1", "t2"])
    large = channels_case(tmp_path / "large", shape, ["t1", "t2"])
    assert 1.0 < peak_ratio(small, large, np.prod(shape) * 2) < 2.1


def test_rows_that_wait_keep_no_larger_table_in_memory(tmp_path: Path) -> None:
    """They were cut from it, and Arrow's slices are views of the whole."""
    columns = tuple(column for column in MANIFEST if column.name in {"key", "area_px"})
    rows = pa.table({"key": [f"{number:032d}" for number in range(100_000)], "area_px": np.arange(100_000)})
    rows = rows.cast(schema(columns))
    whole_bytes, before = rows.nbytes, pa.total_allocated_bytes()
    with table_writer(tmp_path / "rows.parquet", columns) as writer:
        writer.add(rows.slice(0, 100))
        writer.detach()
        del rows
        assert before - pa.total_allocated_bytes() > 0.9 * whole_bytes
    assert pq.read_table(tmp_path / "rows.parquet")["area_px"].to_pylist() == list(range(100))
