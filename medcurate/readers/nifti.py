"""NIfTI-1 and NIfTI-2: .nii, .nii.gz and .hdr/.img pairs, either byte order.

The header is nibabel's to interpret: affine (sform, else qform, else voxel sizes about the image's centre),
scaling and data types are as ``nibabel.load`` gives them; only metres and microns, which it leaves to its caller,
become millimetres, as in ITK. The voxels are one allocation: a view of the
file's own bytes, or of the inflated stream. A file must end where its voxels end, and a .nii.gz must be
intact to its last byte. Header extensions are skipped; no header text is kept.
Sources: nifti1.h, nifti2.h (NIfTI-1.1 and NIfTI-2 formats).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from nibabel.nifti1 import Nifti1Header, Nifti1PairHeader
from nibabel.nifti2 import Nifti2Header, Nifti2PairHeader

from medcurate.config.source import Strict
from medcurate.errors import CaseRejected, Reason
from medcurate.readers import geometry, voxels
from medcurate.readers.files import CaseFiles
from medcurate.readers.guard import refusing
from medcurate.readers.inflate import GZIP_MAGIC, gunzip, gunzip_head
from medcurate.types import Volume

_HEAD_BYTES = 540  # of the longer header
_MAX_DIMENSIONS = 7
_REFUSED_FROM = 40  # the severity from which nibabel itself refuses a header
_KINDS: dict[tuple[int, bytes], Any] = {  # (sizeof_hdr, magic) -> nibabel's class
    (348, b"n+1\0"): Nifti1Header,
    (348, b"ni1\0"): Nifti1PairHeader,
    (540, b"n+2\0"): Nifti2Header,
    (540, b"ni2\0"): Nifti2PairHeader,
}
_MAGIC_AT = {348: 344, 540: 4}
_SPACE_UNITS = 0b111  # of xyzt_units
_MILLIMETRES = {1: 1e3, 3: 1e-3}  # metre, micron; an unknown unit is taken for a millimetre

_quiet = logging.getLogger("medcurate.readers.nifti.header")  # nibabel's reports quote header text
_quiet.addHandler(logging.NullHandler())
_quiet.propagate = False


class Options(Strict):
    """None: NIfTI states all that is needed."""


@dataclass(frozen=True, slots=True)
class _Header:
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int
    affine: geometry.Affine
    slope: float
    intercept: float
    detached: bool

    @property
    def file_bytes(self) -> int:
        return self.offset + voxels.claimed_bytes(self.shape, self.dtype)


def read(files: CaseFiles, paths: Sequence[Path], options: Options) -> Volume:
    """One .nii, .nii.gz or .hdr (its .img is found beside it): voxels (I, J, K) or (I, J, K, C).

    Native byte order; read-only where the file is not compressed. Dimensions of one voxel are dropped from
    the fourth on. Raises CaseRejected: UNREADABLE for what is not NIfTI or holds complex, RGB or
    extended-precision voxels, CORRUPT, HEADER_SIZE, GEOMETRY, OUTSIDE_REFERENCE.
    """
    if len(paths) != 1:
        raise CaseRejected(Reason.UNREADABLE, f"a NIfTI image is one file, not {len(paths)}")
    content = files.read(paths[0])
    header = _parse(_head(content))
    if header.detached:
        content = files.read(files.sibling(paths[0], _data_name(paths[0].name)))
    data = _inflated(files, content, header.file_bytes)
    if len(data) != header.file_bytes:
        raise CaseRejected(
            Reason.CORRUPT,
            "the file does not end with its last voxel",
            {"measure": len(data), "bound": header.file_bytes},
        )
    return Volume(
        voxels=voxels.fortran(data, header.shape, header.dtype, offset=header.offset),
        affine=header.affine,
        slope=header.slope,
        intercept=header.intercept,
    )


def check_entry(entry: str) -> None:
    """Raise ValueError unless ``entry`` is a frame's index on the fourth axis, from 0."""
    voxels.check_frame(entry)


def read_entry(files: CaseFiles, paths: Sequence[Path], entry: str, options: Options) -> Volume:
    """One frame of a 4D file: voxels (I, J, K). Raises CaseRejected, also where there is no such frame."""
    return voxels.frame(read(files, paths, options), entry)


def _inflated(files: CaseFiles, content: bytes, file_bytes: int) -> voxels.Buffer:
    if not content.startswith(GZIP_MAGIC):
        files.check_claim(file_bytes, len(content))
        return content
    return gunzip(content, limit=files.volume_bytes, expected_bytes=file_bytes)


def _head(content: bytes) -> bytes:
    return gunzip_head(content, _HEAD_BYTES) if content.startswith(GZIP_MAGIC) else content[:_HEAD_BYTES]


def _data_name(header_name: str) -> str:
    for ending, data_ending in ((".hdr", ".img"), (".hdr.gz", ".img.gz")):
        if header_name.endswith(ending):
            return header_name.removesuffix(ending) + data_ending
    raise CaseRejected(Reason.UNREADABLE, "the header of a NIfTI pair must be named .hdr; pair that file")


def _parse(head: bytes) -> _Header:
    order: Literal["little", "big"]
    for order in ("little", "big"):
        size = int.from_bytes(head[:4], order)
        magic_at = _MAGIC_AT.get(size, 0)
        kind = _KINDS.get((size, head[magic_at : magic_at + 4]))
        if kind is not None and len(head) >= size:
            break
    else:
        raise CaseRejected(Reason.UNREADABLE, "not a NIfTI-1 or NIfTI-2 file")
    with refusing(Reason.UNREADABLE, "nibabel refuses the NIfTI header"), np.errstate(all="ignore"):
        raw = kind(head[:size], order, check=False)
        _check_dimensions(raw)
        raw.check_fix(logger=_quiet, error_level=_REFUSED_FROM)
        slope, intercept = raw.get_slope_inter()
        affine = raw.get_best_affine()
        affine[:3] *= _MILLIMETRES.get(int(raw["xyzt_units"]) & _SPACE_UNITS, 1.0)
        dtype = raw.get_data_dtype()
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise CaseRejected(Reason.UNREADABLE, f"voxels of type {dtype.name} are not supported")
    return _Header(
        shape=_squeezed(raw.get_data_shape()),
        dtype=dtype,
        offset=_offset(raw),
        affine=geometry.checked(affine),
        slope=1.0 if slope is None else slope,
        intercept=0.0 if intercept is None else intercept,
        detached=not kind.is_single,
    )


def _check_dimensions(raw: Nifti1Header) -> None:
    count = int(raw["dim"][0])
    if not 1 <= count <= _MAX_DIMENSIONS:
        raise CaseRejected(Reason.CORRUPT, "the header states an impossible number of dimensions")
    if raw["dim"][1 : count + 1].min() < 1:
        raise CaseRejected(Reason.CORRUPT, "the header states an axis without voxels")


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    spatial = (*shape[:3], 1, 1)[:3]
    extra = tuple(side for side in shape[3:] if side > 1)
    if len(extra) > 1:
        raise CaseRejected(Reason.UNREADABLE, f"{3 + len(extra)} dimensions; at most 4 are supported")
    return tuple(int(side) for side in (*spatial, *extra))


def _offset(raw: Nifti1Header) -> int:
    offset, least = float(raw["vox_offset"]), raw.single_vox_offset if raw.is_single else 0
    if not (offset.is_integer() and offset >= least):  # False for NaN and infinity too
        raise CaseRejected(Reason.CORRUPT, "the header states an impossible place for the voxels")
    return int(offset)
