"""CT-like and MR-like volumes with labels, made by arithmetic: same voxels on every platform.

Only integers decide a voxel: ellipsoids are compared in int64, noise is the splitmix64 hash (Steele, Lea
and Flood, OOPSLA 2014) of seed and voxel number. Places and radii are in thousandths of the volume, so one
anatomy fits every grid. They show what the pipeline does; nobody should train on them for use on patients.

Arrays have axes (i, j, k), stored as DICOM-derived NIfTI usually is: i to the patient's Left, j to
Posterior, k to Superior; ``affine`` (4, 4) maps them to RAS+ millimetres.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from nibabel.nifti1 import header_dtype

from medcurate.commit import committed
from medcurate.errors import ConfigError

Size3 = tuple[int, int, int]
Spacing3 = tuple[float, float, float]
Phantom = tuple[npt.NDArray[Any], npt.NDArray[np.uint8], npt.NDArray[np.float64]]

CT_LABELS = {
    1: "liver",
    2: "spleen",
    3: "kidney-right",
    4: "kidney-left",
    5: "spine",
    6: "aorta",
    7: "liver-lesion",
}
MR_LABELS = {
    1: "gray-matter",
    2: "white-matter",
    3: "brain-ventricle",
    4: "brain-tumor-edema",
    5: "brain-tumor",
}

DATATYPES = {"uint8": 2, "int16": 4, "uint16": 512}  # NIfTI-1 codes of what this module makes
AIR_HU = -1000
MASK64 = (1 << 64) - 1
ONE = 1 << 20  # of the fixed-point ratios in _axis
LANE_MEAN = 4 * 0xFFFF // 2  # of the sum of four 16-bit lanes; its standard deviation is 37,837


@dataclass(frozen=True, slots=True)
class Ellipsoid:
    """One structure. ``centre`` and ``radius``: thousandths of the volume along (i, j, k).

    A radius of 0 along k makes a cylinder through all slices. ``value``: the voxels' mean (HU or MR units).
    ``label`` 0 is background.
    """

    value: int
    label: int
    centre: Size3
    radius: Size3


def ct_phantom(
    seed: int,
    shape: Size3 = (160, 160, 48),
    spacing_mm: Spacing3 = (1.5, 1.5, 3.0),
    *,
    visit: int = 1,
    lesions: int = 3,
) -> Phantom:
    """An abdomen: image int16 (I, J, K) in HU, labels uint8 (I, J, K) of ``CT_LABELS``, affine.

    The same ``seed`` is the same patient; a later ``visit`` has other noise, larger lesions and one more.
    """
    image = np.full(shape, AIR_HU, np.int16, order="F")
    labels = np.zeros(shape, np.uint8, order="F")
    for structure in _abdomen(seed, visit, lesions):
        _paint(image, labels, structure)
    for k, noise in _noise(seed * 64 + visit, shape, amplitude=24):
        image[:, :, k] = np.clip(image[:, :, k] + noise, -1024, 3071)
    return image, labels, _affine(shape, spacing_mm)


def mr_phantom(
    seed: int,
    shape: Size3 = (192, 192, 48),
    spacing_mm: Spacing3 = (1.0, 1.0, 3.0),
    *,
    lesions: int = 3,
) -> Phantom:
    """A head, T1-like: image uint16 (I, J, K) with a smooth bias field, labels of ``MR_LABELS``, affine."""
    image = np.zeros(shape, np.uint16, order="F")
    labels = np.zeros(shape, np.uint8, order="F")
    for structure in _head(seed, lesions):
        _paint(image, labels, structure)
    bias = 1000 + 300 * (np.arange(shape[0], dtype=np.int64)[:, None] * 2 - shape[0]) // shape[0]
    bias = bias - 200 * (np.arange(shape[1], dtype=np.int64)[None, :] * 2 - shape[1]) // shape[1]
    for k, noise in _noise(seed, shape, amplitude=40):
        image[:, :, k] = np.clip(image[:, :, k] * bias // 1000 + noise, 0, 4095)
    return image, labels, _affine(shape, spacing_mm)


def write_nifti(path: Path, voxels: npt.NDArray[Any], affine: npt.NDArray[np.float64]) -> None:
    """Commit ``voxels`` (integers) as NIfTI-1 to ``path``, .nii or .nii.gz.

    The bytes of a .nii depend on the arguments only; those of a .nii.gz also on the version of zlib.
    """
    header = np.zeros((), header_dtype.newbyteorder("<"))
    header["sizeof_hdr"], header["magic"], header["vox_offset"] = 348, b"n+1", 352
    header["dim"] = (voxels.ndim, *voxels.shape, *(1,) * (7 - voxels.ndim))
    header["datatype"], header["bitpix"] = DATATYPES[voxels.dtype.name], voxels.dtype.itemsize * 8
    header["pixdim"][1:4] = np.abs(affine[:3, :3]).max(axis=0)
    header["xyzt_units"] = 2  # millimetres
    # The sform alone: a qform's quaternion comes out of an eigendecomposition, whose last bits differ.
    header["sform_code"] = 1
    header["srow_x"], header["srow_y"], header["srow_z"] = affine[:3]
    little = voxels.astype(voxels.dtype.newbyteorder("<"), copy=False)
    content = header.tobytes() + bytes(4) + little.tobytes(order="F")
    with committed(path) as stream:
        stream.write(gzip.compress(content, 6, mtime=0) if path.suffix == ".gz" else content)


def generator_names() -> tuple[str, ...]:
    """What the ``generator`` of a source's file may be, sorted."""
    return tuple(sorted(_GENERATORS))


