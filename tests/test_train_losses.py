"""Losses: equal to plain implementations and to MONAI, and sums over pieces equal the whole."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.losses import DiceCELoss
from torch.nn import functional

from medcurate.train.config.objective import LossTable
from medcurate.train.losses import full_size, image_weights, mask_loss

torch.set_num_threads(1)
SIDE = 16
ALL = LossTable(focal=20, cross_entropy=0.5, dice=1, iou=1)


def example(seed: int, count: int = 6) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits (N, 1, 4, 4), predicted IoU, truth (N, 16, 16) and weights, some of them 0."""
    made = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(count, 1, SIDE // 4, SIDE // 4, generator=made)
    iou = torch.rand(count, generator=made)
    truth = torch.rand(count, SIDE, SIDE, generator=made) > 0.6
    valid = torch.rand(count // 2, 2, generator=made) > 0.2
    return logits, iou, truth, image_weights(valid, count // 2)


def plain(
    logits: list[list[float]], truth: list[list[bool]], iou: float, table: LossTable
) -> dict[str, float]:
    """The terms of one mask, pixel by pixel in Python's floats. Published formulas, written from seeds and papers."""
    focal = entropy = both = predicted = true = marked = marked_both = 0.0
    for row, wanted in zip(logits, truth, strict=True):
        for x, t in zip(row, wanted, strict=True):
            p = 1 / (1 + math.exp(-x))
            if t:
                focal -= table.focal_alpha * (1 - p) ** table.focal_gamma * math.log(p)
                entropy -= math.log(p)
            else:
                focal -= (1 - table.focal_alpha) * p**table.focal_gamma * math.log(1 - p)
                entropy -= math.log(1 - p)
            both += p * t
            predicted += p * p if table.dice_squared else p
            true += t
            mark = p if table.iou_of == "probabilities" else float(p > 0.5)
            marked += mark
            marked_both += mark * t
    pixels = len(logits) * len(logits[0])
    real = (marked_both + 1e-7) / (marked + true - marked_both + 1e-7)
    return {
        "focal": focal / pixels,
        "cross_entropy": entropy / pixels,
        "dice": 1 - (2 * both + table.dice_smooth) / (predicted + true + table.dice_smooth),
        "iou": (real - iou) ** 2,
    }


def small(truth: torch.Tensor) -> torch.Tensor:
    return functional.interpolate(truth[:, None].float(), (4, 4), mode="nearest-exact")


TABLES = [
    ALL,
    LossTable(focal=0, cross_entropy=1, dice=1, iou=0, dice_squared=True, dice_smooth=1e-5),
    LossTable(focal_alpha=0.7, focal_gamma=1.5, iou_of="probabilities"),
]


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("at", ["image", "logits"])
def test_every_term_is_its_formula(table: LossTable, at: str) -> None:
    table = table.model_copy(update={"at": at})
    logits, iou, truth, weights = example(1)
    shown = full_size(logits.double(), SIDE) if at == "image" else logits[:, 0].double()
    wanted = (
        truth
        if at == "image"
        else functional.interpolate(truth[:, None].float(), (4, 4), mode="nearest-exact")[:, 0]
    )
    expected = dict.fromkeys(("focal", "cross_entropy", "dice", "iou"), 0.0)
    for x, t, guess, weight in zip(
        shown.tolist(), wanted.tolist(), iou.tolist(), weights.tolist(), strict=True
    ):
        for name, value in plain(x, t, guess, table).items():
            expected[name] += weight * value
    loss, terms = mask_loss(logits, iou, truth, weights, table)
    assert set(terms) == {name for name in expected if getattr(table, name)}
    for name, term in terms.items():
        assert term.item() == pytest.approx(expected[name], rel=2e-5)
    assert loss.item() == pytest.approx(
        sum(getattr(table, name) * expected[name] for name in expected), rel=2e-5
    )


def test_dice_and_cross_entropy_are_those_of_monai() -> None:
    table = LossTable(focal=0, cross_entropy=1, iou=0, dice_squared=True, dice_smooth=1e-5, at="logits")
    logits, iou, truth, _ = example(2)
    ours, _ = mask_loss(logits, iou, truth, torch.full((6,), 1 / 6), table)
    theirs = DiceCELoss(sigmoid=True, squared_pred=True)(logits, small(truth))
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)


def test_the_published_loss_is_one_dice_and_one_iou_of_the_whole_batch() -> None:
    """Against the published formulas on the batch as one picture."""
    table = LossTable(iou_of="probabilities", iou_moves_mask=True, pool="batch")
    logits, iou, truth, _ = example(3)
    loss, terms = mask_loss(logits, iou, truth, torch.full((6,), 1 / 6), table)
    whole = full_size(logits, SIDE).double().flatten(0, 1).tolist()
    expected = plain(whole, truth.flatten(0, 1).tolist(), 0.0, table)
    assert terms["focal"].item() == pytest.approx(expected["focal"], rel=1e-5)
    assert terms["dice"].item() == pytest.approx(expected["dice"], rel=1e-5)
    real = math.sqrt(expected["iou"])
    mean = sum((real - guess) ** 2 for guess in iou.tolist()) / 6
    assert terms["iou"].item() == pytest.approx(mean, rel=1e-4)
    assert loss.item() == pytest.approx(20 * expected["focal"] + expected["dice"] + mean, rel=1e-5)


@given(st.integers(0, 1 << 30), st.integers(1, 5), st.sampled_from(["mask", "batch"]), st.booleans())
@settings(max_examples=30, deadline=None)
def test_pieces_add_up_to_the_whole(seed: int, cut: int, pool: str, moves: bool) -> None:
    of = {"iou_of": "probabilities", "iou_moves_mask": True} if moves else {}
    table = ALL.model_copy(update={"pool": pool, **of})
    logits, iou, truth, weights = (
        tensor.double() if tensor.is_floating_point() else tensor for tensor in example(seed)
    )
    whole = _gradients(logits, iou, truth, weights, table, [slice(0, 6)])
    parts = _gradients(logits, iou, truth, weights, table, [slice(0, cut), slice(cut, 6)])
    for expected, got in zip(whole, parts, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6)


def _gradients(logits, iou, truth, weights, table, pieces):
    """Loss and gradients, summed over pieces that tell each other their sums, as ranks do."""
    logits, iou = logits.clone().requires_grad_(), iou.clone().requires_grad_()
    told: list[torch.Tensor] = []

    def tell(sums: torch.Tensor) -> torch.Tensor:
        told.append(sums.clone())
        return sums

    for piece in pieces:
        mask_loss(logits[piece], iou[piece], truth[piece], weights[piece], table, tell)
    loss = sum(
        mask_loss(logits[p], iou[p], truth[p], weights[p], table, lambda _: torch.stack(told).sum(0))[0]
        for p in pieces
    )
    loss.backward()
    return loss.detach(), logits.grad, iou.grad


@pytest.mark.parametrize("pool", ["mask", "batch"])
def test_gradients_are_the_numeric_ones(pool: str) -> None:
    table = LossTable(focal=2, cross_entropy=0.5, iou_of="probabilities", iou_moves_mask=True, pool=pool)
    logits, iou, truth, weights = example(4, 2)

    def of(x: torch.Tensor, guess: torch.Tensor) -> torch.Tensor:
        return mask_loss(x, guess, truth, weights, table)[0]

    logits.requires_grad_()
    of(logits, iou).backward()
    step = torch.zeros_like(logits)
    for place in ((0, 0, 1, 2), (1, 0, 3, 0)):
        step.zero_()
        step[place] = 1e-2
        rise = (of(logits.detach() + step, iou) - of(logits.detach() - step, iou)) / 2e-2
        assert logits.grad[place].item() == pytest.approx(rise.item(), rel=2e-2, abs=1e-4)


def test_the_true_iou_moves_the_mask_only_where_the_recipe_says_so() -> None:
    logits, iou, truth, weights = example(5)
    for moves in (False, True):
        table = LossTable(focal=0, dice=1e-9, iou_of="probabilities", iou_moves_mask=moves)
        x = logits.clone().requires_grad_()
        mask_loss(x, iou, truth, weights, table)[0].backward()
        assert (x.grad.abs().max() > 1e-6) == moves


def test_masks_that_are_not_there_count_nothing_and_break_nothing() -> None:
    logits, iou, truth, _ = example(6)
    truth[2:] = False
    weights = image_weights(torch.tensor([[True, True], [False, False], [False, False]]), 3)
    few = image_weights(torch.tensor([[True, True]]), 3)
    for pool in ("mask", "batch"):
        table = ALL.model_copy(update={"pool": pool})
        whole, _ = mask_loss(logits, iou, truth, weights, table)
        part, _ = mask_loss(logits[:2], iou[:2], truth[:2], few, table)
        assert whole.item() == pytest.approx(part.item(), rel=1e-6)
        none, _ = mask_loss(logits[:0], iou[:0], truth[:0], few[:0], table)
        assert none.item() == 0


def test_every_image_counts_alike_and_every_mask_of_it() -> None:
    valid = torch.tensor([[True, True, True, True], [True, False, False, False], [False] * 4])
    assert image_weights(valid, 4).view(3, 4).tolist() == [[1 / 16] * 4, [0.25, 0, 0, 0], [0] * 4]


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("right", [False, True])
def test_extreme_logits_have_finite_losses_and_gradients(gamma: float, right: bool) -> None:
    logits = torch.tensor([200.0, -200.0]).view(2, 1, 1, 1).expand(2, 1, 4, 4).clone().requires_grad_()
    truth = torch.zeros(2, SIDE, SIDE, dtype=torch.bool)
    truth[0 if right else 1] = True
    table = ALL.model_copy(update={"focal_gamma": gamma})
    loss, _ = mask_loss(logits, torch.zeros(2), truth, torch.full((2,), 0.5), table)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()
