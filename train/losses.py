"""The loss of one optimiser step, as a sum over masks that adds up over micro-batches and ranks.

Sources of the terms: focal loss, Lin et al., arXiv 1708.02002, eq. 5; Dice loss, Milletari et al., arXiv 1606.04797;
their weights in the recipes: SAM-Med2D, arXiv 2308.16184, and MedSAM, arXiv 2304.12306v1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional

from medcurate.train.config.objective import LossTable

Total = Callable[[torch.Tensor], torch.Tensor]
"""Sums a detached vector over all ranks; may do so in place."""

_IOU_SMOOTH = 1e-7
_LOGITS_AT = 4  # pixels of the image's square per low-resolution logit and side


def alone(sums: torch.Tensor) -> torch.Tensor:
    """The ``Total`` of a single process."""
    return sums


def mask_loss(
    low_res: torch.Tensor,
    iou: torch.Tensor,
    truth: torch.Tensor,
    weights: torch.Tensor,
    table: LossTable,
    total: Total = alone,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """This rank's summand of the loss, a float32 scalar, and the detached terms that it weights, by name.

    ``low_res`` float (N, 1, S/4, S/4) logits; ``iou`` float (N,) predicted; ``truth`` bool (N, S, S); ``weights``
    float32 (N,), see ``image_weights``: how much each mask counts. With ``pool`` "batch" all masks of a weight above 0
    count alike.
    """
    pixels = _pixel_sums(_scaled(low_res.float(), truth, table), _truth(truth, table), table)
    if table.pool == "batch":
        terms = _pooled(pixels, iou.float(), weights, table, total)
    else:
        terms = _by_mask(pixels, iou.float(), weights, table)
    loss = torch.stack([getattr(table, name) * term for name, term in terms.items()]).sum()
    return loss, {name: term.detach() for name, term in terms.items()}


def image_weights(valid: torch.Tensor, samples: int) -> torch.Tensor:
    """float32 (B * K,): every image of ``samples`` counts alike, and so does every valid mask of an image.

    ``valid`` bool (B, K). An image without any valid mask counts nothing.
    """
    share = valid / valid.sum(dim=1, keepdim=True).clamp(min=1)
    return (share / samples).flatten()


def full_size(low_res: torch.Tensor, side: int) -> torch.Tensor:
    """Logits (N, 1, h, w) to (N, side, side), bilinear between the centres of pixels, as SAM does."""
    return functional.interpolate(low_res, (side, side), mode="bilinear", align_corners=False)[:, 0]


@dataclass(slots=True)
class _Sums:
    """Sums over the pixels of each mask, float32 (N,); ``marked`` is what the predicted mask counts as for its IoU."""

    focal: torch.Tensor
    cross_entropy: torch.Tensor
    both: torch.Tensor
    predicted: torch.Tensor
    true: torch.Tensor
    marked: torch.Tensor
    marked_both: torch.Tensor
    pixels: int


def _scaled(low_res: torch.Tensor, truth: torch.Tensor, table: LossTable) -> torch.Tensor:
    return low_res[:, 0] if table.at == "logits" else full_size(low_res, truth.shape[-1])


def _truth(truth: torch.Tensor, table: LossTable) -> torch.Tensor:
    """Float (N, h, w): the truth where the logits are, of each 4 x 4 pixels one in their middle."""
    half = _LOGITS_AT // 2
    return (truth[:, half::_LOGITS_AT, half::_LOGITS_AT] if table.at == "logits" else truth).float()


def _pixel_sums(logits: torch.Tensor, truth: torch.Tensor, table: LossTable) -> _Sums:
    entropy = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    p = logits.sigmoid()
    wrong = truth + p - 2 * truth * p  # the probability that the pixel is not what it is
    if 0 < table.focal_gamma < 1:  # the slope of such a power is infinite at 0, where a pixel is certain
        wrong = wrong.clamp(min=torch.finfo(wrong.dtype).tiny)
    balance = 1 - table.focal_alpha + (2 * table.focal_alpha - 1) * truth
    marked = p if table.iou_of == "probabilities" else (logits > 0).float()
    marked = marked if table.iou_moves_mask else marked.detach()
    return _Sums(
        focal=_summed(balance * wrong**table.focal_gamma * entropy),
        cross_entropy=_summed(entropy),
        both=_summed(p * truth),
        predicted=_summed(p**2 if table.dice_squared else p),
        true=_summed(truth),
        marked=_summed(marked),
        marked_both=_summed(marked * truth),
        pixels=truth[0].numel() if len(truth) else 1,
    )


def _summed(values: torch.Tensor) -> torch.Tensor:
    return values.flatten(1).sum(dim=1)


def _by_mask(
    sums: _Sums, iou: torch.Tensor, weights: torch.Tensor, table: LossTable
) -> dict[str, torch.Tensor]:
    terms = {
        "focal": sums.focal / sums.pixels,
        "cross_entropy": sums.cross_entropy / sums.pixels,
        "dice": _dice_loss(sums.both, sums.predicted, sums.true, table),
        "iou": (_true_iou(sums.marked_both, sums.marked, sums.true) - iou) ** 2,
    }
    return {name: (weights * term).sum() for name, term in terms.items() if getattr(table, name)}


def _pooled(
    sums: _Sums, iou: torch.Tensor, weights: torch.Tensor, table: LossTable, total: Total
) -> dict[str, torch.Tensor]:
    """The terms of all pixels of all ranks together.

    A ratio of sums is no sum of ratios. So all ranks exchange their sums; each has the gradient of its own part, and of
    the value a share by its number of masks.
    """
    counted = (weights > 0).float()
    own = torch.stack(
        [
            (counted * column).sum()
            for column in (
                sums.focal, sums.cross_entropy, sums.both, sums.predicted, sums.true, sums.marked, sums.marked_both,
                iou, iou**2, torch.ones_like(iou),
            )
        ]
    )  # fmt: skip
    others = total(own.detach().clone()) - own.detach()  # a copy, as collectives write in place
    focal, entropy, both, predicted, true, marked, marked_both, iou_sum, iou_squares, masks = own + others
    count = masks.clamp(min=1)
    real = _true_iou(marked_both, marked, true)
    terms = {
        "focal": focal / (count * sums.pixels),
        "cross_entropy": entropy / (count * sums.pixels),
        "dice": _dice_loss(both, predicted, true, table),
        "iou": real**2 - 2 * real * iou_sum / count + iou_squares / count,
    }
    share = own[-1].detach() / count
    return {name: term + (share - 1) * term.detach() for name, term in terms.items() if getattr(table, name)}


def _dice_loss(
    both: torch.Tensor, predicted: torch.Tensor, true: torch.Tensor, table: LossTable
) -> torch.Tensor:
    return 1 - (2 * both + table.dice_smooth) / (predicted + true + table.dice_smooth)


def _true_iou(both: torch.Tensor, marked: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    return (both + _IOU_SMOOTH) / (marked + true - both + _IOU_SMOOTH)
