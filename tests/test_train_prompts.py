"""Prompts: where they lie, how often each pixel is drawn, that nothing but the mask's own seed decides them."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, stats

from medcurate.errors import ConfigError
from medcurate.tables import check_model
from medcurate.train.config.prompts import BoxRule, NoJitter, Outward, Scribble, Shift
from medcurate.train.prompts import counters
from medcurate.train.prompts.boxes import bounding_boxes, draw_boxes, largest_components
from medcurate.train.prompts.counters import What, below, bits, fold, mask_keys
from medcurate.train.prompts.points import draw_corrections, draw_points, select
from medcurate.train.prompts.record import SCHEMA, Turn, read_records, to_records, to_turn, write_records
from medcurate.train.prompts.scribbles import draw_scribbles
from medcurate.train.types import Prompts

torch.set_num_threads(1)
SIDE = 32


def random_masks(seed: int, count: int = 6, side: int = SIDE) -> torch.Tensor:
    """Blobs and specks; the last mask is empty."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.normal(size=(count, side, side)), (0, 2, 2))
    masks = noise > np.quantile(noise, rng.uniform(0.5, 0.95, count), axis=(1, 2)).diagonal()[:, None, None]
    masks[-1] = False
    return torch.from_numpy(masks)


def keys(count: int, seed: int = 0) -> torch.Tensor:
    return fold(torch.full((count,), seed), torch.arange(count))


SEEDS = st.integers(0, 1 << 32)


# --- counters --------------------------------------------------------------------------------------


def splitmix(state: int) -> int:
    """SplitMix64's output function in unlimited whole numbers."""
    word = (1 << 64) - 1
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & word
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB & word
    return state ^ (state >> 31)


@given(st.lists(st.integers(-(1 << 63), (1 << 63) - 1), min_size=1, max_size=8), st.integers(0, 1 << 40))
@settings(max_examples=100, deadline=None)
def test_counters_are_splitmix64(seeds: list[int], value: int) -> None:
    word = 1 << 64
    expected = [splitmix((seed + (value + 1) * 0x9E3779B97F4A7C15) % word) for seed in seeds]
    assert [number % word for number in fold(torch.tensor(seeds), value).tolist()] == expected


def test_splitmix64_gives_its_published_first_numbers() -> None:
    # of seed 1234567: the values that Vigna's splitmix64.c and other implementations are tested with
    first = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    got = fold(torch.tensor([1234567]), torch.arange(3))
    assert [number % (1 << 64) for number in got.tolist()] == first


def test_numbers_are_uniform_and_streams_do_not_repeat_each_other() -> None:
    many = mask_keys(torch.arange(2000), 5)
    drawn = torch.stack([below(bits(many, what, turn, 2), 7) for what in What for turn in (0, 1)])
    counts = np.bincount(drawn.flatten().numpy(), minlength=7)
    assert stats.chisquare(counts).pvalue > 1e-3
    flat = drawn.flatten(1).double()
    assert torch.corrcoef(flat).fill_diagonal_(0).abs().max() < 0.05
    assert len(set(bits(many, What.BOX, 0, 2).flatten().tolist())) > 19_990


def test_below_reaches_every_number_and_no_other() -> None:
    ends = torch.tensor([[0, (1 << 32) - 1]])
    assert below(ends, 5).tolist() == [[0, 4]]
    assert below(ends, (1 << 31) - 1).tolist() == [[0, (1 << 31) - 2]]


# --- what decides a prompt -------------------------------------------------------------------------


def drawn(masks: torch.Tensor, at: torch.Tensor) -> list[torch.Tensor]:
    """Every kind of prompt of ``masks``."""
    rule = BoxRule(jitter=Shift(rule="shift"))
    return [
        draw_boxes(masks, rule, at),
        draw_boxes(masks, BoxRule(jitter=Outward(rule="outward", pixels=4)), at),
        *draw_points(masks, 3, at),
        *draw_corrections(masks.roll(3, 1), masks, 5, at, 2),
        *draw_scribbles(masks, Scribble(), at),
    ]


