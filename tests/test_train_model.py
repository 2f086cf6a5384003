"""Behaviour of the model's parts against their definitions, written out here in plain torch and in float64."""

from __future__ import annotations

import hashlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sam_kit import images_of, prompts_of, small_sam
from torch import Tensor
from torch.nn import functional

from medcurate.errors import ConfigError
from medcurate.train.config.model import ModelTable
from medcurate.train.model import adapter as adapters
from medcurate.train.model.adapter import Adapter
from medcurate.train.model.attention import Attention
from medcurate.train.model.build import build_sam, set_trainable
from medcurate.train.model.lora import LoraQkv
from medcurate.train.types import Prompts

# SHA-256 of the sorted lines "name shape" of the state dicts that the published code builds, and their parameters.
PUBLISHED = {
    ("vit-b", 1024, "none"): ("2a326f8855d290e081116dbf100a235308e9f12b6c76b54759db0f806cc5ea48", 93_735_472),
    ("vit-l", 1024, "none"): (
        "872b3a587ece72dcfc9f14397c2dd2b79e3d589f9ef018cdf3a57c933bccee4e",
        312_342_832,
    ),
    ("vit-h", 1024, "none"): (
        "903f3a74ff76f5c2dcd70b1f75adc2bc7e624c0c71361dcabba2b88eb62bd931",
        641_090_608,
    ),
    ("vit-b", 256, "sam-med2d"): (
        "6da7d9c1fdb28fba8ed904abb580744b69cc314491adb0eccb7d10e3337668be",
        271_241_776,
    ),
}


@pytest.mark.parametrize(("kind", "side", "adapter"), PUBLISHED)
def test_names_and_shapes_are_the_published_ones(kind: str, side: int, adapter: str) -> None:
    table = {"kind": kind, "image_side": side, "adapter": adapter, "trainable": ("mask-decoder",)}
    with torch.device("meta"):
        sam = build_sam(ModelTable.model_validate(table))
    lines = "\n".join(sorted(f"{name} {tuple(value.shape)}" for name, value in sam.state_dict().items()))
    digest, parameters = PUBLISHED[kind, side, adapter]
    assert hashlib.sha256(lines.encode()).hexdigest() == digest
    assert sum(value.numel() for value in sam.parameters()) == parameters


def defined_attention(layer: Attention, x: Tensor) -> Tensor:
    """Windows filled with zero tokens, all queries, the whole matrix of logits with both position terms."""
    batch, height, width, channels = x.shape
    side = layer.window or height
    down, across = -(-height // side), -(-width // side)
    x = functional.pad(x, (0, 0, 0, across * side - width, 0, down * side - height))
    x = x.view(batch, down, side, across, side, channels).transpose(2, 3).reshape(-1, side * side, channels)
    qkv = layer.qkv(x).view(len(x), side * side, 3, layer.heads, -1).permute(2, 0, 3, 1, 4)
    query, key, value = qkv
    place = torch.arange(side * side)
    row, column = place // side, place % side
    by_row = layer.rel_pos_h[row[:, None] - row + side - 1]
    by_column = layer.rel_pos_w[column[:, None] - column + side - 1]
    logits = query @ key.mT * query.shape[-1] ** -0.5
    logits = logits + torch.einsum("bnqc,qkc->bnqk", query, by_row + by_column)
    out = (logits.softmax(-1) @ value).transpose(1, 2).reshape(batch, down, across, side, side, channels)
    out = out.transpose(2, 3).reshape(batch, down * side, across * side, channels)
    return layer.proj(out[:, :height, :width])


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 9), width=st.integers(1, 9), window=st.integers(0, 5), rank=st.integers(0, 2),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_windowed_attention_is_its_definition(
    height: int, width: int, window: int, rank: int, seed: int
) -> None:
    torch.manual_seed(seed)
    width = width if window else height
    layer = Attention(12, 2, height, window, rank).double()
    for value in layer.parameters():
        value.data.normal_(0, 1)
    x = torch.randn(2, height, width, 12, dtype=torch.float64, requires_grad=True)
    outputs = [layer(x), defined_attention(layer, x)]
    torch.testing.assert_close(*outputs, rtol=1e-9, atol=1e-9)
    seen = [x, *layer.parameters()]
    ours, theirs = (torch.autograd.grad(out.square().sum(), seen) for out in outputs)
    torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-7)


def test_filled_places_take_part_in_the_softmax() -> None:
    """Leaving them out, the usual mistake, is far from the definition."""
    torch.manual_seed(0)
    layer = Attention(12, 2, 4, 3).double()
    x = torch.randn(1, 4, 4, 12, dtype=torch.float64)
    whole = Attention(12, 2, 1, 0).double()
    whole.load_state_dict(
        layer.state_dict() | {"rel_pos_h": torch.zeros(1, 6), "rel_pos_w": torch.zeros(1, 6)}
    )
    assert (layer(x)[:, 3, 3] - whole(x[:, 3:, 3:])[:, 0, 0]).abs().max() > 1e-2


