"""SAM's image encoder: a plain vision transformer with windows (Kirillov et al., arXiv 2304.02643, appendix A)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from medcurate.train.model.adapter import Adapter
from medcurate.train.model.attention import Attention
from medcurate.train.model.layers import LayerNorm2d, MLPBlock, PatchConv, SameConv

NORM_EPS = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderDims:
    """Numbers of the encoder. ``side`` and ``patch`` in pixels, ``window`` in tokens, ``width``, ``hidden`` (of the
    MLPs) and ``out`` in channels; ``adapter``: that of SAM-Med2D in every block; ``lora_rank``: 0 for none."""

    side: int
    patch: int
    width: int
    depth: int
    heads: int
    hidden: int
    window: int
    global_blocks: tuple[int, ...]
    out: int
    adapter: bool = False
    lora_rank: int = 0


class Block(nn.Module):
    """x + attn(norm1(x)), then x + mlp(n) (+ Adapter(n)) with n = norm2(x)."""

    def __init__(self, dims: EncoderDims, grid: int, window: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dims.width, eps=NORM_EPS)
        self.attn = Attention(dims.width, dims.heads, grid, window, dims.lora_rank)
        self.norm2 = nn.LayerNorm(dims.width, eps=NORM_EPS)
        self.mlp = MLPBlock(dims.width, dims.hidden, nn.GELU)
        self.adapted = dims.adapter
        if dims.adapter:
            self.Adapter = Adapter(dims.width)  # the published name

    def forward(self, x: Tensor) -> Tensor:
        """x (B, H, W, C) -> (B, H, W, C)."""
        x = x + self.attn(self.norm1(x))
        normed = self.norm2(x)
        x = x + self.mlp(normed)
        return x + self.Adapter(normed) if self.adapted else x


class PatchEmbed(nn.Module):
    """Patches of ``patch`` x ``patch`` pixels to tokens: (B, 3, S, S) -> (B, S/patch, S/patch, C)."""

    def __init__(self, patch: int, dim: int) -> None:
        super().__init__()
        self.proj = PatchConv(3, dim, patch)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.proj(x.permute(0, 2, 3, 1))
        return out


class ImageEncoder(nn.Module):
    """(B, 3, S, S) normalised float -> (B, out, S/16, S/16), channel-last in memory.

    ``recompute``: forget the activations of a block and compute them again in the backward pass.
    """

    recompute = False

    def __init__(self, dims: EncoderDims) -> None:
        super().__init__()
        grid = dims.side // dims.patch
        self.patch_embed = PatchEmbed(dims.patch, dims.width)
        self.pos_embed = nn.Parameter(torch.zeros(1, grid, grid, dims.width))
        self.blocks = nn.ModuleList(
            Block(dims, grid, 0 if i in dims.global_blocks else dims.window) for i in range(dims.depth)
        )
        self.neck = nn.Sequential(
            PatchConv(dims.width, dims.out, 1, bias=False),
            LayerNorm2d(dims.out),
            SameConv(dims.out),
            LayerNorm2d(dims.out),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x) + self.pos_embed
        for block in self.blocks:
            again = self.recompute and torch.is_grad_enabled()
            x = checkpoint(block, x, use_reentrant=False) if again else block(x)
        out: Tensor = self.neck(x)
        return out.permute(0, 3, 1, 2)
