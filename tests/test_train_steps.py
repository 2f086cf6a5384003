"""The optimiser steps of a batch: what is given in each, what learns, and that cutting the batch changes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from scipy import ndimage
from torch import nn

from medcurate.tables import check_model
from medcurate.train.config.recipe import TrainRecipe
from medcurate.train.loop.accumulate import micro_batches
from medcurate.train.model.build import build_sam
from medcurate.train.model.sam import Sam
from medcurate.train.prompts.record import Turn, read_records, to_records, to_turn, write_records
from medcurate.train.steps.drawing import Drawer
from medcurate.train.steps.iterations import iterations
from medcurate.train.steps.player import chosen
from medcurate.train.types import Batch, Frame, Prompts, StepLoss

torch.set_num_threads(1)
SIDE = 64
TINY = {
    "width": 16, "depth": 2, "heads": 2, "global_blocks": [1], "window": 3, "prompt_width": 16, "mask_channels": 4,
    "decoder_heads": 2, "decoder_mlp": 32, "iou_hidden": 16,
}  # fmt: skip


def recipe(steps: dict[str, object], **tables: object) -> TrainRecipe:
    decoder_only = steps["method"] == "decoder-only"
    learning = ["mask-decoder"] if decoder_only else ["adapters", "prompt-encoder", "mask-decoder"]
    value = {
        "name": "test",
        "title": "Test",
        "model": {
            "kind": "tiny",
            "dims": TINY,
            "image_side": SIDE,
            "adapter": "sam-med2d",
            "trainable": learning,
        },
        "steps": steps,
        "run": {"epochs": 1},
        **tables,
    }
    return check_model(value, TrainRecipe, "test")


INTERACTIVE = recipe({"method": "interactive"})
DECODER_ONLY = recipe({"method": "decoder-only"}, prompts={"first": {"box": 1, "point": 0}})


def model(of: TrainRecipe = INTERACTIVE) -> Sam:
    torch.manual_seed(0)
    return build_sam(of.model)


def batch(images: int = 4, slots: int = 3, seed: int = 0) -> Batch:
    """Noise with blobs; the second image has one mask only."""
    made = torch.Generator().manual_seed(seed)
    noise = torch.randn(images, slots, SIDE, SIDE, generator=made).numpy()
    masks = torch.from_numpy(ndimage.gaussian_filter(noise, (0, 0, 5, 5)) > 0.05)
    valid = torch.ones(images, slots, dtype=torch.bool)
    valid[1:2, 1:] = False
    return Batch(
        images=torch.randint(0, 256, (images, 3, SIDE, SIDE), dtype=torch.uint8, generator=made),
        masks=masks & valid[..., None, None],
        valid=valid,
        annotations=torch.arange(slots).expand(images, -1),
        seeds=torch.arange(images) + 1000 * seed,
        keys=tuple(f"image-{i}" for i in range(images)),
        frames=(Frame(SIDE, SIDE, SIDE, SIDE, SIDE),) * images,
        number=0,
        samples=images,
        seed=seed,
    )


def part(whole: Batch, images: slice) -> Batch:
    cut = {
        name: getattr(whole, name)[images]
        for name in ("images", "masks", "valid", "annotations", "seeds", "keys")
    }
    return replace(whole, **cut, frames=whole.frames[images])


def played(sam: Sam, given: Batch, of: TrainRecipe, **more: object) -> tuple[list[float], list[Turn]]:
    """Losses and turns of a batch, without optimiser steps between."""
    turns: list[Turn] = []
    losses = [step.loss.item() for step in iterations(sam, given, of, witness=turns.append, **more)]
    return losses, turns


def test_nine_steps_open_with_a_box_or_a_point_and_go_on_with_corrections() -> None:
    kinds = set()
    for seed in range(6):
        losses, turns = played(model(), batch(seed=seed), INTERACTIVE)
        assert len(losses) == len(turns) == 9
        assert [turn.number for turn in turns] == [*range(9)]
        kinds.add(turns[0].kind)
        mask_only = [turn.number for turn in turns if turn.kind == "mask"]
        assert len(mask_only) == 2
        assert mask_only[0] in range(2, 8)
        assert mask_only[1] == 8
        assert {turn.kind for turn in turns[1:]} == {"correction", "mask"}
        assert [turn.feedback for turn in turns] == [False] + [True] * 8
        shapes = {turn.prompts.points.shape for turn in turns if turn.kind == "correction"}
        assert shapes <= {(12, count, 2) for count in (1, 3, 5, 9)}
    assert kinds == {"box", "point"}


def choices(of: TrainRecipe, choose: Callable[[Drawer], object]) -> Counter[object]:
    given = batch(1, 1)
    return Counter(choose(Drawer(replace(given, seed=seed), of.prompts)) for seed in range(1200))


def test_what_is_drawn_once_a_batch_is_drawn_evenly() -> None:
    steps = INTERACTIVE.steps
    rounds = choices(INTERACTIVE, lambda drawer: min(drawer.mask_only(steps)))
    assert set(rounds) == {2, 3, 4, 5, 6, 7}
    assert min(rounds.values()) > 150
    predicted = torch.zeros(1, SIDE, SIDE, dtype=torch.bool)
    counts = choices(INTERACTIVE, lambda drawer: drawer.correction(3, predicted).prompts.points.shape[1])
    assert set(counts) == {1, 3, 5, 9}
    assert min(counts.values()) > 240
    mixed = recipe(
        {"method": "interactive"}, prompts={"first": {"box": 0.25, "point": 0.25, "scribble": 0.5}}
    )
    kinds = choices(mixed, lambda drawer: drawer.first().kind)
    assert kinds["scribble"] == pytest.approx(600, abs=60)
    assert kinds["box"] == pytest.approx(300, abs=50)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ({"mask_only": "never"}, []),
        ({"mask_only": "last"}, [8]),
        ({"rounds": 2}, [2]),
        ({"rounds": 1}, [1]),
        ({"rounds": 0}, []),
        ({"rounds": 3}, [2, 3]),
    ],
)
def test_mask_only_turns_are_those_that_the_recipe_names(
    steps: dict[str, object], expected: list[int]
) -> None:
    of = recipe({"method": "interactive", **steps})
    assert sorted(Drawer(batch(1), of.prompts).mask_only(of.steps)) == expected


def with_gradients(step: StepLoss, sam: Sam) -> set[str]:
    sam.zero_grad()
    step.loss.backward()
    return {name.split(".")[0] for name, p in sam.named_parameters() if p.grad is not None and p.grad.any()}


def test_the_first_step_trains_all_that_is_trainable_and_rounds_the_decoder() -> None:
    sam = model()
    for number, step in enumerate(iterations(sam, batch(), INTERACTIVE)):
        expected = {"mask_decoder"} if number else {"image_encoder", "prompt_encoder", "mask_decoder"}
        assert with_gradients(step, sam) == expected
        assert step.trains_encoder == (number == 0)
    learning = {name for name, p in sam.named_parameters() if p.requires_grad}
    assert learning == {name for name, p in model().named_parameters() if p.requires_grad}


def test_the_prompt_encoder_learns_in_rounds_where_the_recipe_says_so() -> None:
    sam, of = model(), recipe({"method": "interactive", "prompt_encoder_rounds": True})
    for number, step in enumerate(iterations(sam, batch(), of)):
        assert "prompt_encoder" in with_gradients(step, sam), number
    assert sam.prompt_encoder.mask_downscaling[6].weight.grad.any()


def trained(sam: Sam, given: list[Batch], of: TrainRecipe) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Losses of each step, summed over the pieces that advance together, and the weights after it all."""
    optimiser = torch.optim.SGD([p for p in sam.parameters() if p.requires_grad], lr=0.05)
    running = [iterations(sam, piece, of) for piece in given]
    losses = []
    for steps in zip(*running, strict=True):
        losses.append(0.0)
        for step in steps:
            step.loss.backward()
            losses[-1] += step.loss.item()
        optimiser.step()
        optimiser.zero_grad()
    return losses, sam.state_dict()


