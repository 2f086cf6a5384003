"""SAM with SAM-Med2D's adapters written the straightforward way: what ``medcurate.train.model`` is measured against.

Windows are padded and every token of them computed, attention is a matrix in memory, convolutions are convolutions,
and image embeddings are repeated for every mask. Written from the papers (arXiv 2304.02643, 2308.16184); parameter
names are the published ones, so that both models take the same state dict.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

from medcurate.train.config.model import PATCH, Dims

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


class ChannelNorm(nn.Module):
    """Layer norm over axis 1, from mean and variance."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x):
        centred = x - x.mean(1, keepdim=True)
        x = centred / (centred.square().mean(1, keepdim=True) + 1e-6).sqrt()
        return x * self.weight[:, None, None] + self.bias[:, None, None]


class TwoLayers(nn.Module):
    def __init__(self, width: int, hidden: int, act: nn.Module) -> None:
        super().__init__()
        self.lin1, self.lin2, self.act = nn.Linear(width, hidden), nn.Linear(hidden, width), act

    def forward(self, x):
        return self.lin2(self.act(self.lin1(x)))


class Layers(nn.Module):
    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, x):
        for layer in self.layers[:-1]:
            x = layer(x).relu()
        return self.layers[-1](x)


class WindowAttention(nn.Module):
    def __init__(self, width: int, heads: int, side: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * side - 1, width // heads))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * side - 1, width // heads))

    def forward(self, x):
        """x (B, s, s, C): all tokens of a window, or of the image."""
        batch, side, _, width = x.shape
        qkv = self.qkv(x).reshape(batch, side * side, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).flatten(1, 2)
        distance = (
            torch.arange(side, device=x.device)[:, None] - torch.arange(side, device=x.device) + side - 1
        )
        grid = query.view(-1, side, side, query.shape[-1])
        rows = torch.einsum("nhwc,hkc->nhwk", grid, self.rel_pos_h[distance])
        columns = torch.einsum("nhwc,wkc->nhwk", grid, self.rel_pos_w[distance])
        logits = (query / math.sqrt(query.shape[-1])) @ key.transpose(1, 2)
        logits = logits.view(-1, side, side, side, side) + rows[..., None] + columns[..., None, :]
        out = logits.view(-1, side * side, side * side).softmax(-1) @ value
        out = (
            out
            .view(batch, self.heads, side, side, -1)
            .permute(0, 2, 3, 1, 4)
            .reshape(batch, side, side, width)
        )
        return self.proj(out)


class PlainAdapter(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.channel = nn.Sequential(
            nn.Linear(width, width // 4, bias=False),
            nn.ReLU(),
            nn.Linear(width // 4, width, bias=False),
            nn.Sigmoid(),
        )
        self.spatial = nn.Sequential(
            nn.Conv2d(width, width, 3, stride=2, padding=1, bias=False), nn.ReLU(),
            nn.ConvTranspose2d(width, width, 4, stride=2, padding=1, bias=False), nn.ReLU(),
        )  # fmt: skip
        self.norm = nn.LayerNorm(width)

    def forward(self, x):
        x = x.permute(0, 3, 1, 2)
        gate = self.channel(functional.adaptive_avg_pool2d(x, 1).flatten(1))[:, :, None, None]
        return self.norm((x + self.spatial(gate * x)).permute(0, 2, 3, 1))


class PlainBlock(nn.Module):
    def __init__(self, dims: Dims, grid: int, window: int, adapter: bool) -> None:
        super().__init__()
        self.window = window
        self.norm1, self.norm2 = nn.LayerNorm(dims.width, eps=1e-6), nn.LayerNorm(dims.width, eps=1e-6)
        self.attn = WindowAttention(dims.width, dims.heads, window or grid)
        self.mlp = TwoLayers(dims.width, dims.width * dims.mlp_ratio, nn.GELU())
        self.Adapter = PlainAdapter(dims.width) if adapter else None

    def forward(self, x):
        x = x + self._attended(self.norm1(x))
        normed = self.norm2(x)
        x = x + self.mlp(normed)
        return x if self.Adapter is None else x + self.Adapter(normed)

    def _attended(self, x):
        if not self.window:
            return self.attn(x)
        batch, grid, _, width = x.shape
        many = -(-grid // self.window)
        spare = many * self.window - grid
        x = functional.pad(x, (0, 0, 0, spare, 0, spare))
        x = x.view(batch, many, self.window, many, self.window, width).transpose(2, 3)
        x = self.attn(x.reshape(-1, self.window, self.window, width))
        x = x.view(batch, many, many, self.window, self.window, width).transpose(2, 3)
        return x.reshape(batch, grid + spare, grid + spare, width)[:, :grid, :grid]


class Patches(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, PATCH, stride=PATCH)

    def forward(self, x):
        return self.proj(x).permute(0, 2, 3, 1)


class PlainEncoder(nn.Module):
    def __init__(self, dims: Dims, side: int, adapter: bool) -> None:
        super().__init__()
        grid, out = side // PATCH, dims.prompt_width
        self.patch_embed = Patches(dims.width)
        self.pos_embed = nn.Parameter(torch.zeros(1, grid, grid, dims.width))
        self.blocks = nn.ModuleList(
            PlainBlock(dims, grid, 0 if i in dims.global_blocks else dims.window, adapter)
            for i in range(dims.depth)
        )
        self.neck = nn.Sequential(
            nn.Conv2d(dims.width, out, 1, bias=False), ChannelNorm(out),
            nn.Conv2d(out, out, 3, padding=1, bias=False), ChannelNorm(out),
        )  # fmt: skip

    def forward(self, x):
        x = self.patch_embed(x) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.neck(x.permute(0, 3, 1, 2))


class Fourier(nn.Module):
    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, features))

    def forward(self, xy):
        angles = 2 * math.pi * ((2 * xy - 1) @ self.positional_encoding_gaussian_matrix)
        return torch.cat([angles.sin(), angles.cos()], -1)


class PlainPromptEncoder(nn.Module):
    def __init__(self, dims: Dims, side: int) -> None:
        super().__init__()
        width, mid = dims.prompt_width, dims.mask_channels
        self.side = side
        self.pe_layer = Fourier(width // 2)
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, width) for _ in range(4))
        self.not_a_point_embed, self.no_mask_embed = nn.Embedding(1, width), nn.Embedding(1, width)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, mid // 4, 2, stride=2), ChannelNorm(mid // 4), nn.GELU(),
            nn.Conv2d(mid // 4, mid, 2, stride=2), ChannelNorm(mid), nn.GELU(), nn.Conv2d(mid, width, 1),
        )  # fmt: skip

    def positions(self):
        grid = self.side // PATCH
        centres = (torch.arange(grid, device=self.no_mask_embed.weight.device) + 0.5) / grid
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        return self.pe_layer(torch.stack([x, y], -1)).permute(2, 0, 1)[None]

    def forward(self, count, points=None, labels=None, boxes=None, masks=None):
        width, device = self.no_mask_embed.embedding_dim, self.no_mask_embed.weight.device
        sparse = torch.zeros(count, 0, width, device=device)
        if points is not None:
            points = torch.cat([points, torch.zeros(count, 1, 2, device=device)], 1)
            labels = torch.cat([labels, -torch.ones(count, 1, dtype=labels.dtype, device=device)], 1)
            embedded = self.pe_layer((points + 0.5) / self.side)
            embedded[labels == -1] = 0.0
            for label, table in ((-1, self.not_a_point_embed), *enumerate(self.point_embeddings[:2])):
                embedded[labels == label] += table.weight
            sparse = torch.cat([sparse, embedded], 1)
        if boxes is not None:
            embedded = self.pe_layer((boxes.view(-1, 2, 2) + 0.5) / self.side)
            embedded[:, 0] += self.point_embeddings[2].weight
            embedded[:, 1] += self.point_embeddings[3].weight
            sparse = torch.cat([sparse, embedded], 1)
        if masks is not None:
            return sparse, self.mask_downscaling(masks)
        grid = self.side // PATCH
        return sparse, self.no_mask_embed.weight.view(1, -1, 1, 1).expand(count, -1, grid, grid)


class PlainAttention(nn.Module):
    def __init__(self, width: int, heads: int, narrowing: int = 1) -> None:
        super().__init__()
        self.heads, inner = heads, width // narrowing
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, inner) for _ in range(3))
        self.out_proj = nn.Linear(inner, width)

    def forward(self, q, k, v):
        q, k, v = (
            x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for x in (self.q_proj(q), self.k_proj(k), self.v_proj(v))
        )
        weights = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1)
        return self.out_proj((weights @ v).transpose(1, 2).flatten(2))


