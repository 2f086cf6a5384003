"""Layers shared by the parts of SAM, all on channel-last tensors (batch, row, column, channel).

Convolutions whose kernels do not overlap are matrix products on channel-last data; parameters keep the names and
shapes of the convolutions that they are (``nn.Conv2d``, ``nn.ConvTranspose2d``), so that checkpoints fit.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional


class LayerNorm2d(nn.Module):
    """Layer norm over the channels, eps 1e-6; parameters as SAM names them, data channel-last (..., C)."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return functional.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


class MLPBlock(nn.Module):
    """Linear, activation, linear: (..., dim) -> (..., dim)."""

    def __init__(self, dim: int, hidden: int, activation: type[nn.Module]) -> None:
        super().__init__()
        self.lin1 = nn.Linear(dim, hidden)
        self.lin2 = nn.Linear(hidden, dim)
        self.act = activation()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.lin2(self.act(self.lin1(x)))
        return out


class MLP(nn.Module):
    """Linear layers with ReLU between them: (..., dim) -> (..., out)."""

    def __init__(self, dim: int, hidden: int, out: int, depth: int) -> None:
        super().__init__()
        widths = [dim, *[hidden] * (depth - 1), out]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = functional.relu(layer(x))
        out: Tensor = self.layers[-1](x)
        return out


class PatchConv(nn.Conv2d):
    """A convolution whose stride is its kernel, as one product: (B, H, W, C) -> (B, H/k, W/k, C')."""

    def __init__(self, channels: int, out: int, side: int, *, bias: bool = True) -> None:
        super().__init__(channels, out, kernel_size=side, stride=side, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        batch, height, width, channels = x.shape
        side = self.stride[0]
        x = x.reshape(batch, height // side, side, width // side, side, channels)
        x = x.permute(0, 1, 3, 5, 2, 4).flatten(3)
        return functional.linear(x, self.weight.flatten(1), self.bias)


class SameConv(nn.Conv2d):
    """A 3x3 convolution without bias that keeps the size: (B, H, W, C) -> (B, H, W, C)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, kernel_size=3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class Doubling(nn.ConvTranspose2d):
    """A 2x2 transposed convolution of stride 2 as one product: (..., C) -> (..., 2, 2, C').

    The four finer positions become two new axes (row, column) instead of being woven into the grid: what follows works
    position by position, so that weaving can wait until few channels are left (``woven``).
    """

    def __init__(self, channels: int, out: int) -> None:
        super().__init__(channels, out, kernel_size=2, stride=2)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        weight = self.weight.permute(2, 3, 1, 0).flatten(0, 2)  # (2 * 2 * C', C)
        bias = None if self.bias is None else self.bias.repeat(4)
        return torch.unflatten(functional.linear(x, weight, bias), -1, (2, 2, self.out_channels))


def woven(x: Tensor) -> Tensor:
    """(N, M, H, W, 2, 2, 2, 2) of two doublings, (row, column) each -> (N, M, 4H, 4W)."""
    count, channels, height, width = x.shape[:4]
    x = x.permute(0, 1, 2, 4, 6, 3, 5, 7)
    return x.reshape(count, channels, 4 * height, 4 * width)
