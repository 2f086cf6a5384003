"""Low-rank adaptation (Hu et al., arXiv 2106.09685) of the qkv projection."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class LoraQkv(nn.Linear):
    """weight + lora_b lora_a in place of weight: (..., C) -> (..., 3C).

    ``weight`` and ``bias`` keep their names. ``lora_a`` (rank, C) starts at random and ``lora_b`` (3C, rank) at zero as
    in the paper, so that nothing changes before the first step.
    """

    def __init__(self, dim: int, rank: int) -> None:
        super().__init__(dim, 3 * dim)
        self.lora_a = nn.Parameter(torch.empty(rank, dim))
        self.lora_b = nn.Parameter(torch.zeros(3 * dim, rank))
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        learnt = functional.linear(functional.linear(x, self.lora_a), self.lora_b)
        return functional.linear(x, self.weight, self.bias) + learnt

    def merged(self) -> Tensor:
        """The weight (3C, C) of a plain projection that computes the same."""
        return self.weight + self.lora_b @ self.lora_a
