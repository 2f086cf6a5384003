"""``[steps]`` and ``[loss]``: what an optimiser step is, and what it minimises."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from medcurate.tables import Strict

Weight = Annotated[float, Field(ge=0)]


class Interactive(Strict):
    """One step from the image, then ``rounds`` decoder steps on its detached embedding. Source: SAM-Med2D, train.py.

    Each round draws points where prediction and truth differ and feeds the previous low-resolution mask back.
    ``mask_only``: rounds in which that mask is the only prompt. ``feedback``: as logits, which SAM's prompt encoder
    expects, or through a sigmoid. ``prompt_encoder_rounds``: whether the prompt encoder learns in the rounds too.
    """

    method: Literal["interactive"]
    rounds: Annotated[int, Field(ge=0)] = 8
    mask_only: Literal["random-and-last", "last", "never"] = "random-and-last"
    feedback: Literal["logits", "probabilities"] = "logits"
    prompt_encoder_rounds: bool = False
    multimask: bool = True


class DecoderOnly(Strict):
    """One step of the mask decoder from one prompt. Source: MedSAM (arXiv 2304.12306v1).

    Its training gives no mask back; where one is, in an evaluation or by hand, it is as SAM expects it.
    """

    feedback: ClassVar[Literal["logits", "probabilities"]] = "logits"
    method: Literal["decoder-only"]
    multimask: bool = False


Steps = Annotated[Interactive | DecoderOnly, Field(discriminator="method")]


class LossTable(Strict):
    """``[loss]``: the weighted sum of its terms. A weight of 0 leaves the term out.

    ``focal``: mean over pixels of the focal loss. ``cross_entropy``: mean over pixels. ``dice``: 1 - (2 I + smooth) /
    (P + T + smooth) with sums over pixels. ``iou``: squared error of the predicted IoU.
    ``pool``: "mask" takes Dice and IoU of each mask, then the mean over an image's masks and over images;
    "batch" takes one Dice and one IoU of all pixels of the batch, as SAM-Med2D's code does.
    ``at``: on the image's square, or on the low-resolution logits (a quarter of its side).
    """

    focal: Weight = 20.0
    focal_alpha: Annotated[float, Field(ge=0, le=1)] = 0.25
    focal_gamma: Annotated[float, Field(ge=0)] = 2.0
    cross_entropy: Weight = 0.0
    dice: Weight = 1.0
    dice_smooth: Annotated[float, Field(gt=0)] = 1.0
    dice_squared: bool = False  # P and T are sums of squares
    iou: Weight = 1.0
    iou_of: Literal["binary", "probabilities"] = "binary"  # the mask that the true IoU is of
    iou_moves_mask: bool = False  # with "probabilities": this term's gradient reaches the mask too
    pool: Literal["mask", "batch"] = "mask"
    at: Literal["image", "logits"] = "image"

    @model_validator(mode="after")
    def _something(self) -> LossTable:
        if not self.focal + self.cross_entropy + self.dice:
            raise ValueError("focal, cross_entropy or dice must be above 0")
        if self.iou_moves_mask and self.iou_of == "binary":
            raise ValueError(
                'iou_moves_mask goes with iou_of = "probabilities": a binary mask has no gradient'
            )
        return self
