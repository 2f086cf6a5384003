"""What the tests of the model share: small models with telling weights, and transformers' SAM with the same weights."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator

import torch
from torch import Tensor

from medcurate.train.config.model import Dims, ModelTable
from medcurate.train.model.build import build_sam
from medcurate.train.model.sam import Sam
from medcurate.train.types import Prompts

# transformers' SAM needs no torchvision, but imports what it finds, and fails if that was built for another torch.
sys.modules.setdefault("torchvision", None)  # type: ignore[arg-type]
from transformers import (  # noqa: E402
    SamConfig,
    SamMaskDecoderConfig,
    SamModel,
    SamPromptEncoderConfig,
    SamVisionConfig,
)

torch.set_num_threads(1)

SMALL = Dims(
    width=32, depth=3, heads=2, global_blocks=(1,), window=3,
    prompt_width=32, mask_channels=8, decoder_heads=4, decoder_mlp=64, iou_hidden=24,
)  # fmt: skip


def small_sam(side: int = 64, dims: Dims = SMALL, **facts: object) -> Sam:
    """A model whose every parameter is random, so that none can be left out unnoticed."""
    table = ModelTable.model_validate({
        "dims": dims,
        "image_side": side,
        "trainable": ("mask-decoder",),
        **facts,
    })
    return randomised(build_sam(table))


def randomised(sam: Sam) -> Sam:
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        sam.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix.normal_(generator=generator)
        for name, value in sam.named_parameters():
            noise = torch.randn(value.shape, generator=generator)
            if value.ndim > 1 and "embed" not in name and "token" not in name and "rel_pos" not in name:
                value.copy_(noise * value[0].numel() ** -0.5)
            else:
                value.copy_(noise * 0.3 + (1.0 if "norm" in name and name.endswith("weight") else 0.0))
    return sam


def images_of(count: int, side: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)


def prompts_of(count: int, side: int, kinds: str, dtype: torch.dtype = torch.float32) -> Prompts:
    """Random prompts; ``kinds`` holds p for points (some of them none), b for boxes, m for masks."""
    generator = torch.Generator().manual_seed(count)
    return Prompts(
        points=torch.rand(count, 3, 2, generator=generator, dtype=dtype) * side if "p" in kinds else None,
        point_labels=torch.randint(-1, 2, (count, 3), generator=generator) if "p" in kinds else None,
        boxes=torch.rand(count, 4, generator=generator, dtype=dtype) * side if "b" in kinds else None,
        mask_logits=torch.randn(count, 1, side // 4, side // 4, generator=generator, dtype=dtype) * 4
        if "m" in kinds
        else None,
    )


def twin_of(sam: Sam, dims: Dims) -> SamModel:
    """transformers' SAM with the weights of ``sam``.

    The two-way blocks' norms are given the original's eps, torch's 1e-5; transformers has 1e-6 there.
    """
    vision = SamVisionConfig(
        hidden_size=dims.width, num_hidden_layers=dims.depth, num_attention_heads=dims.heads,
        mlp_ratio=float(dims.mlp_ratio), window_size=dims.window, global_attn_indexes=list(dims.global_blocks),
        output_channels=dims.prompt_width, num_pos_feats=dims.prompt_width // 2, image_size=sam.side,
    )  # fmt: skip
    prompt = SamPromptEncoderConfig(
        hidden_size=dims.prompt_width, image_size=sam.side, mask_input_channels=dims.mask_channels
    )
    decoder = SamMaskDecoderConfig(
        hidden_size=dims.prompt_width, mlp_dim=dims.decoder_mlp, num_hidden_layers=dims.decoder_depth,
        num_attention_heads=dims.decoder_heads, iou_head_hidden_dim=dims.iou_hidden, layer_norm_eps=1e-5,
    )  # fmt: skip
    config = SamConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder)
    twin = SamModel._from_config(config, attn_implementation="sdpa")
    state = {theirs: value for name, value in sam.state_dict().items() for theirs in their_names(name)}
    twin.load_state_dict(state)
    return twin.to(sam.pixel_mean.dtype)


RENAMED = (
    (r"^image_encoder\.patch_embed\.proj\.", "vision_encoder.patch_embed.projection."),
    (r"^image_encoder\.blocks\.(\d+)\.norm([12])\.", r"vision_encoder.layers.\1.layer_norm\2."),
    (r"^image_encoder\.blocks\.", "vision_encoder.layers."),
    (r"^image_encoder\.neck\.0\.", "vision_encoder.neck.conv1."),
    (r"^image_encoder\.neck\.1\.", "vision_encoder.neck.layer_norm1."),
    (r"^image_encoder\.neck\.2\.", "vision_encoder.neck.conv2."),
    (r"^image_encoder\.neck\.3\.", "vision_encoder.neck.layer_norm2."),
    (r"^image_encoder\.", "vision_encoder."),
    (r"\.point_embeddings\.", ".point_embed."),
    (r"\.mask_downscaling\.0\.", ".mask_embed.conv1."),
    (r"\.mask_downscaling\.1\.", ".mask_embed.layer_norm1."),
    (r"\.mask_downscaling\.3\.", ".mask_embed.conv2."),
    (r"\.mask_downscaling\.4\.", ".mask_embed.layer_norm2."),
    (r"\.mask_downscaling\.6\.", ".mask_embed.conv3."),
    (r"\.output_upscaling\.0\.", ".upscale_conv1."),
    (r"\.output_upscaling\.1\.", ".upscale_layer_norm."),
    (r"\.output_upscaling\.3\.", ".upscale_conv2."),
    (r"\.norm_final_attn\.", ".layer_norm_final_attn."),
    (r"(transformer\.layers\.\d+)\.norm(\d)\.", r"\1.layer_norm\2."),
    (r"(_mlps\.\d+|_head)\.layers\.0\.", r"\1.proj_in."),
    (r"(_mlps\.\d+|_head)\.layers\.1\.", r"\1.layers.0."),
    (r"(_mlps\.\d+|_head)\.layers\.2\.", r"\1.proj_out."),
)


def their_names(name: str) -> Iterator[str]:
    """The names that transformers gives to a tensor of the original; the matrix of the positions has two."""
    if name.endswith("gaussian_matrix"):
        yield "shared_image_embedding.positional_embedding"
        yield "prompt_encoder.shared_embedding.positional_embedding"
        return
    for pattern, new in RENAMED:
        name = re.sub(pattern, new, name)
    yield name


def twin_decode(
    twin: SamModel, embeddings: Tensor, image_of_prompt: Tensor, prompts: Prompts, multimask: bool
) -> tuple[Tensor, Tensor]:
    """``Sam.decode`` by transformers, every prompt as an image of its own."""
    sparse, dense = twin.prompt_encoder(
        input_points=None if prompts.points is None else prompts.points[:, None],
        input_labels=None if prompts.point_labels is None else prompts.point_labels[:, None],
        input_boxes=None if prompts.boxes is None else prompts.boxes[:, None],
        input_masks=prompts.mask_logits,
    )
    positions = twin.get_image_wide_positional_embeddings().to(embeddings.dtype)
    count = len(image_of_prompt)
    logits, iou = twin.mask_decoder(
        image_embeddings=embeddings[image_of_prompt],
        image_positional_embeddings=positions.expand(count, -1, -1, -1),
        sparse_prompt_embeddings=sparse, dense_prompt_embeddings=dense, multimask_output=multimask,
    )  # fmt: skip
    return logits[:, 0], iou[:, 0]