@given(SEEDS, st.data())
@settings(max_examples=15, deadline=None)
def test_a_masks_prompts_do_not_depend_on_its_batch(seed: int, data: st.DataObject) -> None:
    masks, at = random_masks(seed), keys(6, seed)
    whole = drawn(masks, at)
    some = data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=5, unique=True))
    for full, part in zip(whole, drawn(masks[some], at[some]), strict=True):
        assert torch.equal(full[some], part)


def test_the_same_mask_has_other_prompts_in_another_slot_image_and_turn() -> None:
    mask = random_masks(3)[:1].expand(4, -1, -1)
    at = mask_keys(torch.tensor([5, 6]), 2)
    assert len(set(at.tolist())) == 4
    points = draw_points(mask, 3, at)[0]
    assert len({str(p.tolist()) for p in points}) == 4
    assert not torch.equal(points, draw_points(mask, 3, at, turn=1)[0])


# --- boxes -----------------------------------------------------------------------------------------


@given(SEEDS)
@settings(max_examples=30, deadline=None)
def test_boxes_are_those_of_scipy(seed: int) -> None:
    masks = random_masks(seed)
    for mask, box in zip(masks[:-1], bounding_boxes(masks).tolist(), strict=False):
        rows, columns = ndimage.find_objects(mask.numpy().astype(int))[0]
        assert box == [columns.start, rows.start, columns.stop - 1, rows.stop - 1]
    assert bounding_boxes(masks)[-1].tolist() == [0, 0, 0, 0]


@given(SEEDS)
@settings(max_examples=20, deadline=None)
def test_largest_components_are_those_of_scipy(seed: int) -> None:
    masks = random_masks(seed)
    found = largest_components(masks)
    for mask, got in zip(masks.numpy(), found.numpy(), strict=True):
        labels, count = ndimage.label(mask, np.ones((3, 3)))
        sizes = np.bincount(labels.ravel(), minlength=2)[1:]
        expected = labels == 1 + sizes.argmax() if count else np.zeros_like(mask)
        np.testing.assert_array_equal(got, expected)


def test_the_largest_component_may_wind() -> None:
    rows = np.zeros((15, 15), bool)
    rows[::2] = True
    rows[1::4, -1] = rows[3::4, 0] = True  # one snake
    snake = torch.from_numpy(np.stack([rows, rows.T]))
    assert torch.equal(largest_components(snake), snake)


def square(side: int = SIDE) -> torch.Tensor:
    mask = torch.zeros(1, side, side, dtype=torch.bool)
    mask[:, 10:16, 12:22] = True  # 10 wide, 6 high
    return mask


def test_a_box_ends_inside_or_after_its_last_pixel() -> None:
    assert draw_boxes(square(), BoxRule(), keys(1)).tolist() == [[12, 10, 21, 15]]
    assert draw_boxes(square(), BoxRule(end="after"), keys(1)).tolist() == [[12, 10, 22, 16]]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (Shift(rule="shift", pixels=5, share=0.5), range(-3, 4)),  # half of the short side of 6
        (Shift(rule="shift", pixels=2, share=0.5), range(-2, 3)),
        (Shift(rule="shift", pixels=2, share=0.5, half_open=True), range(-2, 2)),
        (Shift(rule="shift", pixels=5, share=0.1), range(1)),
    ],
)
def test_a_shift_moves_the_whole_box_by_each_number_alike(rule: Shift, expected: range) -> None:
    many = 4000
    boxes = draw_boxes(square().expand(many, -1, -1), BoxRule(jitter=rule), keys(many))
    moved = boxes - torch.tensor([12, 10, 21, 15])
    assert torch.equal(moved[:, :2], moved[:, 2:])
    for axis in (0, 1):
        counts = Counter(moved[:, axis].int().tolist())
        assert set(counts) == set(expected)
        if len(counts) > 1:
            assert stats.chisquare(list(counts.values())).pvalue > 1e-3