def test_attention_stays_finite_with_large_logits() -> None:
    """Weights of the filled places are summed as logarithms: exp of these terms would overflow float32."""
    torch.manual_seed(0)
    layer, x = Attention(12, 2, 4, 3), torch.randn(1, 4, 4, 12)
    layer.rel_pos_h.data.normal_(0, 200)
    out = layer(x)
    assert out.isfinite().all()
    torch.testing.assert_close(
        out.double(), defined_attention(layer.double(), x.double()), rtol=1e-3, atol=1e-3
    )


def defined_adapter(layer: Adapter, x: Tensor) -> Tensor:
    """SAM-Med2D's adapter with torch's own pooling and convolutions, channels first."""
    (squeeze, excite), (down, up) = layer.channel.parameters(), layer.spatial.parameters()
    first = x.permute(0, 3, 1, 2)
    pooled = functional.adaptive_avg_pool2d(first, 1).flatten(1)
    gate = torch.sigmoid(functional.relu(pooled @ squeeze.T) @ excite.T)
    coarse = functional.relu(functional.conv2d(first * gate[:, :, None, None], down, stride=2, padding=1))
    fine = functional.relu(functional.conv_transpose2d(coarse, up, stride=2, padding=1))
    total = (first + fine[..., : x.shape[1], : x.shape[2]]).permute(0, 2, 3, 1)
    return functional.layer_norm(total, (x.shape[3],), layer.norm.weight, layer.norm.bias, 1e-5)


@settings(max_examples=30, deadline=None)
@given(height=st.integers(1, 7), width=st.integers(1, 7), batch=st.integers(1, 3), seed=st.integers(0, 99))
def test_the_adapter_is_its_formula(height: int, width: int, batch: int, seed: int) -> None:
    torch.manual_seed(seed)
    layer = Adapter(8).double()
    x = torch.randn(batch, height, width, 8, dtype=torch.float64, requires_grad=True)
    outputs = [layer(x), defined_adapter(layer, x)]
    torch.testing.assert_close(*outputs, rtol=1e-10, atol=1e-10)
    ours, theirs = (torch.autograd.grad(out.sin().sum(), [x, *layer.parameters()]) for out in outputs)
    torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)


@settings(max_examples=20, deadline=None)
@given(height=st.integers(1, 6), width=st.integers(1, 6))
def test_products_equal_the_kernels_of_other_devices(height: int, width: int) -> None:
    layer, x = Adapter(8).double(), torch.randn(2, height, width, 8, dtype=torch.float64)
    down, up = layer.spatial.parameters()
    torch.testing.assert_close(adapters.down_by_product(x, down), adapters.down_by_kernel(x, down))
    torch.testing.assert_close(adapters.up_by_product(x, up), adapters.up_by_kernel(x, up))


def test_lora_starts_as_the_plain_projection_and_merges_into_one() -> None:
    torch.manual_seed(0)
    layer, x = LoraQkv(8, 2), torch.randn(3, 8)
    plain = functional.linear(x, layer.weight, layer.bias)
    torch.testing.assert_close(layer(x), plain)
    layer.lora_b.data.normal_()
    assert not torch.allclose(layer(x), plain)
    torch.testing.assert_close(layer(x), functional.linear(x, layer.merged(), layer.bias))


def test_trainable_groups_freeze_all_else_and_are_counted() -> None:
    sam = small_sam(adapter="sam-med2d", trainable=("adapters", "mask-decoder"))
    learns = {name for name, value in sam.named_parameters() if value.requires_grad}
    assert all(".Adapter." in name or name.startswith("mask_decoder.") for name in learns)
    counted = set_trainable(sam, ("adapters", "prompt-encoder"), point_embeddings=False)
    learns = {name for name, value in sam.named_parameters() if value.requires_grad}
    assert "prompt_encoder.point_embeddings.0.weight" not in learns
    assert {"prompt_encoder.point_embeddings.2.weight", "prompt_encoder.no_mask_embed.weight"} <= learns
    assert counted.learning == sum(value.numel() for value in sam.parameters() if value.requires_grad)
    assert counted.total == sum(value.numel() for value in sam.parameters())
    per_adapter = 2 * 32 * 8 + 32 * 32 * (9 + 16) + 2 * 32
    assert counted.by_group["adapters"] == 3 * per_adapter
    assert f"adapters {3 * per_adapter:,}" in str(counted)


def test_lora_is_an_adapter_and_its_base_is_the_encoder() -> None:
    sam = small_sam(adapter="lora", lora_rank=2, trainable=("adapters",))
    learns = {name.rsplit(".", 1)[1] for name, value in sam.named_parameters() if value.requires_grad}
    assert learns == {"lora_a", "lora_b"}
    set_trainable(sam, ("image-encoder",))
    assert not any(v.requires_grad for n, v in sam.named_parameters() if "lora" in n)


@pytest.mark.parametrize("group", ["adapters", "decoder"])
def test_a_group_without_parameters_is_refused(group: str) -> None:
    with pytest.raises(ConfigError, match=f'no parameter of "{group}".*mask-decoder'):
        set_trainable(small_sam(), (group,))


