"""Weights in and out: every published layout, other image sizes, and files that must be refused."""

from __future__ import annotations

import os
import pickle
import random
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from sam_kit import SMALL, images_of, small_sam
from torch.nn import functional

from medcurate.errors import ConfigError
from medcurate.train.model.checkpoint import load_checkpoint, original_state, read_state, save_original
from medcurate.train.model.sam import Sam


def blank(side: int = 64, **facts: object) -> Sam:
    """The same model with other weights."""
    sam = small_sam(side, **facts)
    for value in sam.parameters():
        value.data.fill_(0.5)
    sam.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix.zero_()
    return sam


def equal(a: Sam, b: Sam) -> bool:
    return all(torch.equal(x, b.state_dict()[name]) for name, x in a.state_dict().items())


def with_optimiser(state: dict[str, torch.Tensor], path: Path) -> None:
    """As SAM-Med2D saves: the optimiser itself is pickled beside the weights."""
    value = torch.nn.Parameter(torch.zeros(2))
    optimiser = torch.optim.Adam([value])
    value.sum().backward()
    optimiser.step()
    torch.save({"model": state, "optimizer": optimiser}, path)


LAYOUTS = {
    "plain.pth": torch.save,
    "medsam.pt": lambda state, path: torch.save(
        {"model": state, "epoch": 3, "optimizer": {"state": {}}}, path
    ),
    "sam-med2d.pth": with_optimiser,
    "ddp.pth": lambda state, path: torch.save({"model": {f"module.{k}": v for k, v in state.items()}}, path),
    "plain.safetensors": save_file,
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_published_layout_is_read(name: str, tmp_path: Path) -> None:
    sam, other = small_sam(adapter="sam-med2d"), blank(adapter="sam-med2d")
    state = {key: value.contiguous() for key, value in sam.state_dict().items()}
    LAYOUTS[name](state, tmp_path / name)
    report = load_checkpoint(other, tmp_path / name)
    assert equal(sam, other)
    assert set(report.matched) == set(state)
    assert not (report.missing)
    assert not (report.unexpected)
    assert not (report.interpolated)
    assert not report.reinitialised


@pytest.mark.parametrize("name", ["out.pth", "out.safetensors"])
@pytest.mark.parametrize("adapter", ["none", "sam-med2d"])
def test_written_weights_are_in_the_published_layout(name: str, adapter: str, tmp_path: Path) -> None:
    sam, other = small_sam(adapter=adapter), blank(adapter=adapter)
    save_original(sam, tmp_path / name)
    if name.endswith("pth"):
        content = torch.load(tmp_path / name, weights_only=True)
        assert ("model" in content) == (adapter == "sam-med2d")
        state = content.get("model", content)
    else:
        state = load_file(tmp_path / name)
    assert set(state) == set(sam.state_dict())
    assert all(value.is_contiguous() for value in state.values())
    load_checkpoint(other, tmp_path / name)
    assert equal(sam, other)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_equal_weights_are_equal_bytes(tmp_path: Path) -> None:
    for name in ("a.pth", "b.pth"):
        save_original(small_sam(), tmp_path / name)
    assert (tmp_path / "a.pth").read_bytes() == (tmp_path / "b.pth").read_bytes()


def test_lora_is_written_as_a_plain_sam_that_computes_the_same(tmp_path: Path) -> None:
    sam, plain = small_sam(adapter="lora", lora_rank=2), blank()
    save_original(sam, tmp_path / "out.pth")
    report = load_checkpoint(plain, tmp_path / "out.pth")
    assert not report.unexpected
    torch.testing.assert_close(
        plain.encode(images_of(1, 64)), sam.encode(images_of(1, 64)), rtol=1e-4, atol=1e-4
    )


def test_adapters_may_be_missing_and_are_reported(tmp_path: Path) -> None:
    save_original(small_sam(), tmp_path / "sam.pth")
    other = blank(adapter="sam-med2d")
    report = load_checkpoint(other, tmp_path / "sam.pth")
    assert report.missing
    assert all(".Adapter." in name for name in report.missing)
    assert (other.image_encoder.blocks[0].Adapter.norm.weight == 0.5).all()
    assert f"{len(report.missing)} not in the file (image_encoder.blocks.0.Adapter" in str(report)


def test_adapters_that_the_model_lacks_are_reported(tmp_path: Path) -> None:
    save_original(small_sam(adapter="sam-med2d"), tmp_path / "med2d.pth")
    report = load_checkpoint(blank(), tmp_path / "med2d.pth")
    assert len(report.unexpected) == 3 * 6
    assert "18 in the file and unused" in str(report)


def test_positions_of_another_size_are_interpolated_and_windows_are_not(tmp_path: Path) -> None:
    large, small = small_sam(128), blank(64)
    save_original(large, tmp_path / "large.pth")
    report = load_checkpoint(small, tmp_path / "large.pth")
    block = "image_encoder.blocks.1.attn.rel_pos_"
    assert set(report.interpolated) == {"image_encoder.pos_embed", f"{block}h", f"{block}w"}
    state, theirs = small.state_dict(), large.state_dict()
    # As published: positions bilinearly over the grid, relative ones bilinearly over (distance, channel).
    grid = theirs["image_encoder.pos_embed"].permute(0, 3, 1, 2)
    expected = functional.interpolate(grid, (4, 4), mode="bilinear", align_corners=False).permute(0, 2, 3, 1)
    torch.testing.assert_close(state["image_encoder.pos_embed"], expected)
    for axis in "hw":
        table = theirs[f"{block}{axis}"][None, None]
        expected = functional.interpolate(table, (7, 16), mode="bilinear", align_corners=False)[0, 0]
        torch.testing.assert_close(state[f"{block}{axis}"], expected)
    assert torch.equal(
        state["image_encoder.blocks.0.attn.rel_pos_h"], theirs["image_encoder.blocks.0.attn.rel_pos_h"]
    )


@pytest.mark.parametrize("wished", [False, True])
def test_heads_that_were_trained_for_this_very_model_are_always_kept(tmp_path: Path, wished: bool) -> None:
    """The published loader loses them only where it starts from SAM, of another size or without adapters."""
    sam, other = small_sam(adapter="sam-med2d"), blank(adapter="sam-med2d")
    save_original(sam, tmp_path / "sam-med2d.pth")
    report = load_checkpoint(other, tmp_path / "sam-med2d.pth", reinitialise_heads=wished)
    assert not report.reinitialised
    assert equal(other, sam)


@pytest.mark.parametrize("changed", [{"side": 32}, {"adapter": "sam-med2d"}], ids=["size", "adapters"])
def test_heads_of_sam_are_kept_unless_the_published_quirk_is_asked_for(
    tmp_path: Path, changed: dict[str, object]
) -> None:
    sam = small_sam()
    save_original(sam, tmp_path / "sam.pth")
    for wished in (False, True):
        other = blank(**changed)  # type: ignore[arg-type]
        report = load_checkpoint(other, tmp_path / "sam.pth", reinitialise_heads=wished)
        kept = other.mask_decoder.mask_tokens.weight
        assert torch.equal(kept, sam.mask_decoder.mask_tokens.weight) is not wished
        left_out = {name.split(".")[1] for name in report.reinitialised}
        assert left_out == (
            {"mask_tokens", "output_hypernetworks_mlps", "iou_prediction_head"} if wished else set()
        )
        assert torch.equal(other.mask_decoder.iou_token.weight, sam.mask_decoder.iou_token.weight)


class Bomb:
    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, ("exploded",))


