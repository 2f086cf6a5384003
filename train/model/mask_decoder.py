"""SAM's mask decoder: embeddings to mask logits and predicted IoU (Kirillov et al., arXiv 2304.02643, appendix A)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medcurate.train.model.layers import MLP, Doubling, LayerNorm2d, woven
from medcurate.train.model.transformer import TwoWayTransformer

CLEAR, AMBIGUOUS, ALL = slice(0, 1), slice(1, None), slice(None)
"""Which of the four masks are wanted."""


class MaskDecoder(nn.Module):
    """Four masks a prompt: one for a clear prompt, three for an ambiguous one."""

    def __init__(self, dim: int, depth: int, heads: int, hidden: int, iou_hidden: int) -> None:
        super().__init__()
        self.transformer = TwoWayTransformer(dim, depth, heads, hidden)
        self.masks = 4
        self.iou_token = nn.Embedding(1, dim)
        self.mask_tokens = nn.Embedding(self.masks, dim)
        self.output_upscaling = nn.Sequential(
            Doubling(dim, dim // 4),
            LayerNorm2d(dim // 4),
            nn.GELU(),
            Doubling(dim // 4, dim // 8),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(MLP(dim, dim, dim // 8, 3) for _ in range(self.masks))
        self.iou_prediction_head = MLP(dim, iou_hidden, self.masks, 3)

    def forward(
        self,
        image: Tensor,
        image_pe: Tensor,
        sparse: Tensor,
        dense: Tensor,
        image_of_prompt: Tensor,
        chosen: slice,
    ) -> tuple[Tensor, Tensor]:
        """Mask logits (N, M, 4h, 4w) and predicted IoU (N, M) of the M masks ``chosen`` of the four.

        ``image`` (B, C, h, w) embeddings, ``image_pe`` (1, C, h, w), ``sparse`` (N, T, C), ``dense`` (N or 1, C, h, w),
        ``image_of_prompt`` int64 (N,): the row of ``image`` that each prompt is about.
        """
        height, width = image.shape[-2:]
        image, image_pe, dense = (x.flatten(2).transpose(1, 2) for x in (image, image_pe, dense))
        rows: Tensor | None = image_of_prompt
        if dense.shape[0] > 1:
            image, rows = image.index_select(0, image_of_prompt), None
        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight]).expand(sparse.shape[0], -1, -1)
        tokens, image = self.transformer(image + dense, image_pe, torch.cat([own, sparse], 1), rows)
        # All four are computed, so that each has a gradient (of zero) as in the original whatever is chosen.
        kernels = torch.stack(
            [mlp(tokens[:, 1 + i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)], 1
        )
        logits = self._logits(image, kernels[:, chosen], height, width)
        return logits, self.iou_prediction_head(tokens[:, 0])[:, chosen]

    def _logits(self, image: Tensor, kernels: Tensor, height: int, width: int) -> Tensor:
        """(N, L, C) upscaled four times and multiplied with (N, M, C/8) -> (N, M, 4h, 4w)."""
        fine = self.output_upscaling(image)  # (N, L, 2, 2, 2, 2, C/8)
        # In this order the gradient of the pixels, the largest there is, lies in memory as they do.
        logits = (fine.flatten(1, -2) @ kernels.transpose(1, 2)).transpose(1, 2)
        return woven(torch.unflatten(logits, -1, (height, width, 2, 2, 2, 2)))
