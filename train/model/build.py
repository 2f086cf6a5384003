"""From the train recipe's ``[model]`` to a model, and which of its parameters learn."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import MappingProxyType

from medcurate.errors import ConfigError
from medcurate.train.config.model import PATCH, ModelTable
from medcurate.train.model.image_encoder import EncoderDims, ImageEncoder
from medcurate.train.model.mask_decoder import MaskDecoder
from medcurate.train.model.prompt_encoder import PromptEncoder
from medcurate.train.model.sam import Sam

_ADAPTER_MARKS = (".Adapter.", ".lora_")
POINT_EMBEDDINGS = ("point_embeddings.0.", "point_embeddings.1.", "not_a_point_embed.")
"""What the published SAM-Med2D re-creates at every call, so that it never learns."""

GROUPS: MappingProxyType[str, Callable[[str], bool]] = MappingProxyType({
    "adapters": lambda name: any(mark in name for mark in _ADAPTER_MARKS),
    "prompt-encoder": lambda name: name.startswith("prompt_encoder."),
    "mask-decoder": lambda name: name.startswith("mask_decoder."),
    "image-encoder": lambda name: (
        name.startswith("image_encoder.") and not any(mark in name for mark in _ADAPTER_MARKS)
    ),
})  # fmt: skip
"""Which parameters, by name, belong to a part that a recipe may name as trainable."""


@dataclass(frozen=True, slots=True)
class Trainable:
    """Numbers of parameters: those that learn, by group, and all."""

    by_group: dict[str, int]
    total: int

    @property
    def learning(self) -> int:
        return sum(self.by_group.values())

    def __str__(self) -> str:
        groups = ", ".join(f"{name} {count:,}" for name, count in self.by_group.items())
        return f"{self.learning:,} of {self.total:,} parameters learn ({groups})"


def require_weights(table: ModelTable) -> None:
    """Raise ConfigError where ``table`` names no checkpoint and a part that never learns would stay random.

    What learns beside it would learn to read noise. Adapters are no such part: published weights lack them.
    """
    frozen = [part for part in GROUPS if part != "adapters" and part not in table.trainable]
    if table.checkpoint or table.frozen_random or not frozen:
        return
    raise ConfigError(
        f"model.trainable leaves out {', '.join(frozen)}, which would keep random weights: no checkpoint is given. "
        "Give one by --checkpoint or model.checkpoint, such as sam_vit_b_01ec64.pth of SAM's authors for vit-b "
        "(medcurate downloads none); or state model.frozen_random = true if that is what you want."
    )


def build_sam(table: ModelTable) -> Sam:
    """The model of ``table`` with random weights (torch's generator decides them) and its parts marked as trainable.

    Weights of ``table.checkpoint`` are loaded by ``checkpoint.load_checkpoint``.
    """
    numbers, side = table.numbers, table.image_side
    encoder = ImageEncoder(
        EncoderDims(
            side=side, patch=PATCH, width=numbers.width, depth=numbers.depth, heads=numbers.heads,
            hidden=numbers.width * numbers.mlp_ratio, window=numbers.window, global_blocks=numbers.global_blocks,
            out=numbers.prompt_width, adapter=table.adapter == "sam-med2d",
            lora_rank=table.lora_rank if table.adapter == "lora" else 0,
        )
    )  # fmt: skip
    prompts = PromptEncoder(numbers.prompt_width, side, side // PATCH, numbers.mask_channels)
    decoder = MaskDecoder(
        numbers.prompt_width,
        numbers.decoder_depth,
        numbers.decoder_heads,
        numbers.decoder_mlp,
        numbers.iou_hidden,
    )
    sam = Sam(encoder, prompts, decoder, side=side, channel_order=table.channel_order)
    set_trainable(sam, table.trainable, point_embeddings=table.train_point_embeddings)
    return sam


def set_trainable(sam: Sam, groups: Iterable[str], *, point_embeddings: bool = True) -> Trainable:
    """Let the parameters of ``groups`` learn and freeze all others; says how many that are.

    ``point_embeddings`` false: those of inside, outside and "no point" stay frozen, as in the published SAM-Med2D.
    Raises ConfigError for a group that does not exist or of which the model has no parameter.
    """
    wanted = tuple(groups)
    counts = dict.fromkeys(wanted, 0)
    total = 0
    for name, parameter in sam.named_parameters():
        held = not point_embeddings and any(part in name for part in POINT_EMBEDDINGS)
        group = next((g for g in wanted if g in GROUPS and GROUPS[g](name)), None)
        parameter.requires_grad_(group is not None and not held)
        total += parameter.numel()
        if group is not None and not held:
            counts[group] += parameter.numel()
    empty = [group for group, count in counts.items() if not count]
    if empty:
        raise ConfigError(
            f'trainable: the model has no parameter of "{empty[0]}"; '
            f'known groups: {", ".join(GROUPS)} (adapters need adapter = "sam-med2d" or "lora")'
        )
    return Trainable(counts, total)
