"""A worker's peak memory against the size of the volume that it works on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import lab
import numpy as np
import pytest

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
    command = [sys.executable, "-c", _MEASURE, str(small), str(large)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    volume_bytes = np.prod(SHAPE) * np.dtype(dtype).itemsize
    ratio = int(done.stdout) / volume_bytes
    assert 1.0 < ratio <= 3.0