class PlainTwoWay(nn.Module):
    def __init__(self, dims: Dims, first: bool) -> None:
        super().__init__()
        width, heads = dims.prompt_width, dims.decoder_heads
        self.first = first
        self.self_attn = PlainAttention(width, heads)
        self.cross_attn_token_to_image = PlainAttention(width, heads, 2)
        self.cross_attn_image_to_token = PlainAttention(width, heads, 2)
        self.mlp = TwoLayers(width, dims.decoder_mlp, nn.ReLU())
        self.norm1, self.norm2, self.norm3, self.norm4 = (nn.LayerNorm(width) for _ in range(4))

    def forward(self, tokens, image, token_pe, image_pe):
        if self.first:
            tokens = self.norm1(self.self_attn(tokens, tokens, tokens))
        else:
            placed = tokens + token_pe
            tokens = self.norm1(tokens + self.self_attn(placed, placed, tokens))
        tokens = self.norm2(
            tokens + self.cross_attn_token_to_image(tokens + token_pe, image + image_pe, image)
        )
        tokens = self.norm3(tokens + self.mlp(tokens))
        image = self.norm4(
            image + self.cross_attn_image_to_token(image + image_pe, tokens + token_pe, tokens)
        )
        return tokens, image


class PlainTransformer(nn.Module):
    def __init__(self, dims: Dims) -> None:
        super().__init__()
        self.layers = nn.ModuleList(PlainTwoWay(dims, i == 0) for i in range(dims.decoder_depth))
        self.final_attn_token_to_image = PlainAttention(dims.prompt_width, dims.decoder_heads, 2)
        self.norm_final_attn = nn.LayerNorm(dims.prompt_width)

    def forward(self, image, image_pe, token_pe):
        tokens = token_pe
        for layer in self.layers:
            tokens, image = layer(tokens, image, token_pe, image_pe)
        attended = self.final_attn_token_to_image(tokens + token_pe, image + image_pe, image)
        return self.norm_final_attn(tokens + attended), image


