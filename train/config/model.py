"""``[model]``: which network, from which weights, and which of its parts learn."""

from __future__ import annotations

from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import Field, model_validator

from medcurate.tables import Strict

Count = Annotated[int, Field(ge=1)]
Part = Literal["adapters", "prompt-encoder", "mask-decoder", "image-encoder"]

PATCH = 16
"""Pixels per side of a token: embeddings are S/16 x S/16 and low-resolution logits S/4 x S/4."""


class Dims(Strict):
    """The numbers of a SAM. Widths in channels; ``window`` in tokens. Source: segment-anything, build_sam.py."""

    width: Count
    depth: Count
    heads: Count
    global_blocks: tuple[Annotated[int, Field(ge=0)], ...]  # which blocks attend to all tokens, from 0
    window: Count = 14
    mlp_ratio: Count = 4
    prompt_width: Annotated[int, Field(ge=8, multiple_of=8)] = 256
    mask_channels: Annotated[int, Field(ge=4, multiple_of=4)] = 16
    decoder_depth: Count = 2
    decoder_heads: Count = 8
    decoder_mlp: Count = 2048
    iou_hidden: Count = 256

    @model_validator(mode="after")
    def _divides(self) -> Dims:
        if self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads, not {self.width} of {self.heads}")
        if (self.prompt_width // 2) % self.decoder_heads:
            raise ValueError(
                "half of prompt_width must be a multiple of decoder_heads, "
                f"not {self.prompt_width // 2} of {self.decoder_heads}"
            )
        if any(block >= self.depth for block in self.global_blocks):
            raise ValueError(f"global_blocks must be below depth, {self.depth}; given: {self.global_blocks}")
        return self


KINDS = MappingProxyType({
    "vit-b": Dims(width=768, depth=12, heads=12, global_blocks=(2, 5, 8, 11)),
    "vit-l": Dims(width=1024, depth=24, heads=16, global_blocks=(5, 11, 17, 23)),
    "vit-h": Dims(width=1280, depth=32, heads=16, global_blocks=(7, 15, 23, 31)),
    "tiny": Dims(
        width=96, depth=4, heads=4, global_blocks=(1, 3), window=5,
        prompt_width=64, mask_channels=8, decoder_heads=4, decoder_mlp=256, iou_hidden=64,
    ),
})  # fmt: skip


class ModelTable(Strict):
    """``[model]``. ``trainable`` is declared, never implied."""

    kind: Literal["vit-b", "vit-l", "vit-h", "tiny"] = "vit-b"
    dims: Dims | None = None  # in place of those of ``kind``
    image_side: Annotated[int, Field(ge=PATCH, multiple_of=PATCH)] = 256  # pixels
    checkpoint: str = ""  # path of .pth or .safetensors; empty: random weights
    adapter: Literal["none", "sam-med2d", "lora"] = "none"
    frozen_random: bool = False  # parts that do not learn may keep random weights
    lora_rank: Count = 4
    trainable: Annotated[tuple[Part, ...], Field(min_length=1)]
    channel_order: Literal["rgb", "bgr"] = "rgb"  # in which order channels meet SAM's statistics of RGB
    train_point_embeddings: bool = True  # those of "inside", "outside" and "no point"
    reinitialise_heads: bool = (
        False  # leave out mask tokens, hypernetworks and IoU head of SAM's own checkpoints
    )

    @property
    def numbers(self) -> Dims:
        """``dims``, or those of ``kind``."""
        return self.dims or KINDS[self.kind]

    @model_validator(mode="after")
    def _adapters(self) -> ModelTable:
        if "adapters" in self.trainable and self.adapter == "none":
            raise ValueError('trainable names "adapters", and adapter is "none"')
        return self
