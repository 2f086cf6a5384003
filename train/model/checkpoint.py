"""Weights in and out, in the layouts that SAM, SAM-Med2D and MedSAM publish."""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor
from torch.nn import functional

from medcurate.commit import committed
from medcurate.errors import ConfigError
from medcurate.train.model.attention import Attention
from medcurate.train.model.build import GROUPS
from medcurate.train.model.lora import LoraQkv
from medcurate.train.model.sam import Sam

HEADS = (
    "mask_decoder.mask_tokens.",
    "mask_decoder.output_hypernetworks_mlps.",
    "mask_decoder.iou_prediction_head.",
)
"""What the published SAM-Med2D leaves at random when it starts from SAM."""
_SHOWN = 3
_TEXT_BYTES = 60
_ZIP = b"PK"
_DAMAGED = (
    RuntimeError,
    EOFError,
    SafetensorError,
    LookupError,
    ValueError,
    TypeError,
    AssertionError,
    struct.error,
)
"""What torch's and safetensors' readers raise of files that are cut, changed or something else altogether: torch's
unpickler looks up what is not there, pops from an empty stack, and takes bytes for numbers and names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReport:
    """Names of parameters and buffers. ``matched`` came from the file (``interpolated`` among them, to another size);
    ``missing`` kept their values, ``reinitialised`` by wish; ``unexpected`` stand in the file only."""

    matched: tuple[str, ...]
    interpolated: tuple[str, ...]
    missing: tuple[str, ...]
    reinitialised: tuple[str, ...]
    unexpected: tuple[str, ...]

    def __str__(self) -> str:
        parts = [f"{len(self.matched)} tensors loaded"]
        for words, names in (
            ("interpolated", self.interpolated),
            ("not in the file", self.missing),
            ("reinitialised", self.reinitialised),
            ("in the file and unused", self.unexpected),
        ):
            if names:
                parts.append(f"{len(names)} {words} ({_few(names)})")
        return "; ".join(parts)


def load_checkpoint(
    sam: Sam,
    path: str | Path,
    *,
    reinitialise_heads: bool = False,
    state: Mapping[str, Tensor] | None = None,
) -> LoadReport:
    """Fill ``sam`` from ``path``: .safetensors, or .pth read without executing anything (weights_only).

    ``state``: what ``read_state`` found there, where it has been asked already.

    A plain state dict or one under ``model``, with or without ``module.`` before the names. Position embeddings of
    another image size are interpolated bilinearly, the relative positions of global blocks linearly, as published.
    Adapters may be missing. With ``reinitialise_heads`` mask tokens, hypernetworks and IoU head keep their random
    values as in the published SAM-Med2D, which does so where a file does not fit as it is: SAM's own, of another image
    size and without adapters, and not those that it has trained itself. Raises ConfigError where the file cannot be
    read, nothing or not all of the rest matches, or a shape differs; ``sam`` is then unchanged.
    """
    path = Path(path)
    found = read_state(path) if state is None else state
    own = sam.state_dict()
    fits = all(name in found and found[name].shape == value.shape for name, value in own.items())
    left_out = HEADS if reinitialise_heads and not fits else ()
    fitted, interpolated = {}, []
    for name, value in found.items():
        if name not in own or name.startswith(left_out):
            continue
        fitted[name] = _fitted(sam, name, value, own[name])
        if fitted[name] is not value:
            interpolated.append(name)
        if fitted[name].shape != own[name].shape:
            raise ConfigError(_mismatch(path, name, value, own[name]))
    absent = tuple(name for name in own if name not in fitted)
    wished = tuple(name for name in absent if name.startswith(left_out))
    report = LoadReport(
        matched=tuple(fitted),
        interpolated=tuple(interpolated),
        missing=tuple(name for name in absent if name not in wished),
        reinitialised=wished,
        unexpected=tuple(name for name in found if name not in own),
    )
    _check(path, report)
    sam.load_state_dict(fitted, strict=False)
    return report


def _check(path: Path, report: LoadReport) -> None:
    if not report.matched:
        raise ConfigError(
            f"{path}: none of its {len(report.unexpected)} tensors ({_few(report.unexpected)}) has a name of SAM. "
            "Give a checkpoint in the layout of segment-anything, SAM-Med2D or MedSAM."
        )
    lost = [name for name in report.missing if not GROUPS["adapters"](name)]
    if lost:
        raise ConfigError(
            f"{path}: {len(lost)} tensors of the model are not in it ({_few(lost)}). "
            "Name in [model] the kind that the checkpoint was made for, or give a whole checkpoint."
        )


def _mismatch(path: Path, name: str, value: Tensor, own: Tensor) -> str:
    return (
        f"{path}: {name} has shape {tuple(value.shape)}, the model's has {tuple(own.shape)}. "
        "Name in [model] the kind, or the dims, that the checkpoint was made for."
    )


def _few(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")


def read_state(path: Path) -> dict[str, Tensor]:
    """Tensors by name of a .safetensors or .pth file, on the CPU. Raises ConfigError when it cannot be read."""
    try:
        content = load_file(path) if path.suffix == ".safetensors" else _unpickled(path)
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such checkpoint") from error
    except IsADirectoryError as error:
        raise ConfigError(
            f"{path}: is a folder, and weights are one file (.pth or .safetensors): of a run, the model.safetensors "
            "of one of its checkpoints."
        ) from error
    except pickle.UnpicklingError as error:
        raise ConfigError(
            _told_text(path)
            or f"{path}: holds Python objects beside tensors, which are not loaded because they could run anything. "
            "Save its state dict alone, as .safetensors or .pth, where it was made."
        ) from error
    except OSError as error:
        raise ConfigError(_told_damage(path, error)) from error
    except _DAMAGED as error:
        raise ConfigError(_told_text(path) or _told_damage(path, error)) from error
    state = content.get("model", content) if isinstance(content, Mapping) else content
    if not isinstance(state, Mapping):
        raise ConfigError(
            f"{path}: holds no state dict. Save model.state_dict(), or a dict with it under `model`."
        )
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    if tensors and all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    return tensors


def _text_in_place_of(path: Path) -> str:
    """The start of a text that was saved as weights: the page of a login, a pointer of git-lfs; else empty."""
    with open(path, "rb") as stream:
        start = stream.read(_TEXT_BYTES)
    return " ".join(start.decode().split()) if start.isascii() and not start.startswith(_ZIP) else ""


def _told_text(path: Path) -> str:
    """The message for a text that was saved as weights; empty where the file is none."""
    start = _text_in_place_of(path)
    return f'{path}: is no checkpoint; it begins with "{start}". Fetch it again.' if start else ""


def _told_damage(path: Path, error: BaseException) -> str:
    return f"{path}: is damaged or no checkpoint ({_first_line(error)}). Fetch it again."


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]


class _Ignored:
    """Stands for the optimiser that SAM-Med2D pickled beside its weights; takes its state and forgets it."""

    def __setstate__(self, state: object) -> None: ...


def _table(*_: object) -> dict[object, object]:
    """Stands for the optimiser's ``defaultdict``."""
    return {}


