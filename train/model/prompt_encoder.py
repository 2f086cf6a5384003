"""SAM's prompt encoder: points, boxes and masks to embeddings (Kirillov et al., arXiv 2304.02643, appendix A)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from medcurate.train.model.layers import LayerNorm2d, PatchConv
from medcurate.train.types import Prompts


class PositionEmbeddingRandom(nn.Module):
    """Fourier features of positions with one random matrix, which is part of a checkpoint and never trained."""

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, features))

    def forward(self, positions: Tensor) -> Tensor:
        """``positions`` (..., 2) as (x, y) in [0, 1] of the frame -> (..., 2 * features), always in float32."""
        with torch.autocast(positions.device.type, enabled=False):
            angles = (2 * positions - 1) @ self.positional_encoding_gaussian_matrix * (2 * math.pi)
            return torch.cat([angles.sin(), angles.cos()], -1)


class PromptEncoder(nn.Module):
    """Prompts of N masks -> sparse (N, T, C) and dense (N or 1, C, S/16, S/16) embeddings.

    Coordinates are pixel indices of the model's frame; the centre of pixel 0 is 0.5 pixels from its border.
    """

    def __init__(self, dim: int, side: int, grid: int, mask_channels: int) -> None:
        super().__init__()
        self.side = side
        self.grid = grid
        self.pe_layer = PositionEmbeddingRandom(dim // 2)
        # outside, inside, upper left corner, lower right corner
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, dim) for _ in range(4))
        self.not_a_point_embed = nn.Embedding(1, dim)
        self.mask_downscaling = nn.Sequential(
            PatchConv(1, mask_channels // 4, 2),
            LayerNorm2d(mask_channels // 4),
            nn.GELU(),
            PatchConv(mask_channels // 4, mask_channels, 2),
            LayerNorm2d(mask_channels),
            nn.GELU(),
            PatchConv(mask_channels, dim, 1),
        )
        self.no_mask_embed = nn.Embedding(1, dim)

    def dense_positions(self) -> Tensor:
        """Position embedding of the image's tokens, (1, C, S/16, S/16)."""
        matrix = self.pe_layer.positional_encoding_gaussian_matrix
        centres = (torch.arange(self.grid, device=matrix.device, dtype=matrix.dtype) + 0.5) / self.grid
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        out: Tensor = self.pe_layer(torch.stack([x, y], -1))
        return out.permute(2, 0, 1).unsqueeze(0)

    def forward(self, prompts: Prompts) -> tuple[Tensor, Tensor]:
        """Sparse (N, T, C); T = P + 1 for points alone, 2 for a box, P + 2 for both, 0 for neither.

        Dense (N, C, S/16, S/16) from mask logits, or (1, C, S/16, S/16) where there are none.
        Raises ValueError when there is no prompt at all.
        """
        sparse = []
        if prompts.points is not None:
            sparse.append(self._points(prompts.points, prompts.point_labels, alone=prompts.boxes is None))
        if prompts.boxes is not None:
            sparse.append(self._boxes(prompts.boxes))
        if prompts.mask_logits is None and not sparse:
            raise ValueError("no prompt: give points, boxes or mask logits")
        if not sparse and prompts.mask_logits is not None:
            sparse.append(
                prompts.mask_logits.new_zeros(len(prompts.mask_logits), 0, self.no_mask_embed.embedding_dim)
            )
        return torch.cat(sparse, 1), self.dense(prompts.mask_logits)

    def _points(self, points: Tensor, labels: Tensor | None, *, alone: bool) -> Tensor:
        """(N, P, 2) and (N, P) -> (N, P, C), or (N, P + 1, C) with "no point" where no box follows."""
        if labels is None:
            raise ValueError("points without point_labels")
        if alone:
            points = torch.cat([points, points.new_zeros(len(points), 1, 2)], 1)
            labels = torch.cat([labels, labels.new_full((len(labels), 1), -1)], 1)
        return self.at(points, labels)

    def _boxes(self, boxes: Tensor) -> Tensor:
        """(N, 4) -> (N, 2, C), one embedding a corner."""
        corners = boxes.reshape(-1, 2, 2)
        return self.at(corners, torch.tensor([2, 3], device=boxes.device).expand(corners.shape[:2]))

    def at(self, points: Tensor, kinds: Tensor) -> Tensor:
        """(N, P, 2) and (N, P) -> (N, P, C); kinds: -1 no point, 0 outside, 1 inside, 2 and 3 a box's corners."""
        out: Tensor = self.pe_layer((points + 0.5) / self.side)
        kinds = kinds.unsqueeze(-1)
        out = torch.where(kinds == -1, self.not_a_point_embed.weight, out)
        for value, embedding in enumerate(self.point_embeddings.parameters()):
            out = torch.where(kinds == value, out + embedding, out)
        return out

    def dense(self, mask_logits: Tensor | None) -> Tensor:
        """Mask logits (N, 1, S/4, S/4) -> (N, C, S/16, S/16); (1, C, S/16, S/16) for None."""
        if mask_logits is None:
            return self.no_mask_embed.weight.reshape(1, -1, 1, 1).expand(1, -1, self.grid, self.grid)
        out: Tensor = self.mask_downscaling(mask_logits.permute(0, 2, 3, 1))
        return out.permute(0, 3, 1, 2)
