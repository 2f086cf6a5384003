"""The adapter of SAM-Med2D (Cheng et al., arXiv 2308.16184, section 3), parallel to a block's MLP."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Adapter(nn.Module):
    """norm(x + relu(up(relu(down(gate(x) * x))))), as state-dict names ``channel``, ``spatial`` and ``norm``.

    The gate is squeeze-and-excitation over the channels; ``down`` is a 3x3 convolution of stride 2, ``up`` a transposed
    4x4 convolution of stride 2, none with a bias.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        hidden = dim // 4
        self.channel = nn.Sequential(
            nn.Linear(dim, hidden, bias=False), nn.ReLU(), nn.Linear(hidden, dim, bias=False), nn.Sigmoid()
        )
        down = nn.Conv2d(dim, dim, 3, stride=2, padding=1, bias=False)
        up = nn.ConvTranspose2d(dim, dim, 4, stride=2, padding=1, bias=False)
        self.spatial = nn.Sequential(down, nn.ReLU(), up, nn.ReLU())
        self.norm = nn.LayerNorm(dim)
        for weight in [*self.channel.parameters(), down.weight, up.weight]:
            nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu")
        for layer in (down, up):
            # Kernel positions before channels in memory: a view is then the matrix of a product, and the GPU's
            # channel-last kernels take it as it is. Shape and name are those of the convolution.
            layer.weight = nn.Parameter(layer.weight.detach().contiguous(memory_format=torch.channels_last))

    def forward(self, x: Tensor) -> Tensor:
        """x (B, H, W, C) -> (B, H, W, C). An odd side loses what the upsampling adds behind its end."""
        gated = self.channel(x.mean((1, 2)))[:, None, None] * x
        down, up = (
            (down_by_product, up_by_product) if x.device.type == "cpu" else (down_by_kernel, up_by_kernel)
        )
        kernel, finer_kernel = self.spatial.parameters()
        fine = functional.relu(up(functional.relu(down(gated, kernel)), finer_kernel))
        out: Tensor = self.norm(x + fine[:, : x.shape[1], : x.shape[2]])
        return out


def down_by_kernel(x: Tensor, weight: Tensor) -> Tensor:
    """3x3 convolution, stride 2, padding 1: (B, H, W, C) -> (B, ceil(H/2), ceil(W/2), C')."""
    return functional.conv2d(x.permute(0, 3, 1, 2), weight, stride=2, padding=1).permute(0, 2, 3, 1)


def up_by_kernel(x: Tensor, weight: Tensor) -> Tensor:
    """Transposed 4x4 convolution, stride 2, padding 1: (B, H, W, C) -> (B, 2H, 2W, C')."""
    return functional.conv_transpose2d(x.permute(0, 3, 1, 2), weight, stride=2, padding=1).permute(0, 2, 3, 1)


def down_by_product(x: Tensor, weight: Tensor) -> Tensor:
    """``down_by_kernel`` as one product: a processor's convolution re-orders 21 MB of weights at every call."""
    height, width = x.shape[1] + x.shape[1] % 2, x.shape[2] + x.shape[2] % 2
    x = functional.pad(x, (0, 0, 1, width - x.shape[2] + 1, 1, height - x.shape[1] + 1))
    shifted = [x[:, i : i + height : 2, j : j + width : 2] for i in range(3) for j in range(3)]
    return functional.linear(torch.stack(shifted, 3).flatten(3), weight.permute(0, 2, 3, 1).flatten(1))


def up_by_product(x: Tensor, weight: Tensor) -> Tensor:
    """``up_by_kernel`` as one product and a sum of its 16 shifted parts."""
    batch, height, width, channels = x.shape
    matrix = weight.permute(0, 2, 3, 1).flatten(1)  # (C, 4 * 4 * C')
    parts = (x.reshape(-1, channels) @ matrix).view(batch, height, width, 4, 4, -1)
    rows = _interleaved(parts)  # (B, 2H, W, 4, C')
    return _interleaved(rows.transpose(1, 2)).transpose(1, 2)


def _interleaved(parts: Tensor) -> Tensor:
    """Sum what four kernel positions (axis 3) give to an axis 1 twice as long: position k of i lands on 2i + k - 1."""
    before, even, odd, after = parts.unbind(3)
    none = torch.zeros_like(even[:, :1])
    even = even + torch.cat([none, after[:, :-1]], 1)
    odd = odd + torch.cat([before[:, 1:], none], 1)
    return torch.stack([even, odd], 2).flatten(1, 2)