@pytest.mark.parametrize(("half_open", "most"), [(False, 4), (True, 3)])
def test_outward_moves_each_side_by_its_own_number_and_not_beyond_the_square(
    half_open: bool, most: int
) -> None:
    many, mask = 2000, square()
    rule = BoxRule(jitter=Outward(rule="outward", pixels=4, half_open=half_open))
    moved = draw_boxes(mask.expand(many, -1, -1), rule, keys(many)) - torch.tensor([12, 10, 21, 15])
    outward = moved * torch.tensor([-1, -1, 1, 1])
    assert {*outward.flatten().int().tolist()} == {*range(most + 1)}
    assert torch.corrcoef(outward.T).fill_diagonal_(0).abs().max() < 0.1
    corner = torch.zeros(1, SIDE, SIDE, dtype=torch.bool)
    corner[:, 0, 0] = corner[:, -1, -1] = True
    for end in ("inside", "after"):
        bound = rule.model_copy(update={"end": end})
        boxes = draw_boxes(corner.expand(many, -1, -1), bound, keys(many))
        assert (boxes.min(), boxes.max()) == (0, SIDE)


def test_outward_counts_on_the_grid_that_it_names() -> None:
    mask = torch.zeros(1, 64, 64, dtype=torch.bool)
    mask[:, 30:33, 30:33] = True
    rule = BoxRule(jitter=Outward(rule="outward", pixels=2, at=16))
    moved = draw_boxes(mask.expand(500, -1, -1), rule, keys(500))[:, 2] - 32
    assert {*moved.int().tolist()} == {0, 4, 8}


def test_no_jitter_is_the_default_and_needs_no_name() -> None:
    assert check_model({}, BoxRule, "box").jitter == NoJitter()


# --- points ----------------------------------------------------------------------------------------


@given(SEEDS)
@settings(max_examples=30, deadline=None)
def test_select_counts_pixels_in_reading_order(seed: int) -> None:
    masks = random_masks(seed)[:, :, :20]
    for mask, places in zip(masks.numpy(), select(masks, torch.arange(0, 640, 7).expand(6, -1)), strict=True):
        expected = np.argwhere(mask)[:, ::-1][::7]
        np.testing.assert_array_equal(places[: len(expected)].numpy(), expected)
        assert not places[len(expected) :].any()


def test_every_pixel_of_a_mask_is_as_likely_as_the_others() -> None:
    mask = random_masks(11)[:1]
    points, labels = draw_points(mask.expand(500, -1, -1), 9, keys(500))
    counts = Counter(map(tuple, points.flatten(0, 1).int().tolist()))
    assert set(counts) == {(int(x), int(y)) for y, x in np.argwhere(mask[0].numpy())}
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3
    assert labels.eq(1).all()


def test_corrections_lie_where_the_prediction_is_wrong_and_say_how() -> None:
    truth, predicted = random_masks(1), random_masks(2).roll(1, 0)
    points, labels = draw_corrections(predicted, truth, 9, keys(6), 3)
    x, y = points.long().unbind(-1)
    rows = torch.arange(6)[:, None]
    assert torch.equal(labels == 1, truth[rows, y, x] & ~predicted[rows, y, x])
    assert torch.equal(labels == 0, ~truth[rows, y, x] & predicted[rows, y, x])
    assert {*labels.flatten().tolist()} == {0, 1}


def test_where_nothing_is_wrong_no_point_is_given() -> None:
    truth = random_masks(1)
    assert draw_corrections(truth, truth, 3, keys(6), 1)[1].eq(-1).all()
    assert draw_points(truth, 1, keys(6))[1].flatten().tolist() == [1, 1, 1, 1, 1, -1]


# --- scribbles -------------------------------------------------------------------------------------


@given(SEEDS)
@settings(max_examples=20, deadline=None)
def test_a_scribble_stays_inside_its_mask_between_its_points_too(seed: int) -> None:
    masks = random_masks(seed)
    points, labels = draw_scribbles(masks, Scribble(points=8, step=0.2), keys(6, seed))
    x, y = points.long().unbind(-1)
    rows = torch.arange(6)[:, None]
    assert torch.equal(masks[rows, y, x], labels.eq(1))
    middle = (points[:, 1:] + points[:, :-1]) / 2
    spread = ndimage.binary_dilation(masks.numpy(), np.ones((1, 3, 3)))  # points are rounded to pixels
    x, y = middle.long().unbind(-1)
    assert torch.from_numpy(spread)[rows, y, x][:-1].all()


