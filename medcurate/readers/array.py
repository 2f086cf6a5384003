"""Arrays of numpy: .npy and .npz, a whole array or one row of a pack; never with pickle.

An entry names what is read of a file, as numpy writes it: ``imgs`` is an array of an .npz, ``images[12]`` the
thirteenth element of its first axis, ``[12]`` that of a .npy. Reading a row does not read the pack.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from medcurate.config.source import Directions, Strict
from medcurate.errors import CaseRejected, Reason
from medcurate.readers import geometry
from medcurate.readers.files import CaseFiles
from medcurate.readers.packs import Pack, opened
from medcurate.readers.voxels import native
from medcurate.types import Array, Volume

Millimetres = Annotated[float, Field(gt=0)]
_ENTRY = re.compile(r"(?P<key>[^\[\]]*)(\[(?P<row>\d{1,12})\])?")
_PICTURES = ("hw", "hwc", "chw", "wh", "whc", "cwh")
_OPPOSITE = {"R": "L", "L": "R", "A": "P", "P": "A", "S": "I", "I": "S"}


class Options(Strict):
    """What the axes of one image are and what geometry it has.

    ``key``: the array of an .npz, where no entry names it. ``axes``: a letter an axis of one image (a row of a
    pack without the axis of rows): "hw" or "hwc" in any order of sides for pictures, "ijk" with or without "c"
    in any order for volumes. ``dtype``: whole numbers are stored in this type (floats that hold 0..255).
    ``spacing_mm``, or ``spacing_key`` (an array of the same .npz): along i, j, k, or (row, column) of pictures.
    ``directions``: the patient's directions that i, j and k grow to.
    """

    key: str = ""
    axes: str = "hw"
    dtype: Literal["", "uint8", "int16", "uint16", "int32", "uint32"] = ""
    spacing_mm: Annotated[tuple[Millimetres, ...], Field(min_length=2, max_length=3)] | None = None
    spacing_key: str = ""
    directions: Directions = "LPS"

    @field_validator("axes")
    @classmethod
    def _known_axes(cls, value: str) -> str:
        if value not in _PICTURES and sorted(value.replace("c", "", 1)) != ["i", "j", "k"]:
            raise ValueError(
                'a letter an axis: "hw" with or without "c", or "ijk" with or without "c", in any order'
            )
        return value

    @model_validator(mode="after")
    def _spacing_fits(self) -> Options:
        if self.spacing_mm is not None and self.spacing_key:
            raise ValueError("spacing_mm or spacing_key, not both")
        if self.volume and self.spacing_mm is None and not self.spacing_key:
            raise ValueError("a volume needs spacing_mm = [i, j, k] or spacing_key")
        if self.spacing_mm is not None and len(self.spacing_mm) != (3 if self.volume else 2):
            raise ValueError("spacing_mm is [i, j, k] of a volume and [row, column] of a picture")
        return self

    @property
    def volume(self) -> bool:
        """Whether one image is a volume."""
        return "k" in self.axes


def check_entry(entry: str) -> None:
    """Raise ValueError unless ``entry`` is ``key``, ``key[row]`` or ``[row]``."""
    if not _ENTRY.fullmatch(entry):
        raise ValueError(f'"{entry}" is no entry of an array file: write key, key[row] or [row]')


def read(files: CaseFiles, paths: Sequence[Path], options: Options) -> Volume:
    """The whole array ``options.key``: as ``read_entry``."""
    return read_entry(files, paths, options.key, options)


def read_entry(files: CaseFiles, paths: Sequence[Path], entry: str, options: Options) -> Volume:
    """One image: (H, W[, C]), or (I, J, K[, C]) with an affine whose origin is 0.

    Native byte order, read-only. Raises CaseRejected: UNREADABLE, CORRUPT, HEADER_SIZE, GEOMETRY.
    """
    if len(paths) != 1:
        raise CaseRejected(Reason.UNREADABLE, f"an array is in one file, not {len(paths)}")
    found = _ENTRY.fullmatch(entry)
    if found is None:
        raise CaseRejected(Reason.UNREADABLE, "no entry of an array file")
    pack = opened(files, paths[0])
    array = _read(files, pack, found["key"], found["row"])
    if array.ndim != len(options.axes):
        raise CaseRejected(
            Reason.GEOMETRY, f"an array of {array.ndim} axes where the source states {options.axes}"
        )
    order = "ijkc" if options.volume else "hwc"
    voxels = array.transpose([options.axes.index(axis) for axis in order if axis in options.axes])
    voxels = _typed(native(voxels), options.dtype)
    spacing_mm = _spacing(files, pack, options)
    if options.volume:
        return Volume(voxels=voxels, affine=_affine(spacing_mm, options.directions))
    return Volume(voxels=voxels, spacing_mm=spacing_mm)  # type: ignore[arg-type]


def _read(files: CaseFiles, pack: Pack, key: str, row: str | None) -> Array:
    header = pack.header(key)
    if header.dtype.kind not in "buif":
        raise CaseRejected(Reason.UNREADABLE, f"elements of type {header.dtype} are no real numbers")
    if min(header.shape, default=0) < 1:
        raise CaseRejected(Reason.CORRUPT, "the array has an axis without elements")
    if row is None:
        files.check_claim(header.size_bytes, header.size_bytes)
        return pack.whole(key)
    if header.fortran:
        raise CaseRejected(
            Reason.UNREADABLE, "rows of a Fortran-ordered pack are scattered; save it C-ordered"
        )
    if int(row) >= header.shape[0]:
        raise CaseRejected(
            Reason.UNREADABLE, "the pack has no such row", {"measure": int(row), "bound": header.shape[0]}
        )
    files.check_claim(header.size_bytes // header.shape[0], header.size_bytes)
    return pack.row(key, int(row))


def _typed(voxels: Array, name: str) -> Array:
    """``voxels`` in the stated type, exactly. Raises CaseRejected (UNREADABLE) where a value does not fit."""
    dtype = np.dtype(name) if name else voxels.dtype
    if voxels.dtype == dtype:
        return voxels
    limits = np.iinfo(dtype)
    if not (limits.min <= voxels.min() and voxels.max() <= limits.max):  # False for NaN too
        raise CaseRejected(Reason.UNREADABLE, f"values outside of {dtype.name}, which the source states")
    typed = voxels.astype(dtype)
    if not np.array_equal(typed, voxels):
        raise CaseRejected(Reason.UNREADABLE, f"fractions where the source states {dtype.name}")
    return typed


def _spacing(files: CaseFiles, pack: Pack, options: Options) -> tuple[float, ...] | None:
    if not options.spacing_key:
        return options.spacing_mm
    header = pack.header(options.spacing_key)
    count = 3 if options.volume else 2
    if header.shape != (count,) or header.dtype.kind not in "iuf":
        raise CaseRejected(
            Reason.GEOMETRY, f'the array "{options.spacing_key}" does not hold {count} numbers'
        )
    spacing_mm = tuple(float(step) for step in pack.whole(options.spacing_key))
    if not all(0 < step < np.inf for step in spacing_mm):
        raise CaseRejected(Reason.GEOMETRY, "the spacing is not positive")
    return spacing_mm


def _affine(spacing_mm: tuple[float, ...] | None, directions: str) -> geometry.Affine:
    assert spacing_mm is not None  # Options requires it of volumes
    steps = np.zeros((3, 3))
    for axis, (letter, step) in enumerate(zip(directions, spacing_mm, strict=True)):
        positive = letter in "RAS"
        steps[axis, "RAS".index(letter if positive else _OPPOSITE[letter])] = step if positive else -step
    return geometry.affine_from_axes(steps, np.zeros(3), geometry.RAS)