class PlainDecoder(nn.Module):
    def __init__(self, dims: Dims) -> None:
        super().__init__()
        width = dims.prompt_width
        self.transformer = PlainTransformer(dims)
        self.iou_token, self.mask_tokens = nn.Embedding(1, width), nn.Embedding(4, width)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(width, width // 4, 2, stride=2), ChannelNorm(width // 4), nn.GELU(),
            nn.ConvTranspose2d(width // 4, width // 8, 2, stride=2), nn.GELU(),
        )  # fmt: skip
        self.output_hypernetworks_mlps = nn.ModuleList(
            Layers(width, width, width, width // 8) for _ in range(4)
        )
        self.iou_prediction_head = Layers(width, dims.iou_hidden, dims.iou_hidden, 4)

    def forward(self, image, image_pe, sparse, dense):
        """``image`` (N, C, h, w), already repeated; all three masks of an ambiguous prompt."""
        count, width, height, _ = image.shape
        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight]).expand(count, -1, -1)
        flat = (image + dense).flatten(2).transpose(1, 2)
        pe = image_pe.repeat(count, 1, 1, 1).flatten(2).transpose(1, 2)
        tokens, flat = self.transformer(flat, pe, torch.cat([own, sparse], 1))
        fine = self.output_upscaling(flat.transpose(1, 2).reshape(count, width, height, height))
        kernels = torch.stack(
            [mlp(tokens[:, 1 + i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)], 1
        )
        masks = (kernels @ fine.flatten(2)).view(count, 4, *fine.shape[2:])
        return masks[:, 1:], self.iou_prediction_head(tokens[:, 0])[:, 1:]


class PlainSam(nn.Module):
    """``adapter``: with SAM-Med2D's adapters. Takes the state dict of ``medcurate.train.model``'s model as it is."""

    def __init__(self, dims: Dims, side: int, adapter: bool) -> None:
        super().__init__()
        self.image_encoder = PlainEncoder(dims, side, adapter)
        self.prompt_encoder = PlainPromptEncoder(dims, side)
        self.mask_decoder = PlainDecoder(dims)
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1), persistent=False)

    def encode(self, images):
        """uint8 RGB (B, 3, S, S) -> (B, 256, S/16, S/16); the channels are turned as the published code does."""
        return self.image_encoder((images.flip(1) - self.mean) / self.std)
