"""COCO compressed run-length masks, many at a time in numpy; byte-identical to pycocotools.

A mask is read column by column (column-major order); its *counts* are the lengths of alternating runs,
background first (so the first count is 0 where the first pixel is set). From the fourth count on the
difference to the count two places before is stored. Each number becomes characters of 5 bits each, lowest
bits first, two's complement: bit 5 says that another character follows, and 48 is added.
Source: cocoapi, common/maskApi.c, rleEncode, rleToString and rleFrString.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]

_MAX_CHARACTERS = 7  # of one number: differences of 32-bit counts have 33 bits and a sign
_MORE = 0x20
_SIGN = 0x10
_DIGIT = 0x1F
_BASE = 48


def encode(mask: npt.NDArray[np.bool_]) -> bytes:
    """One mask, bool (H, W), as compressed RLE. Raises ValueError for another dtype or a side of 0."""
    return encode_many(mask[np.newaxis])[0]


def encode_many(masks: npt.NDArray[np.bool_]) -> list[bytes]:
    """Masks of one size, bool (N, H, W), as compressed RLE. Raises ValueError as ``encode`` does."""
    if masks.dtype != np.bool_ or masks.ndim != 3 or 0 in masks.shape[1:]:
        raise ValueError(f"masks must be bool with sides of at least 1, not {masks.dtype} {masks.shape}")
    number, height, width = masks.shape
    changes = np.empty(masks.shape, np.bool_)
    np.not_equal(masks[:, 1:], masks[:, :-1], out=changes[:, 1:])
    np.not_equal(masks[:, 0, 1:], masks[:, -1, :-1], out=changes[:, 0, 1:])
    changes[:, 0, 0] = masks[:, 0, 0]
    row, col = np.divmod(np.flatnonzero(changes), width)
    mask, row = np.divmod(row, height)
    position = np.sort((mask * width + col) * height + row)
    return from_changes(position % (height * width), np.bincount(mask, minlength=number), height * width)


def from_changes(positions: Int64s, sizes: Int64s, pixels: int) -> list[bytes]:
    """Compressed RLE of masks that are given by where they change.

    ``positions``: column-major pixel indices in [0, pixels) at which a mask starts or stops being set,
    increasing inside each mask, all masks joined; ``sizes``: how many belong to each mask.
    """
    ends = np.insert(positions, np.cumsum(sizes), pixels)
    counts = np.diff(ends, prepend=0)
    first = np.cumsum(sizes + 1) - sizes - 1
    counts[first] = ends[first]
    return compress(counts, sizes + 1)


def compress(counts: Int64s, sizes: Int64s) -> list[bytes]:
    """Write counts as compressed RLE strings.

    ``counts``: run lengths of all masks, joined; ``sizes``: how many belong to each mask, at least 1.
    """
    if not len(sizes):
        return []
    numbers = _differences(counts, sizes)
    magnitude = numbers ^ (numbers >> 63)
    lengths = np.ones(len(numbers), np.int64)
    for characters in range(1, _MAX_CHARACTERS):
        longer = magnitude >= 1 << (5 * characters - 1)
        if not longer.any():
            break
        lengths += longer
    text = _characters(numbers, lengths).tobytes()
    bounds = np.concatenate([[0], np.cumsum(np.add.reduceat(lengths, np.cumsum(sizes) - sizes))]).tolist()
    return [text[a:b] for a, b in pairwise(bounds)]


def decode(counts: bytes, height: int, width: int) -> npt.NDArray[np.bool_]:
    """Compressed RLE to bool (height, width), C-contiguous. Raises ValueError as ``decode_many`` does."""
    mask: npt.NDArray[np.bool_] = decode_many([counts], height, width)[0]
    return mask


def decode_many(counts: Sequence[bytes], height: int, width: int) -> npt.NDArray[np.bool_]:
    """Compressed RLE of masks of one size to bool (N, height, width), C-contiguous.

    Raises ValueError when a string is empty, cut or holds other characters, when a count is negative, or
    when the counts of a mask do not sum to ``height * width``.
    """
    columns = decode_columns(counts, height, width)
    masks = np.empty((len(counts), height, width), np.uint8)
    for column_major, mask in zip(columns, masks, strict=True):
        cv2.transpose(column_major, mask)
    return masks.view(np.bool_)


def decode_columns(counts: Sequence[bytes], height: int, width: int) -> npt.NDArray[np.uint8]:
    """Compressed RLE of masks of one size to uint8 0 or 1, (N, width, height): as stored, columns first.

    For those who go on with other geometry and transpose later. Raises ValueError as ``decode_many`` does.
    """
    if not counts:
        return np.zeros((0, width, height), np.uint8)
    lengths, sizes = _run_lengths(counts, height * width)
    index = np.arange(len(lengths)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    pixels: npt.NDArray[np.uint8] = np.repeat((index & 1).astype(np.uint8), lengths)
    return pixels.reshape(len(counts), width, height)


def _differences(counts: Int64s, sizes: Int64s) -> Int64s:
    """What is stored: the first three counts of every mask, then differences to two places before."""
    numbers = counts.copy()
    numbers[2:] -= counts[:-2]
    first = np.cumsum(sizes) - sizes
    for place in range(3):
        kept = first[sizes > place] + place
        numbers[kept] = counts[kept]
    return numbers


def _characters(numbers: Int64s, lengths: Int64s) -> npt.NDArray[np.uint8]:
    """The characters of ``numbers``; ``lengths`` says how many each number takes."""
    ends = np.cumsum(lengths)
    text = np.empty(int(ends[-1]), np.uint8)
    text[ends - lengths] = (numbers & _DIGIT) + (lengths > 1) * _MORE + _BASE
    rest = np.flatnonzero(lengths > 1)
    for place in range(1, int(lengths.max())):
        more = lengths[rest] > place + 1
        digits = (numbers[rest] >> (5 * place)) & _DIGIT
        text[ends[rest] - lengths[rest] + place] = digits + more * _MORE + _BASE
        rest = rest[more]
    return text


def _run_lengths(texts: Sequence[bytes], pixels: int) -> tuple[Int64s, Int64s]:
    """Counts of all masks, joined, and how many each mask has. Raises ValueError (see ``decode_many``)."""
    sizes_bytes = np.array([len(text) for text in texts], np.int64)
    characters = np.frombuffer(b"".join(texts), np.uint8) - np.uint8(_BASE)
    is_last = (characters & _MORE) == 0
    last_bytes = np.cumsum(sizes_bytes) - 1
    if not sizes_bytes.all() or (characters >= 2 * _MORE).any() or not is_last[last_bytes].all():
        raise ValueError("not compressed RLE: it is empty, cut or holds other characters")
    last = np.flatnonzero(is_last)
    counts = _numbers(characters, last)
    bounds = np.searchsorted(last, last_bytes, side="right")
    for start, stop in pairwise([0, *bounds.tolist()]):
        for chain in (counts[start + 1 : stop : 2], counts[start + 2 : stop : 2]):
            np.add.accumulate(chain, out=chain)
    sizes = bounds.copy()
    sizes[1:] -= bounds[:-1]
    _check_counts(counts, sizes, pixels)
    return counts, sizes


def _check_counts(counts: Int64s, sizes: Int64s, pixels: int) -> None:
    if counts.min() < 0 or counts.max() > pixels:
        raise ValueError(f"not compressed RLE: a count is negative or over the {pixels} pixels of the image")
    totals = np.add.reduceat(counts, np.cumsum(sizes) - sizes)
    wrong = totals[totals != pixels]
    if len(wrong):
        raise ValueError(f"RLE describes {wrong[0]} pixels; the image has {pixels}")


def _numbers(characters: npt.NDArray[np.uint8], last: Int64s) -> Int64s:
    """Signed numbers from characters (48 taken off); ``last``: index of each number's last character."""
    first = np.empty_like(last)
    first[0], first[1:] = 0, last[:-1] + 1
    lengths = last - first + 1
    longest = int(lengths.max())
    if longest > _MAX_CHARACTERS:
        raise ValueError(f"not compressed RLE: a number has over {_MAX_CHARACTERS} characters")
    digits = (characters & _DIGIT).astype(np.int64)
    numbers = digits[first]
    for place in range(1, longest):
        rest = np.flatnonzero(lengths > place)
        numbers[rest] |= digits[first[rest] + place] << (5 * place)
    numbers -= ((characters[last] & _SIGN) != 0) * (np.int64(1) << (5 * lengths))
    return numbers
