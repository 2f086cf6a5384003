"""What the readers' tests share: reading one file, expecting a refusal, ITK's geometry, memory peaks."""

from __future__ import annotations

import tracemalloc
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import SimpleITK

from medcurate.errors import CaseRejected, Reason
from medcurate.readers.files import CaseFiles
from medcurate.types import Volume

LIMIT_BYTES = 1 << 28
HOSTILE_PEAK_BYTES = 8 << 20  # no refusal of a small file may hold more


def read(reader: ModuleType, *paths: Path, limit: int = LIMIT_BYTES, **options: object) -> Volume:
    """Read ``paths``, which lie in one folder, with a reader module."""
    files = CaseFiles(paths[0].parent, limit)
    return reader.read(files, [Path(path.name) for path in paths], reader.Options(**options))


def write_and_read(reader: ModuleType, path: Path, content: bytes, **options: object) -> Volume:
    path.write_bytes(content)
    return read(reader, path, **options)


@contextmanager
def refused(*reasons: Reason, detail: str = ""):
    """The block must raise CaseRejected with one of ``reasons``, holding little memory until then."""
    tracemalloc.start()
    try:
        with pytest.raises(CaseRejected) as caught:
            yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert caught.value.reason in reasons, str(caught.value)
    assert detail in caught.value.detail
    assert peak < HOSTILE_PEAK_BYTES
    assert "/" not in caught.value.detail


def itk_affine(image: SimpleITK.Image) -> np.ndarray:
    """ITK's LPS geometry as a RAS+ affine (4, 4)."""
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return np.diag([-1, -1, 1, 1]) @ affine


def itk_voxels(image: SimpleITK.Image) -> np.ndarray:
    """(I, J, K) or (I, J, K, C)."""
    return np.swapaxes(SimpleITK.GetArrayFromImage(image), 0, 2)


def random_image(rng: np.random.Generator, dtype: object, channels: int = 1) -> SimpleITK.Image:
    """A small ITK volume with random direction cosines, left-handed in half of the cases."""
    sides = rng.integers(2, 7, 3)
    values = rng.integers(0, 200, (*sides, channels) if channels > 1 else sides).astype(dtype)
    image = SimpleITK.GetImageFromArray(values, isVector=channels > 1)
    directions, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    image.SetDirection(directions.ravel())
    image.SetSpacing(rng.uniform(0.3, 6, 3))
    image.SetOrigin(rng.uniform(-300, 300, 3))
    return image