def generate(name: str, path: Path) -> None:
    """Commit the file of generator ``name`` to ``path``. Raises ConfigError for an unknown name."""
    if name not in _GENERATORS:
        raise ConfigError(f'generator "{name}" is unknown; known: {", ".join(generator_names())}')
    _GENERATORS[name](path)


def _write_ct(path: Path, *, seed: int, visit: int, part: int) -> None:
    volume = ct_phantom(seed, visit=visit)
    write_nifti(path, volume[part], volume[2])


# Six patients, two of them seen twice: groups are not cases.
_VISITS = ((1, 1), (1, 2), (2, 1), (3, 1), (4, 1), (4, 2), (5, 1), (6, 1))
_GENERATORS = {
    f"ct-phantom/p{seed:02d}-{visit}/{what}": partial(_write_ct, seed=seed, visit=visit, part=part)
    for seed, visit in _VISITS
    for part, what in enumerate(("image", "label"))
}


def _abdomen(seed: int, visit: int, lesions: int) -> Iterator[Ellipsoid]:
    """Structures from the outside inwards: later ones cover earlier ones."""
    draw = _draws(seed)
    yield Ellipsoid(-100, 0, (500, 500, 500), (440, 330, 0))  # subcutaneous fat
    yield Ellipsoid(50, 0, (500, 500, 500), (405, 295, 0))  # wall
    yield Ellipsoid(-80, 0, (500, 480, 500), (365, 245, 0))  # visceral fat
    yield Ellipsoid(30, 0, _near(draw, (600, 390, 620), 15), _about(draw, (90, 80, 220)))  # stomach
    yield Ellipsoid(40, 0, _near(draw, (540, 430, 200), 15), _about(draw, (150, 90, 180)))  # bowel
    yield Ellipsoid(110, 0, _near(draw, (455, 545, 500), 6), (24, 20, 0))  # inferior vena cava
    yield Ellipsoid(110, 2, _near(draw, (745, 500, 680), 12), _about(draw, (75, 105, 230)))
    yield Ellipsoid(160, 3, _near(draw, (325, 600, 330), 10), _about(draw, (65, 58, 230)))
    yield Ellipsoid(160, 4, _near(draw, (675, 600, 380), 10), _about(draw, (65, 58, 230)))
    yield Ellipsoid(450, 5, (500, 665, 500), (72, 56, 0))  # cortical bone
    yield Ellipsoid(200, 5, (500, 665, 500), (62, 47, 0))  # trabecular bone
    yield Ellipsoid(40, 0, (500, 738, 500), (30, 24, 0))  # spinal canal
    yield Ellipsoid(150, 6, _near(draw, (530, 580, 500), 6), (30, 30, 0))
    liver = Ellipsoid(105, 1, _near(draw, (335, 440, 640), 10), _about(draw, (165, 150, 330)))
    yield liver
    yield from _inside(
        draw, liver, lesions + visit - 1, value=55, label=7, grow_percent=100 + 25 * (visit - 1)
    )


