"""The two-way transformer of SAM's mask decoder (Kirillov et al., arXiv 2304.02643, appendix A).

The image's tokens stay one row an image until the first layer has made them differ between prompts: what is projected
from them before is computed once an image and repeated as the narrower projection.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from medcurate.train.model.layers import MLPBlock


class TokenAttention(nn.Module):
    """Attention in ``dim // narrowing`` channels between two sets of tokens."""

    def __init__(self, dim: int, heads: int, narrowing: int = 1) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(dim, dim // narrowing)
        self.k_proj = nn.Linear(dim, dim // narrowing)
        self.v_proj = nn.Linear(dim, dim // narrowing)
        self.out_proj = nn.Linear(dim // narrowing, dim)

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        query_rows: Tensor | None = None,
        key_rows: Tensor | None = None,
    ) -> Tensor:
        """q (N, Lq, C), k and v (N, Lk, C) -> (N, Lq, C).

        ``query_rows`` or ``key_rows`` (N,): where that side has one row an image, which of them each prompt takes.
        """
        query = _taken(self.q_proj(q), query_rows)
        key, value = _taken(self.k_proj(k), key_rows), _taken(self.v_proj(v), key_rows)
        query, key, value = (self._heads(x) for x in (query, key, value))
        out = functional.scaled_dot_product_attention(query, key, value)
        mixed: Tensor = self.out_proj(out.transpose(1, 2).flatten(2))
        return mixed

    def _heads(self, x: Tensor) -> Tensor:
        """(N, L, heads * D) -> (N, heads, L, D)."""
        return x.view(x.shape[0], x.shape[1], self.heads, x.shape[2] // self.heads).transpose(1, 2)


def _taken(x: Tensor, rows: Tensor | None) -> Tensor:
    return x if rows is None else x.index_select(0, rows)


class TwoWayBlock(nn.Module):
    """Self-attention of the tokens, tokens to image, MLP on the tokens, image to tokens."""

    def __init__(self, dim: int, heads: int, hidden: int, *, first: bool) -> None:
        super().__init__()
        self.self_attn = TokenAttention(dim, heads)
        self.norm1 = nn.LayerNorm(dim)
        self.cross_attn_token_to_image = TokenAttention(dim, heads, narrowing=2)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = MLPBlock(dim, hidden, nn.ReLU)
        self.norm3 = nn.LayerNorm(dim)
        self.norm4 = nn.LayerNorm(dim)
        self.cross_attn_image_to_token = TokenAttention(dim, heads, narrowing=2)
        self.first = first

    def forward(
        self, tokens: Tensor, image: Tensor, token_pe: Tensor, image_pe: Tensor, rows: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """tokens (N, T, C) and image (N or, with ``rows``, B; L, C) -> both with one row a prompt."""
        if self.first:
            tokens = self.self_attn(tokens, tokens, tokens)
        else:
            placed = tokens + token_pe
            tokens = tokens + self.self_attn(placed, placed, tokens)
        tokens = self.norm1(tokens)
        placed_image = image + image_pe
        attended = self.cross_attn_token_to_image(tokens + token_pe, placed_image, image, key_rows=rows)
        tokens = self.norm2(tokens + attended)
        tokens = self.norm3(tokens + self.mlp(tokens))
        attended = self.cross_attn_image_to_token(placed_image, tokens + token_pe, tokens, query_rows=rows)
        return tokens, self.norm4(_taken(image, rows) + attended)


class TwoWayTransformer(nn.Module):
    """``depth`` blocks and a last look of the tokens at the image."""

    def __init__(self, dim: int, depth: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TwoWayBlock(dim, heads, hidden, first=i == 0) for i in range(depth))
        self.final_attn_token_to_image = TokenAttention(dim, heads, narrowing=2)
        self.norm_final_attn = nn.LayerNorm(dim)

    def forward(
        self, image: Tensor, image_pe: Tensor, tokens: Tensor, rows: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """image (N or, with ``rows`` (N,), B; L, C), image_pe (1, L, C), tokens (N, T, C) -> tokens and image, of N."""
        token_pe = tokens
        for layer in self.layers:
            tokens, image = layer(tokens, image, token_pe, image_pe, rows)
            rows = None
        attended = self.final_attn_token_to_image(tokens + token_pe, image + image_pe, image)
        return self.norm_final_attn(tokens + attended), image