def test_a_scribble_goes_on_as_far_as_its_steps_say_and_about_straight() -> None:
    mask = torch.ones(200, 64, 64, dtype=torch.bool)
    points, _ = draw_scribbles(mask, Scribble(points=4, step=0.1), keys(200))
    steps = (points[:, 1:] - points[:, :-1]).norm(dim=-1)
    assert steps.min() > 5.0
    assert steps.max() < 8.0  # 6.4 pixels, between whole ones
    whole = (points[:, -1] - points[:, 0]).norm(dim=-1)
    assert whole.median() > 0.85 * 3 * 6.4


def test_a_mask_of_one_pixel_has_all_points_there() -> None:
    mask = torch.zeros(1, 16, 16, dtype=torch.bool)
    mask[0, 3, 7] = True
    assert draw_scribbles(mask, Scribble(points=3), keys(1))[0].tolist() == [[[7, 3]] * 3]


# --- records ---------------------------------------------------------------------------------------


def turns(masks: torch.Tensor) -> list[Turn]:
    at = mask_keys(torch.tensor([1, 2, 3]), 2)
    points, labels = draw_corrections(masks.roll(1, 1), masks, 3, at, 1)
    return [
        Turn(0, "box", Prompts(boxes=draw_boxes(masks, BoxRule(jitter=Shift(rule="shift")), at))),
        Turn(1, "correction", Prompts(points=points, point_labels=labels), feedback=True),
        Turn(2, "mask", Prompts(), feedback=True),
    ]


@pytest.mark.parametrize("name", ["records.jsonl", "records.parquet"])
def test_records_are_replayed_as_equal_tensors(tmp_path: Path, name: str) -> None:
    played = turns(random_masks(5))
    annotations = torch.tensor([[4, 1], [0, 0], [2, 7]])
    written = [record for turn in played for record in to_records(turn, ["a", "b", "c"], annotations)]
    write_records(tmp_path / name, written)
    read = read_records(tmp_path / name)
    assert read == written
    assert [(r.key, r.annotation, r.slot) for r in read[:4]] == [
        ("a", 4, 0),
        ("a", 1, 1),
        ("b", 0, 0),
        ("b", 0, 1),
    ]
    for turn in played:
        again = to_turn([record for record in read if record.turn == turn.number])
        assert (again.number, again.kind, again.feedback) == (turn.number, turn.kind, turn.feedback)
        for field in ("points", "point_labels", "boxes", "mask_logits"):
            old, new = getattr(turn.prompts, field), getattr(again.prompts, field)
            assert (new is None) if old is None else (torch.equal(old, new) and old.dtype == new.dtype)


def test_records_of_several_turns_are_not_one_turn() -> None:
    first, second, _ = turns(random_masks(5))
    both = [
        to_records(turn, ["a", "b", "c"], torch.zeros(3, 2, dtype=torch.int64)) for turn in (first, second)
    ]
    with pytest.raises(ConfigError, match="2 turns"):
        to_turn([*both[0], *both[1]])


def record_of(**facts: object) -> str:
    plain = {
        "key": "a",
        "annotation": 0,
        "slot": 0,
        "turn": 0,
        "kind": "box",
        "box": [],
        "points": [],
        "labels": [],
    }
    return json.dumps(plain | facts) + "\n"


@pytest.mark.parametrize(
    "text",
    [
        '{"key": "a"}\n',
        "no json",
        "[]\n",
        record_of(box=[1, 2, 3]),
        record_of(kind="point", points=[[1, 2], [3, 4]], labels=[1]),
    ],
)
def test_other_files_are_not_records(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"x\.jsonl: holds no prompt records"):
        read_records(path)


def test_the_document_lists_the_columns_of_records() -> None:
    text = (Path(__file__).parents[1] / "docs" / "train.md").read_text(encoding="utf-8")
    (told,) = re.findall(r"^`prompts` holds what was given: (.*)\.$", text, re.M)
    assert re.findall(r"`(\w+)`", told) == SCHEMA.names


def test_the_meaning_of_what_is_drawn_is_numbered_for_good() -> None:
    assert {what.name: what.value for what in counters.What} == {
        "KIND": 0, "BOX": 1, "POINTS": 2, "POINT_COUNT": 3, "MASK_ONLY": 4, "SCRIBBLE": 5,
    }  # fmt: skip
