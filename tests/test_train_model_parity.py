"""The model against transformers' SAM with the same weights: encoder, prompt encoder, decoder, and their gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sam_kit import SMALL, images_of, prompts_of, randomised, small_sam, their_names, twin_decode, twin_of
from transformers import SamImageProcessor

from medcurate.train.config.model import KINDS, ModelTable
from medcurate.train.geometry import PADDING, frame_of, place_image
from medcurate.train.model.build import build_sam
from medcurate.train.model.sam import PIXEL_STD, Sam

TOLERANCE = 1e-4  # of float32, on values of about 1
PROMPTS = ("p", "b", "m", "pb", "pm", "bm", "pbm")


def distance(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    assert ours.shape == theirs.shape
    return (ours - theirs).abs().max().item()


@settings(max_examples=25, deadline=None)
@given(grid=st.integers(1, 9), window=st.integers(1, 6), batch=st.integers(1, 2))
def test_the_encoder_equals_at_any_grid_and_window(grid: int, window: int, batch: int) -> None:
    dims = SMALL.model_copy(update={"window": window})
    sam = small_sam(16 * grid, dims).double()
    images = images_of(batch, 16 * grid)
    with torch.no_grad():
        theirs = twin_of(sam, dims).vision_encoder(sam.normalised(images)).last_hidden_state
        assert distance(sam.encode(images), theirs) < 1e-10


@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_images_that_do_not_fill_the_square_are_what_sam_s_own_processor_makes_of_them(order: str) -> None:
    sam = small_sam(64, channel_order=order)
    image = np.random.default_rng(0).integers(0, 256, (40, 64, 3), dtype=np.uint8)
    square = np.empty((3, 64, 64), np.uint8)
    place_image(image, frame_of(40, 64, 64, "pad"), "linear", square, PADDING[order])
    processor = SamImageProcessor(size={"longest_edge": 64}, pad_size={"height": 64, "width": 64})
    seen = image if order == "rgb" else image[:, :, ::-1].copy()
    theirs = processor(seen, return_tensors="pt", input_data_format="channels_last")["pixel_values"]
    half_a_grey_value = 0.5 / min(PIXEL_STD)
    assert distance(sam.normalised(torch.from_numpy(square)[None]), theirs) < half_a_grey_value


@pytest.mark.parametrize("kinds", PROMPTS)
@pytest.mark.parametrize("multimask", [True, False])
def test_the_decoder_equals_for_every_kind_of_prompt(kinds: str, multimask: bool) -> None:
    sam = small_sam(64).double()
    rows, prompts = torch.tensor([1, 0, 1, 1]), prompts_of(4, 64, kinds, torch.float64)
    with torch.no_grad():
        embeddings = sam.encode(images_of(2, 64))
        ours = sam.decode(embeddings, rows, prompts, multimask)
        theirs = twin_decode(twin_of(sam, SMALL), embeddings, rows, prompts, multimask)
    assert ours[0].shape == (4, 3 if multimask else 1, 16, 16)
    assert max(map(distance, ours, theirs)) < 1e-6  # transformers computes positions in float32


@pytest.mark.parametrize("kinds", ["pb", "m"])
def test_gradients_equal(kinds: str) -> None:
    sam = small_sam(80).double().requires_grad_(True)
    twin = twin_of(sam, SMALL)
    rows, prompts = torch.tensor([0, 1, 1]), prompts_of(3, 80, kinds, torch.float64)
    images = images_of(2, 80)
    ours = sam.decode(sam.encode(images), rows, prompts, True)
    hidden = twin.vision_encoder(sam.normalised(images)).last_hidden_state
    theirs = twin_decode(twin, hidden, rows, prompts, True)
    for logits, iou in (ours, theirs):
        (
            (logits * torch.linspace(-1, 1, logits.numel()).view_as(logits)).sum() + iou.square().sum()
        ).backward()
    parameters = dict(twin.named_parameters())
    compared = 0
    for name, value in sam.named_parameters():
        twins = parameters[next(their_names(name))].grad
        if value.grad is None or twins is None:
            assert value.grad is None or not value.grad.any(), name
            assert twins is None or not twins.any(), name
            continue
        scale = twins.norm().item()
        assert (value.grad - twins).norm().item() <= 1e-6 * scale + 1e-12, name
        compared += scale > 0
    assert compared > 100


def vit_b(side: int) -> Sam:
    return randomised(build_sam(ModelTable(image_side=side, trainable=("mask-decoder",))))


def assert_vit_b_equals(side: int) -> None:
    sam = vit_b(side)
    twin = twin_of(sam, KINDS["vit-b"])
    images, rows = images_of(1, side), torch.zeros(2, dtype=torch.int64)
    with torch.no_grad():
        embeddings = sam.encode(images)
        theirs = twin.vision_encoder(sam.normalised(images)).last_hidden_state
        assert distance(embeddings, theirs) < TOLERANCE
        for kinds in ("p", "b", "pbm"):
            prompts = prompts_of(2, side, kinds)
            for multimask in (True, False):
                ours = sam.decode(embeddings, rows, prompts, multimask)
                assert (
                    max(map(distance, ours, twin_decode(twin, embeddings, rows, prompts, multimask)))
                    < TOLERANCE
                )


def test_vit_b_at_256_equals_in_float32() -> None:
    assert_vit_b_equals(256)


@pytest.mark.slow
def test_vit_b_at_1024_equals_in_float32() -> None:
    assert_vit_b_equals(1024)