@pytest.mark.parametrize("kinds", ["p", "b", "pb", "m", "pbm"])
def test_prompts_of_many_images_equal_one_at_a_time(kinds: str) -> None:
    sam, rows = small_sam().double(), torch.tensor([2, 0, 2, 1, 0])
    embeddings, prompts = sam.encode(images_of(3, 64)), prompts_of(5, 64, kinds, torch.float64)
    together = sam.decode(embeddings, rows, prompts, True)
    fields = ("points", "point_labels", "boxes", "mask_logits")
    for index, row in enumerate(rows):
        one = {f: v[index : index + 1] for f in fields if (v := getattr(prompts, f)) is not None}
        alone = sam.decode(embeddings[row : row + 1], torch.tensor([0]), Prompts(**one), True)
        for whole, part in zip(together, alone, strict=True):
            torch.testing.assert_close(whole[index : index + 1], part, rtol=1e-9, atol=1e-9)


def test_a_single_mask_is_the_first_of_four_and_the_rest_have_gradients_of_zero() -> None:
    sam = small_sam().requires_grad_(True)
    embeddings = sam.encode(images_of(1, 64)).detach()
    logits, iou = sam.decode(embeddings, torch.zeros(2, dtype=torch.int64), prompts_of(2, 64, "b"), False)
    assert logits.shape == (2, 1, 16, 16)
    assert iou.shape == (2, 1)
    logits.sum().backward()
    heads = [mlp.layers[2].weight.grad for mlp in sam.mask_decoder.output_hypernetworks_mlps]
    assert heads[0].any()
    assert all(head is not None and not head.any() for head in heads[1:])


def test_where_a_missing_point_stands_does_not_matter() -> None:
    sam, labels = small_sam(), torch.tensor([[1, -1]])
    here, there = (
        sam.prompt_encoder(Prompts(points=torch.tensor([[[3.0, 4.0], place]]), point_labels=labels))[0]
        for place in ([0.0, 0.0], [50.0, 9.0])
    )
    assert torch.equal(here, there)
    assert here.shape == (1, 3, 32)  # and one more that says "no box"


def test_prompts_that_cannot_be_are_refused() -> None:
    sam = small_sam()
    embeddings, box = torch.zeros(1, 32, 4, 4), prompts_of(2, 64, "b")
    with pytest.raises(ValueError, match="no prompt"):
        sam.decode(embeddings, torch.tensor([0]), Prompts(), True)
    with pytest.raises(ValueError, match="without point_labels"):
        sam.decode(embeddings, torch.tensor([0]), Prompts(points=torch.zeros(1, 1, 2)), True)
    with pytest.raises(ValueError, match="2 prompts for 1"):
        sam.decode(embeddings, torch.tensor([0]), box, True)


def test_images_of_another_side_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(B, 3, 64, 64\)"):
        small_sam(64).encode(images_of(1, 80))


def test_channel_order_is_what_the_encoder_sees() -> None:
    images = images_of(2, 64)
    rgb, bgr = small_sam(), small_sam(channel_order="bgr")
    assert torch.equal(bgr.encode(images), rgb.encode(images.flip(1)))
    grey = torch.full((1, 3, 64, 64), 124, dtype=torch.uint8)
    expected = (124 - torch.tensor([123.675, 116.28, 103.53])) / torch.tensor([58.395, 57.12, 57.375])
    torch.testing.assert_close(rgb.normalised(grey)[0, :, 0, 0], expected)


@pytest.mark.parametrize("adapter", ["sam-med2d", "lora"])
def test_recomputing_activations_changes_no_gradient(adapter: str) -> None:
    sam = small_sam(adapter=adapter, trainable=("adapters",))
    images = images_of(2, 64)
    gradients = []
    for recompute in (False, True):
        sam.configure(recompute=recompute)
        sam.zero_grad()
        sam.encode(images).square().sum().backward()
        gradients.append([value.grad for value in sam.parameters() if value.requires_grad])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    assert any(gradient.any() for gradient in gradients[0])


def test_bf16_gives_float32_results_close_to_float32() -> None:
    sam, images, rows = small_sam(adapter="sam-med2d"), images_of(2, 64), torch.tensor([0, 1])
    exact = sam.encode(images)
    sam.configure(precision="bf16")
    rough = sam.encode(images)
    logits, iou = sam.decode(exact, rows, prompts_of(2, 64, "pbm"), True)
    assert rough.dtype == logits.dtype == iou.dtype == torch.float32
    assert 0 < (rough - exact).abs().mean() < 0.05 * exact.abs().mean()


@pytest.mark.slow
def test_compiled_equals_eager() -> None:
    sam, images, rows = small_sam(adapter="sam-med2d"), images_of(2, 64), torch.tensor([0, 1, 1])
    prompts = prompts_of(3, 64, "pm")
    eager = (exact := sam.encode(images), *sam.decode(exact, rows, prompts, True))
    names = list(sam.state_dict())
    sam.configure(compiled=True)
    compiled = (sam.encode(images), *sam.decode(exact, rows, prompts, True))
    assert list(sam.state_dict()) == names
    torch.testing.assert_close(compiled, eager, rtol=1e-4, atol=1e-4)
