"""The image encoder's attention with decomposed relative positions, on real tokens only.

Two identities make it cheaper than its definition (Li et al., "Exploring Plain Vision Transformer Backbones for Object
Detection", 2022; relative positions of Li et al., "MViTv2", 2022, eq. 4) without changing what it computes:

- The position term of query i and key (r, c) is ``h[i, r] + w[i, c]``: the inner product of ``[h[i], w[i]]`` with the
  one-hot codes of r and c. Appended to queries and keys it makes a plain scaled dot product, which needs no matrix of
  queries x keys in memory and has gradients in every fused kernel.
- Windows that reach over the border are filled with zero tokens after the norm, so all filled keys equal the key bias
  and all filled values the value bias, and they do take part in the softmax. Their summed weight is that of ONE key
  whose logit is raised by ``log(sum of exp(h + w))`` over the filled places. Queries of filled places are never used.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from medcurate.train.model.lora import LoraQkv

ALIGNMENT = 8  # fused kernels want head sizes divisible by it


def relative_table(table: Tensor, queries: int, keys: int) -> Tensor:
    """(2 * keys - 1, D) positions by distance -> (queries, keys, D): row i, column j hold distance i - j."""
    distance = torch.arange(queries, device=table.device)[:, None] - torch.arange(keys, device=table.device)
    return table[distance + keys - 1]


def position_terms(query: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Terms h (B, heads, H, W, KH) and w (B, heads, H, W, KW) of ``query`` (B, heads, H, W, D), unscaled.

    ``rows`` (H, KH, D) and ``columns`` (W, KW, D) are relative tables.
    """
    by_row = torch.einsum("bnhwc,hkc->bnhwk", query, rows)
    by_column = torch.einsum("bnhwc,wkc->bnhwk", query, columns)
    return by_row, by_column


def filled_logit(by_row: Tensor, by_column: Tensor, height: int, width: int) -> Tensor:
    """log of the sum of exp(h + w) over the places outside ``height`` x ``width``; (B, heads, H, W, 1).

    The outside is two disjoint rectangles: all of the rows below, and what is right of the real rows.
    """
    parts = []
    if height < by_row.shape[-1]:
        parts.append(by_row[..., height:].logsumexp(-1) + by_column.logsumexp(-1))
    if width < by_column.shape[-1]:
        parts.append(by_row[..., :height].logsumexp(-1) + by_column[..., width:].logsumexp(-1))
    return (parts[0] if len(parts) == 1 else torch.logaddexp(*parts)).unsqueeze(-1)


def key_codes(height: int, width: int, size: int, like: Tensor) -> Tensor:
    """Codes (keys, ``size``) of ``height`` x ``width`` keys, a one for the row and a one for the column.

    Where ``like`` has one key more, that one stands for the filled places and has a third kind of one.
    """
    ones = torch.eye(size, dtype=like.dtype, device=like.device)
    place = torch.arange(height * width, device=like.device)
    codes = ones[place // width] + ones[height + place % width]
    if like.shape[-2] > len(codes):
        codes = torch.cat([codes, ones[height + width, None]])
    return codes


def attend(qkv: Tensor, rows: Tensor, columns: Tensor, bias: Tensor) -> Tensor:
    """Attention inside blocks of ``H`` x ``W`` real tokens.

    ``qkv`` (3, B, heads, H, W, D). ``rows`` (H, KH, D) and ``columns`` (W, KW, D): relative tables over the whole
    window; where KH > H or KW > W the rest is filled with tokens whose qkv is ``bias`` (3, heads, D).
    Returns (B, heads, H * W, D).
    """
    query, keys_values = qkv[0], qkv[1:].flatten(3, 4)
    batch, heads, height, width, size = query.shape
    by_row, by_column = position_terms(query, rows, columns)
    terms = [query * size**-0.5, by_row[..., :height], by_column[..., :width]]
    if (height, width) != (rows.shape[1], columns.shape[1]):
        terms.append(filled_logit(by_row, by_column, height, width))
        filled = bias[1:, None, :, None].to(qkv.dtype).expand(-1, batch, -1, -1, -1)
        keys_values = torch.cat([keys_values, filled], 3)
    key, value = keys_values.unbind(0)
    spare = -sum(term.shape[-1] for term in terms) % ALIGNMENT
    queries = torch.cat([*terms, query.new_zeros(1).expand(*query.shape[:-1], spare)], -1).flatten(2, 3)
    codes = key_codes(height, width, queries.shape[-1] - size, key)
    keys = torch.cat([key, codes.expand(batch, heads, -1, -1)], -1)
    if value.device.type == "cpu":  # its fused kernel wants values as wide as keys
        value = functional.pad(value, (0, codes.shape[1]))
    out = functional.scaled_dot_product_attention(queries, keys, value, scale=1.0)
    return out[..., :size]


class Attention(nn.Module):
    """Multi-head self-attention of a grid of tokens, inside windows of ``window`` tokens or over all (window 0).

    ``grid``: rows and columns of the grid that it is built for (a square). ``lora_rank``: 0 for none.
    """

    def __init__(self, dim: int, heads: int, grid: int, window: int, lora_rank: int = 0) -> None:
        super().__init__()
        self.heads = heads
        self.window = window
        side = window or grid
        self.qkv = LoraQkv(dim, lora_rank) if lora_rank else nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * side - 1, dim // heads))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * side - 1, dim // heads))

    def forward(self, x: Tensor) -> Tensor:
        """x (B, H, W, C) -> (B, H, W, C)."""
        qkv = torch.unflatten(self.qkv(x), -1, (3, self.heads, -1))
        bands = []
        for top, bottom, rows in self._cuts(x.shape[1]):
            cuts = self._cuts(x.shape[2])
            band = [
                self._block(qkv[:, top:bottom, left:right], rows, columns) for left, right, columns in cuts
            ]
            bands.append(torch.cat(band, 2))
        out: Tensor = self.proj(torch.cat(bands, 1))
        return out

    def _cuts(self, length: int) -> list[tuple[int, int, int]]:
        """(start, stop, real tokens a window) of the stretch of whole windows and of the cut-off one behind it."""
        side = self.window or length
        whole = length - length % side
        cuts = [(0, whole, side), (whole, length, length - whole)]
        return [cut for cut in cuts if cut[0] < cut[1]]

    def _block(self, qkv: Tensor, height: int, width: int) -> Tensor:
        """Attention of windows with ``height`` x ``width`` real tokens: (B, h, w, 3, heads, D) -> (B, h, w, C)."""
        batch, high, wide, _, heads, size = qkv.shape
        down, across = high // height, wide // width
        qkv = qkv.reshape(batch, down, height, across, width, 3, heads, size)
        qkv = qkv.permute(5, 0, 1, 3, 6, 2, 4, 7).flatten(1, 3)
        rows = relative_table(self.rel_pos_h, height, self.window or height)
        columns = relative_table(self.rel_pos_w, width, self.window or width)
        out = attend(qkv, rows, columns, self.qkv.bias.view(3, heads, size))
        out = out.reshape(batch, down, across, heads, height, width, size).permute(0, 1, 4, 2, 5, 3, 6)
        return out.reshape(batch, high, wide, heads * size)
