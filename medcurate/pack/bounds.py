"""How large samples become when they are resized, told from their first bytes before any pixel is decoded.

``most`` decides where shards are cut, so it must not be passed; ``likely`` is for what a disk must hold. What a picture
deflates to cannot be told from what it deflated to before (a chequerboard of single pixels becomes a moiré, two grey
levels become many), so at most it has its pixels, undeflated: shards are then closed well before they are full.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from medcurate.format.sample import BLOCK_BYTES
from medcurate.pack.inputs import Inputs, Stored

Int64s = npt.NDArray[np.int64]

_PAYLOAD_SIZE = slice(124, 135)  # of a USTAR header: octal digits
_COLOUR_TYPE = BLOCK_BYTES + 25  # in IHDR, behind signature, chunk header, sides and depth
_HEAD_BYTES = _COLOUR_TYPE + 1
_CHANNELS = {0: 1, 2: 3}

_STORED_SHARE = 1 / 1024  # what deflate adds to noise
_PNG_BYTES = 256  # chunks, and a stream of few bytes
_MASK_BYTES = 48  # area, box and size may take more digits each
_JSON_BYTES = 64  # as may the two spacings
_CHARACTER_BITS = 5  # of a number in compressed RLE


class Sizes(NamedTuple):
    """Bytes of each sample in a tar."""

    most: Int64s
    likely: Int64s


def resized_sizes(inputs: Inputs, samples: pa.Table, masks: Int64s, size_px: int) -> Sizes:
    """Sizes of ``samples`` (a manifest row each, with ``masks`` masks) as squares of ``size_px``.

    Masks have as many more runs as they have more columns, and more digits for longer runs. Raises DamagedInput for
    a tar that is missing, or holds no sample where it should.
    """
    stored, height, width = (
        samples[name].to_numpy().astype(np.int64) for name in ("size", "height", "width")
    )
    picture, channels = _heads(inputs, samples)
    taller, wider = size_px / height, size_px / width
    pixels = size_px * (size_px * channels + 1) * (1 + _STORED_SHARE) + _PNG_BYTES
    runs = (stored - picture) * np.maximum(1, wider)
    digits = 1 + np.log2(np.maximum(1, taller)) / _CHARACTER_BITS
    most = _in_blocks(pixels + runs * digits + _MASK_BYTES * masks + _JSON_BYTES)
    likely = np.minimum(most, _in_blocks(picture * taller * wider + runs))
    same = (height == size_px) & (width == size_px)
    return Sizes(np.where(same, stored, most), np.where(same, stored, likely))


def _in_blocks(payload_bytes: npt.NDArray[np.float64]) -> Int64s:
    """Whole blocks, one more because two members are padded each."""
    return (np.ceil(payload_bytes / BLOCK_BYTES).astype(np.int64) + 1) * BLOCK_BYTES


def _heads(inputs: Inputs, samples: pa.Table) -> tuple[Int64s, Int64s]:
    """Bytes and channels of the samples' pictures; they are read in the order in which they lie."""
    columns = (samples[name].to_pylist() for name in Stored._fields)
    places = [Stored(*facts) for facts in zip(*columns, strict=True)]
    found = np.empty((2, len(places)), np.int64)
    for number in sorted(range(len(places)), key=lambda one: (places[one].shard, places[one].offset)):
        found[:, number] = _picture(inputs, places[number])
    return found[0], found[1]


def _picture(inputs: Inputs, stored: Stored) -> tuple[int, int]:
    head = inputs.head(stored, _HEAD_BYTES)
    try:
        return int(head[_PAYLOAD_SIZE], 8), _CHANNELS[head[_COLOUR_TYPE]]
    except (ValueError, LookupError) as error:
        raise inputs.damaged(stored, "it does not begin with a grey or RGB picture") from error