def advanced_together(
    sam: Sam, given: list[Batch], of: TrainRecipe
) -> tuple[list[float], dict[str, torch.Tensor]]:
    return trained(sam.double(), given, of)


@pytest.mark.parametrize("of", [INTERACTIVE, DECODER_ONLY], ids=["interactive", "decoder-only"])
@pytest.mark.parametrize("cuts", [(0, 2, 4), (0, 1, 4), (0, 1, 2, 3, 4)])
def test_pieces_that_advance_together_equal_the_batch(of: TrainRecipe, cuts: tuple[int, ...]) -> None:
    whole = batch(seed=3)
    pieces = [part(whole, slice(*cut)) for cut in pairwise(cuts)]
    losses, weights = trained(model(of), [whole], of)
    others, same = trained(model(of), pieces, of)
    assert others == pytest.approx(losses, rel=1e-5)
    for name, weight in weights.items():
        torch.testing.assert_close(same[name], weight, rtol=1e-4, atol=1e-5, msg=name)


def test_training_goes_down() -> None:
    sam, given = model(), batch()
    optimiser = torch.optim.Adam([p for p in sam.parameters() if p.requires_grad], lr=3e-3)
    seen = []
    for _ in range(8):
        for step in iterations(sam, given, INTERACTIVE):
            step.loss.backward()
            optimiser.step()
            optimiser.zero_grad()
            seen.append(step.loss.item())
    assert sum(seen[-9:]) < 0.8 * sum(seen[:9])