def _head(seed: int, lesions: int) -> Iterator[Ellipsoid]:
    draw = _draws(seed)
    for value, radius in ((900, (420, 470, 560)), (90, (395, 445, 530)), (240, (365, 415, 500))):
        yield Ellipsoid(value, 0, (500, 500, 420), radius)  # scalp, skull, cerebrospinal fluid
    yield Ellipsoid(620, 1, (500, 500, 420), _about(draw, (350, 400, 480)))
    white = Ellipsoid(880, 2, (500, 500, 420), _about(draw, (295, 340, 410)))
    yield white
    for side in (-1, 1):
        yield Ellipsoid(220, 3, _near(draw, (500 + side * 60, 480, 480), 8), _about(draw, (35, 120, 170)))
    for edema in _inside(draw, white, lesions, value=520, label=4, grow_percent=130):
        yield edema
        i, j, k = (radius * 3 // 5 for radius in edema.radius)
        yield Ellipsoid(1050, 5, edema.centre, (i, j, k))


def _inside(
    draw: Iterator[int], host: Ellipsoid, count: int, *, value: int, label: int, grow_percent: int
) -> Iterator[Ellipsoid]:
    """``count`` lesions well inside ``host``, spread along k."""
    for number in range(count):
        place = (next(draw) % 701 - 350, next(draw) % 701 - 350, (2 * number + 1) * 500 // count - 500)
        i, j, k = (c + r * p // 1000 for c, r, p in zip(host.centre, host.radius, place, strict=True))
        size = (120 + next(draw) % 100) * grow_percent // 100
        radius = (host.radius[0] * size // 1000, host.radius[1] * size // 1000, host.radius[2] * size // 1000)
        yield Ellipsoid(value, label, (i, j, k), radius)


def _draws(seed: int) -> Iterator[int]:
    """An endless stream of 32-bit integers."""
    state = seed & MASK64
    while True:
        state = (state + 0x9E3779B97F4A7C15) & MASK64
        mixed = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK64
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & MASK64
        yield (mixed ^ (mixed >> 31)) >> 32


def _near(draw: Iterator[int], centre: Size3, reach: int) -> Size3:
    i, j, k = (c + next(draw) % (2 * reach + 1) - reach for c in centre)
    return i, j, k


def _about(draw: Iterator[int], radius: Size3) -> Size3:
    """``radius`` times 0.90 to 1.10, the same for all axes."""
    factor = 900 + next(draw) % 201
    return radius[0] * factor // 1000, radius[1] * factor // 1000, radius[2] * factor // 1000


def _paint(image: npt.NDArray[Any], labels: npt.NDArray[np.uint8], structure: Ellipsoid) -> None:
    """Set value and label of the voxels whose centres lie in ``structure``."""
    (i, squares_i), (j, squares_j), (k, squares_k) = (
        _axis(size, centre, radius)
        for size, centre, radius in zip(image.shape, structure.centre, structure.radius, strict=True)
    )
    plane = squares_i[:, None] + squares_j[None, :]
    window = (slice(i, i + len(squares_i)), slice(j, j + len(squares_j)))
    for number, square in enumerate(squares_k, start=k):
        inside = plane <= ONE * ONE - square
        image[(*window, number)][inside] = structure.value
        labels[(*window, number)][inside] = structure.label


def _axis(size: int, centre: int, radius: int) -> tuple[int, npt.NDArray[np.int64]]:
    """The first index inside, and from there ((index - centre) / radius)² in units of ``ONE`` squared."""
    if radius == 0:
        return 0, np.zeros(size, np.int64)
    distance = np.abs((2 * np.arange(size, dtype=np.int64) + 1) * 500 - centre * size)
    ratio = distance * ONE // (radius * size)
    (inside,) = np.nonzero(ratio <= ONE)
    if inside.size == 0:
        return 0, np.zeros(0, np.int64)
    kept = ratio[inside[0] : inside[-1] + 1]
    return int(inside[0]), kept * kept


def _noise(seed: int, shape: Size3, *, amplitude: int) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    """Per slice k: int64 (I, J), about normal with mean 0 and standard deviation 0.577 ``amplitude``."""
    count = shape[0] * shape[1]
    start = next(_draws(seed)) << 32
    for k in range(shape[2]):
        numbers = np.arange(count, dtype=np.uint64) + np.uint64(start + k * count)
        mixed = _splitmix64(numbers)
        lanes = mixed.view(np.uint16).reshape(count, 4).sum(axis=1, dtype=np.int64)
        noise = ((lanes - LANE_MEAN) * amplitude) >> 16
        yield k, noise.reshape(shape[:2], order="F")


def _splitmix64(numbers: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finaliser of splitmix64 over uint64, wrapping around."""
    mixed = numbers * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _affine(shape: Size3, spacing_mm: Spacing3) -> npt.NDArray[np.float64]:
    """LPS storage with the middle of the grid at the origin."""
    affine = np.diag([-spacing_mm[0], -spacing_mm[1], spacing_mm[2], 1.0])
    affine[:3, 3] = -affine[:3, :3] @ (np.asarray(shape) // 2)
    return affine
