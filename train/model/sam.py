"""The whole model: images and prompts to mask logits."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Literal

import torch
from torch import Tensor, nn

from medcurate.train.model.image_encoder import ImageEncoder
from medcurate.train.model.mask_decoder import AMBIGUOUS, CLEAR, MaskDecoder
from medcurate.train.model.prompt_encoder import PromptEncoder
from medcurate.train.types import Prompts

PIXEL_MEAN = (123.675, 116.28, 103.53)  # of ImageNet, RGB, range 0 to 255
PIXEL_STD = (58.395, 57.12, 57.375)

ChannelOrder = Literal["rgb", "bgr"]
Precision = Literal["fp32", "bf16"]


class Sam(nn.Module):
    """Segment Anything (Kirillov et al., arXiv 2304.02643) for square frames of ``side`` pixels.

    ``channel_order``: what the encoder sees. Images are always RGB; "bgr" reverses their channels and still applies the
    statistics of RGB, as the published SAM-Med2D did in training, so its weights expect it.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self, image_encoder: ImageEncoder, prompt_encoder: PromptEncoder, mask_decoder: MaskDecoder,
        *, side: int, channel_order: ChannelOrder = "rgb",
    ) -> None:  # fmt: skip
        super().__init__()
        self.image_encoder = image_encoder
        self.prompt_encoder = prompt_encoder
        self.mask_decoder = mask_decoder
        self.side = side
        self.channel_order = channel_order
        self.precision: Precision = "fp32"
        self.register_buffer("pixel_mean", torch.tensor(PIXEL_MEAN).view(-1, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(PIXEL_STD).view(-1, 1, 1), persistent=False)

    def configure(
        self, *, precision: Precision = "fp32", compiled: bool = False, recompute: bool = False
    ) -> None:
        """Switches of a run that change no parameter name.

        ``precision`` "bf16": parameters stay float32, products are taken in bfloat16 (autocast); results are float32.
        ``compiled``: ``torch.compile`` encoder and decoder at their first call. ``recompute``: keep the activations of
        one encoder block at a time and compute them again in the backward pass.
        """
        self.precision = precision
        self.image_encoder.recompute = recompute
        if compiled:
            self.image_encoder.compile()
            self.mask_decoder.compile()

    def _cast(self) -> AbstractContextManager[None]:
        device = self.pixel_mean.device.type
        return torch.autocast(device, torch.bfloat16, enabled=self.precision == "bf16")

    def normalised(self, images: Tensor) -> Tensor:
        """uint8 RGB (B, 3, S, S) -> float32 of mean 0 and deviation 1 over ImageNet, in the encoder's channel order."""
        if self.channel_order == "bgr":
            images = images.flip(1)
        return (images.to(self.pixel_mean.dtype) - self.pixel_mean) / self.pixel_std

    def encode(self, images: Tensor) -> Tensor:
        """uint8 RGB (B, 3, S, S) -> float32 embeddings (B, C, S/16, S/16).

        Raises ValueError when the images are not of the side that the model was built for.
        """
        if images.shape[1:] != (3, self.side, self.side):
            raise ValueError(
                f"images of shape {tuple(images.shape)}: the model takes (B, 3, {self.side}, {self.side})"
            )
        with self._cast():
            out: Tensor = self.image_encoder(self.normalised(images))
        return out.to(self.pixel_mean.dtype)

    def decode(
        self, embeddings: Tensor, image_of_prompt: Tensor, prompts: Prompts, multimask: bool
    ) -> tuple[Tensor, Tensor]:
        """Masks of N prompts on B images in one pass.

        ``embeddings`` float (B, C, S/16, S/16); ``image_of_prompt`` int64 (N,): which image each prompt is about.
        Returns float32 mask logits (N, M, S/4, S/4) and predicted IoU (N, M), with M = 3 if ``multimask``, else 1.
        Raises ValueError when there is no prompt, or their number is not that of ``image_of_prompt``.
        """
        with self._cast():
            sparse, dense = self.prompt_encoder(prompts)
            if len(sparse) != len(image_of_prompt):
                raise ValueError(
                    f"{len(sparse)} prompts for {len(image_of_prompt)} entries of image_of_prompt"
                )
            positions = self.prompt_encoder.dense_positions()
            chosen = AMBIGUOUS if multimask else CLEAR
            logits, iou = self.mask_decoder(embeddings, positions, sparse, dense, image_of_prompt, chosen)
        return logits.to(self.pixel_mean.dtype), iou.to(self.pixel_mean.dtype)