def _unpickled(path: Path) -> Any:
    optimisers = [(_Ignored, f"torch.optim.{name}") for name in ("adam.Adam", "adamw.AdamW", "sgd.SGD")]
    with torch.serialization.safe_globals([dict, (_table, "collections.defaultdict"), *optimisers]):
        return torch.load(path, map_location="cpu", weights_only=True)


def _fitted(sam: Sam, name: str, value: Tensor, own: Tensor) -> Tensor:
    """``value`` interpolated to the model's size where it is a position of another image size, else itself."""
    if value.shape == own.shape:
        return value
    if name == "image_encoder.pos_embed" and value.ndim == own.ndim and value.shape[-1] == own.shape[-1]:
        grid = value.float().permute(0, 3, 1, 2)
        return functional.interpolate(grid, own.shape[1:3], mode="bilinear").permute(0, 2, 3, 1)
    if name in _global_positions(sam) and value.ndim == own.ndim and value.shape[-1] == own.shape[-1]:
        return functional.interpolate(value.float().T[None], own.shape[:1], mode="linear")[0].T
    return value


def _global_positions(sam: Sam) -> set[str]:
    """Names of the relative positions of blocks without windows."""
    return {
        f"image_encoder.{name}.rel_pos_{axis}"
        for name, module in sam.image_encoder.named_modules()
        if isinstance(module, Attention) and not module.window
        for axis in "hw"
    }


def original_state(sam: Sam) -> dict[str, Tensor]:
    """The state dict as segment-anything (or SAM-Med2D, if ``sam`` has its adapters) names it, contiguous on the CPU.

    Low-rank updates are merged into the weights that they belong to, so that the result is a plain SAM.
    """
    state = {name: value for name, value in sam.state_dict().items() if ".lora_" not in name}
    for name, module in sam.named_modules():
        if isinstance(module, LoraQkv):
            state[f"{name}.weight"] = module.merged()
    return {name: value.detach().cpu().contiguous() for name, value in state.items()}


def save_original(sam: Sam, path: str | Path) -> None:
    """Write ``original_state`` for other SAM tools: a plain .pth, under ``model`` where SAM-Med2D's adapters are in it,
    or .safetensors by the name's ending. Appears whole or not at all. Raises OutputError when it cannot be written."""
    path = Path(path)
    state = original_state(sam)
    adapted = any(".Adapter." in name for name in state)
    with committed(path) as stream:
        if path.suffix == ".safetensors":
            stream.write(save(state))
        else:
            content = io.BytesIO()
            torch.save({"model": state} if adapted else state, content)
            stream.write(content.getbuffer())
