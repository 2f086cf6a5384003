"""Colours stand for structures; keys of [labels] are "#RRGGBB"."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from medcurate.config.source import Strict
from medcurate.decoders.values import distinct
from medcurate.errors import CaseRejected, Reason
from medcurate.types import Array, LabelFiles, LabelLayer, Volume

Colour = Annotated[str, Field(pattern=r"^#[0-9A-Fa-f]{6}$", description="#RRGGBB")]
_ROWS_AT_ONCE = 64


class Options(Strict):
    """``background``: colours that are no structure. ``nearest_within``: a pixel takes the nearest declared
    colour (background included) up to this Euclidean distance in RGB; 0 accepts declared colours only.
    Equally near: the first key of [labels], then background.
    """

    background: tuple[Colour, ...] = ("#000000",)
    nearest_within: Annotated[float, Field(ge=0)] = 0.0


def check(labels: Mapping[str, str]) -> None:
    """Raise ValueError unless every key is a colour and no two are the same."""
    for key in labels:
        if not re.fullmatch(r"#[0-9A-Fa-f]{6}", key):
            raise ValueError(f'"{key}" is not a colour; write "#RRGGBB"')
    if len({key.lower() for key in labels}) < len(labels):
        raise ValueError("two keys of [labels] are the same colour")


def decode(files: LabelFiles, labels: Mapping[str, str], options: Options) -> tuple[LabelLayer, ...]:
    """One layer a file: value n for the n-th key of [labels]. Raises CaseRejected (BAD_LABEL)."""
    keys = [key.lower() for key in labels]
    extra = [colour.lower() for colour in options.background if colour.lower() not in keys]
    palette = np.array([[*bytes.fromhex(colour[1:])] for colour in (*keys, *extra)], np.int64)
    classes = np.array([*range(1, len(keys) + 1), *[0] * len(extra)], np.uint16)
    terms = dict(enumerate(labels.values(), start=1))
    return tuple(
        LabelLayer(labels=_classes(volume, palette, classes, options.nearest_within), terms=terms)
        for _, volume in files
    )


def _classes(
    volume: Volume, palette: npt.NDArray[np.int64], classes: npt.NDArray[np.uint16], nearest_within: float
) -> Array:
    picture = _picture(volume)
    # Some rows at a time: a colour packed into a number takes four bytes a pixel, the places found eight.
    blocks = [picture[top : top + _ROWS_AT_ONCE] for top in range(0, len(picture), _ROWS_AT_ONCE)]
    colours = np.unique(np.concatenate([distinct(_packed(block)) for block in blocks]))
    squared = _squared_distances(colours, palette)
    nearest = squared.argmin(axis=1)
    undeclared = colours[squared.min(axis=1) > nearest_within**2]
    if len(undeclared):
        count = sum(int(np.count_nonzero(np.isin(_packed(block), undeclared))) for block in blocks)
        raise CaseRejected(
            Reason.BAD_LABEL,
            f"colour #{int(undeclared[0]):06x} is not declared; {count} pixels hold such colours",
            {"measure": int(undeclared[0]), "count": count},
        )
    small = len(classes) <= np.iinfo(np.uint8).max
    table = classes[nearest].astype(np.uint8 if small else np.uint16)
    return np.concatenate([table[np.searchsorted(colours, _packed(block))] for block in blocks])


def _squared_distances(
    colours: npt.NDArray[np.uint32], palette: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """(N, P) of N packed colours and P palette entries."""
    components = np.stack([colours >> 16, (colours >> 8) & 255, colours & 255], axis=1).astype(np.int64)
    columns = [((components - entry) ** 2).sum(axis=1) for entry in palette]
    return np.stack(columns, axis=1)


def packed_colours(volume: Volume) -> npt.NDArray[np.uint32]:
    """(H, W) of 0xRRGGBB; a grey picture has three equal components. Raises CaseRejected."""
    return _packed(_picture(volume))


def _picture(volume: Volume) -> npt.NDArray[np.uint8]:
    """uint8 (H, W) or (H, W, 3)."""
    voxels = volume.voxels
    if voxels.dtype != np.uint8 or volume.affine is not None or (voxels.ndim == 3 and voxels.shape[2] != 3):
        raise CaseRejected(
            Reason.BAD_LABEL, f"a picture of 8-bit colours is expected, not {voxels.dtype} {voxels.shape}"
        )
    return voxels


def _packed(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
    packed = np.zeros(picture.shape[:2], np.uint32)
    for channel in range(3):
        packed <<= 8
        packed |= picture if picture.ndim == 2 else picture[..., channel]
    return packed
