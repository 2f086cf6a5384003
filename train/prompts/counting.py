"""Pixels of masks counted eight at a time: a bool is a byte, and eight bytes add up as one whole number.

A sum of up to 255 words of 0/1 bytes has eight counts that cannot run into each other. On a CPU this is about
ten times as fast as summing bools, on a GPU as fast; the counts are the same.
"""

from __future__ import annotations

import torch

_WORD = 8
_MOST = 255  # what a byte can count
_ROWS = 128  # summed at once
_EVEN = 0x00FF00FF00FF00FF
_PAIRS = 0x0001000100010001


def row_counts(masks: torch.Tensor) -> torch.Tensor:
    """Pixels of each row, int64 (N, H), of bool masks (N, H, W)."""
    width = masks.shape[-1]
    if width % _WORD or width // _WORD > _MOST:
        return masks.sum(dim=2)
    sums = _words(masks).sum(dim=2)
    pairs = (sums & _EVEN) + ((sums >> 8) & _EVEN)  # four counts of 16 bits
    return ((pairs * _PAIRS) >> 48) & 0xFFFF


def columns_hit(masks: torch.Tensor) -> torch.Tensor:
    """Which columns have a pixel, bool (N, W), of bool masks (N, H, W)."""
    count, height, width = masks.shape
    if width % _WORD or height % _ROWS or not count:
        return masks.any(dim=1)
    sums = _words(masks).view(count, height // _ROWS, _ROWS, width // _WORD).sum(dim=2)
    return sums.view(torch.uint8).ne(0).any(dim=1)


def _words(masks: torch.Tensor) -> torch.Tensor:
    """int64 (N, H, W / 8) over the same memory; a copy where this does not begin at a whole word."""
    whole = masks.contiguous()
    if whole.storage_offset() % _WORD:
        whole = whole.clone()
    return whole.view(torch.int64)