def test_recorded_turns_are_given_again(tmp_path: Path) -> None:
    given = batch(seed=1)
    losses, turns = played(model(), given, INTERACTIVE)
    records = [record for turn in turns for record in to_records(turn, given.keys, given.annotations)]
    write_records(tmp_path / "turns.parquet", records)
    read = read_records(tmp_path / "turns.parquet")
    again = [to_turn([record for record in read if record.turn == number]) for number in range(9)]
    other = replace(given, seeds=given.seeds + 99, seed=77)
    assert played(model(), other, INTERACTIVE)[0] != losses
    assert played(model(), other, INTERACTIVE, replayed=again)[0] == losses


class Spy(nn.Module):
    """Answers with fixed logits and keeps what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.image_encoder = self.prompt_encoder = nn.Linear(1, 1)
        self.given: list[Prompts] = []
        self.answer = torch.linspace(-6, 6, 256).view(1, 1, 16, 16)

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(images), 1, 4, 4, requires_grad=True)

    def decode(
        self, embeddings: torch.Tensor, image_of_prompt: torch.Tensor, prompts: Prompts, multimask: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.given.append(prompts)
        assert image_of_prompt.tolist() == [0, 0, 0, 1, 1, 1]
        masks = 3 if multimask else 1
        shown = self.answer + torch.arange(masks).view(1, -1, 1, 1) + embeddings.mean()
        return shown.expand(6, -1, -1, -1), torch.linspace(0, 1, masks).expand(6, -1)


@pytest.mark.parametrize("feedback", ["logits", "probabilities"])
def test_the_best_mask_is_fed_back_as_the_recipe_says(feedback: str) -> None:
    spy = Spy()
    list(iterations(spy, batch(2), recipe({"method": "interactive", "feedback": feedback})))
    assert spy.given[0].mask_logits is None
    best = spy.answer + 2
    expected = best.sigmoid() if feedback == "probabilities" else best
    for prompts in spy.given[1:]:
        torch.testing.assert_close(prompts.mask_logits, expected.expand(6, -1, -1, -1))


def test_corrections_are_drawn_from_the_errors_of_the_mask_that_was_chosen() -> None:
    spy, given, turns = Spy(), batch(2), []
    list(iterations(spy, given, INTERACTIVE, witness=turns.append))
    best = nn.functional.interpolate(spy.answer + 2, (SIDE, SIDE), mode="bilinear")[0, 0] > 0
    truth = given.masks.flatten(0, 1)
    for turn in turns[1:]:
        if turn.kind == "correction":
            x, y = turn.prompts.points.long().unbind(-1)
            inside = truth[torch.arange(6)[:, None], y, x]
            assert torch.equal(turn.prompts.point_labels, inside.long())
            assert (best[y, x] != inside).all()


def test_of_three_masks_the_one_with_the_highest_predicted_iou_is_chosen() -> None:
    masks = torch.arange(6.0).view(2, 3, 1, 1)
    logits, iou = chosen(masks, torch.tensor([[0.1, 0.9, 0.3], [0.8, 0.2, 0.1]]))
    assert logits.flatten().tolist() == [1, 3]
    assert iou.tolist() == pytest.approx([0.9, 0.8])


def test_decoder_only_makes_one_step_of_the_decoder() -> None:
    sam = model(DECODER_ONLY)
    (step,) = iterations(sam, batch(), DECODER_ONLY)
    assert with_gradients(step, sam) == {"mask_decoder"}
    assert not step.trains_encoder
    assert played(sam, batch(), DECODER_ONLY)[1][0].kind == "box"


def test_cached_embeddings_take_the_place_of_the_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    sam, given = model(DECODER_ONLY), batch()
    losses, _ = played(sam, given, DECODER_ONLY)
    with torch.no_grad():
        embeddings = sam.encode(given.images).half()
    cached = replace(given, embeddings=embeddings, images=given.images[:, :, :0, :0])
    monkeypatch.setattr(sam.image_encoder, "forward", lambda _: pytest.fail("the encoder ran"))
    assert played(sam, cached, DECODER_ONLY)[0] == pytest.approx(losses, rel=1e-3)


def test_pieces_of_a_batch_take_their_own_cached_embeddings() -> None:
    sam, given = model(DECODER_ONLY), batch()
    with torch.no_grad():
        embeddings = sam.encode(given.images).half()
    cached = replace(given, embeddings=embeddings, images=given.images[:, :, :0, :0])
    (whole,) = played(sam, cached, DECODER_ONLY)[0]
    pieces = [played(sam, piece.batch, DECODER_ONLY)[0][0] for piece in micro_batches(cached, 1)]
    assert len(pieces) == 4
    assert sum(pieces) == pytest.approx(whole, rel=1e-5)


def test_invalid_masks_neither_count_nor_break() -> None:
    given = batch()
    none = replace(given, valid=torch.zeros_like(given.valid), masks=torch.zeros_like(given.masks))
    sam = model()
    for step in iterations(sam, none, INTERACTIVE):
        step.loss.backward()
        assert step.loss.item() == 0
    assert all(p.grad is None or not p.grad.any() for p in sam.parameters())


@pytest.mark.parametrize("of", [INTERACTIVE, DECODER_ONLY], ids=["interactive", "decoder-only"])
def test_a_rank_of_empty_rows_makes_as_many_steps_as_the_others(of: TrainRecipe) -> None:
    """What the stream gives a rank for which a batch has no image: rows that only keep ranks in step."""
    given = batch()
    nothing = {name: torch.zeros_like(getattr(given, name)) for name in ("images", "masks", "valid", "seeds")}
    count = 0
    sam = model(of)
    for step in iterations(sam, replace(given, **nothing, keys=("",) * len(given.keys)), of):
        step.loss.backward()
        assert step.loss.item() == 0
        count += 1
    assert count == (9 if of is INTERACTIVE else 1)
    assert all(p.grad is None or not p.grad.any() for p in sam.parameters())
