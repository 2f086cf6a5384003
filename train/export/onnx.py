"""Encoder and decoder as ONNX files, for runtimes without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medcurate.commit import committed_path
from medcurate.train.model.mask_decoder import ALL
from medcurate.train.model.sam import Sam

OPSET = 18


class _Encoder(nn.Module):
    def __init__(self, sam: Sam) -> None:
        super().__init__()
        self.sam = sam

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.sam.image_encoder(self.sam.normalised(images))
        return out


class _Decoder(nn.Module):
    def __init__(self, sam: Sam) -> None:
        super().__init__()
        self.sam = sam

    def forward(  # the inputs of the file
        self, embeddings: Tensor, image_of_prompt: Tensor, points: Tensor, point_kinds: Tensor, mask_logits: Tensor,
        has_mask: Tensor,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        prompts = self.sam.prompt_encoder
        sparse = prompts.at(points, point_kinds)
        dense = torch.where(has_mask.view(-1, 1, 1, 1), prompts.dense(mask_logits), prompts.dense(None))
        out: tuple[Tensor, Tensor] = self.sam.mask_decoder(
            embeddings, prompts.dense_positions(), sparse, dense, image_of_prompt, ALL
        )
        return out


def export_encoder(sam: Sam, path: str | Path) -> None:
    """Write ``path``: ``images`` uint8 RGB (B, 3, S, S) -> ``embeddings`` float32 (B, C, S/16, S/16); B is free."""
    images = torch.zeros(2, 3, sam.side, sam.side, dtype=torch.uint8)
    shapes = {"images": {0: torch.export.Dim("images")}}
    _write(_Encoder(sam), {"images": images}, ["embeddings"], shapes, Path(path))


def export_decoder(sam: Sam, path: str | Path) -> None:
    """Write ``path``, from the embeddings of B images and N prompts with P points each (all free) to four masks.

    ``embeddings`` float32 (B, C, S/16, S/16); ``image_of_prompt`` int64 (N,); ``points`` float32 (N, P, 2) as (x, y)
    in the model's frame; ``point_kinds`` int64 (N, P): 1 inside, 0 outside, 2 and 3 the upper left and lower right
    corner of a box, -1 no point (one is due after points without a box; a mask alone has P = 0); ``mask_logits``
    float32 (N, 1, S/4, S/4), used where ``has_mask`` bool (N,). Results: ``logits`` (N, 4, S/4, S/4) and ``iou``
    (N, 4): first the mask of a clear prompt, then the three of an ambiguous one.
    """
    grid, width = sam.prompt_encoder.grid, sam.prompt_encoder.no_mask_embed.embedding_dim
    inputs = {
        "embeddings": torch.zeros(2, width, grid, grid),
        "image_of_prompt": torch.tensor([0, 1, 1]),
        "points": torch.zeros(3, 2, 2),
        "point_kinds": torch.tensor([[1, -1], [0, -1], [2, 3]]),
        "mask_logits": torch.zeros(3, 1, 4 * grid, 4 * grid),
        "has_mask": torch.tensor([True, False, False]),
    }
    image, prompt, point = (torch.export.Dim(name) for name in ("images", "prompts", "points"))
    shapes = {
        "embeddings": {0: image}, "image_of_prompt": {0: prompt}, "points": {0: prompt, 1: point},
        "point_kinds": {0: prompt, 1: point}, "mask_logits": {0: prompt}, "has_mask": {0: prompt},
    }  # fmt: skip
    _write(_Decoder(sam), inputs, ["logits", "iou"], shapes, Path(path))


def _write(
    module: nn.Module, inputs: dict[str, Tensor], outputs: list[str], shapes: dict[str, Any], path: Path
) -> None:
    """Trace ``module`` where its weights are and commit the file; they are inside it."""
    device = next(module.parameters()).device
    inputs = {name: value.to(device) for name, value in inputs.items()}
    with committed_path(path) as temporary, torch.no_grad():
        torch.onnx.export(
            module, kwargs=inputs, f=temporary, input_names=list(inputs), output_names=outputs, opset_version=OPSET,
            dynamic_shapes=shapes, dynamo=True, external_data=False, verbose=False,
        )  # fmt: skip