def no_names(path: Path) -> None:
    torch.save({"vision_encoder.pos_embed": torch.zeros(2)}, path)


def half_of_it(path: Path) -> None:
    state = original_state(small_sam())
    torch.save({name: value for name, value in state.items() if name.startswith("image_encoder.")}, path)


def other_width(path: Path) -> None:
    save_original(small_sam(dims=SMALL.model_copy(update={"width": 48})), path)


def other_window(path: Path) -> None:
    save_original(small_sam(dims=SMALL.model_copy(update={"window": 4})), path)


def code(path: Path) -> None:
    path.write_bytes(pickle.dumps({"model": Bomb()}, protocol=2))


def cut_off(path: Path) -> None:
    save_original(small_sam(), path)
    path.write_bytes(path.read_bytes()[:-5000])


REFUSED = {
    no_names: "none of its 1 tensors (vision_encoder.pos_embed) has a name of SAM. Give a checkpoint in the layout",
    half_of_it: "tensors of the model are not in it (prompt_encoder.",
    other_width: "image_encoder.pos_embed has shape (1, 4, 4, 48), the model's has (1, 4, 4, 32). Name in [model]",
    other_window: "blocks.0.attn.rel_pos_h has shape (7, 16), the model's has (5, 16)",
    code: "holds Python objects beside tensors",
    cut_off: "is damaged or no checkpoint",
    lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\n"): (
        'is no checkpoint; it begins with "version https://git-lfs.github.com/spec/v1 oid sha256:1". Fetch it again.'
    ),
    lambda path: path.write_text("junk\n"): 'is no checkpoint; it begins with "junk". Fetch it again.',
    Path.mkdir: "is a folder, and weights are one file (.pth or .safetensors): of a run, the model.safetensors",
    lambda path: path.write_bytes(b""): "is damaged or no checkpoint",
    lambda path: torch.save([1, 2], path): "holds no state dict",
    lambda path: None: "no such checkpoint",
}


@pytest.mark.parametrize("make", REFUSED, ids=lambda make: make.__name__)
def test_what_cannot_be_used_is_refused_and_nothing_changes(
    make: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path, sam = tmp_path / "file.pth", blank()
    make(path)
    with pytest.raises(ConfigError, match=re.escape(REFUSED[make])) as caught:
        load_checkpoint(sam, path)
    assert str(path) in str(caught.value)
    assert equal(sam, blank())
    assert not (tmp_path / "exploded").exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_with_changed_bytes_is_loaded_or_refused(tmp_path: Path, zipped: bool) -> None:
    """Whatever torch's unpickler meets there (KeyError, IndexError, struct.error, …) is one sentence."""
    path, chance, refused = tmp_path / "file.pth", random.Random(0), []
    torch.save({"a.b": torch.ones(3)}, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    for _ in range(250):
        damaged = bytearray(whole)
        for _ in range(3):
            damaged[chance.randrange(len(whole))] = chance.randrange(256)
        path.write_bytes(damaged)
        try:
            read_state(path)
        except ConfigError as error:
            refused.append(str(error))
    assert len(refused) > 30
    assert not any("\n" in message for message in refused)


def test_a_damaged_safetensors_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(ConfigError, match="is damaged or no checkpoint"):
        load_checkpoint(blank(), tmp_path / "a.safetensors")
