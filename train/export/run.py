"""An export: from a checkpoint to files that other tools read."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from medcurate.commit import committed_folder, write_json
from medcurate.errors import ConfigError
from medcurate.train.geometry import PADDING
from medcurate.train.model.checkpoint import save_original
from medcurate.train.prediction.loading import Trained, load_trained

Format = Literal["pth", "safetensors", "onnx"]
ENCODER_FILE, DECODER_FILE, ABOUT_FILE = "encoder.onnx", "decoder.onnx", "model.json"
_ONNX_BYTES = 2 << 30  # that one file's message can hold
_PACKAGES = ("onnx", "onnxscript")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What ``medcurate export`` is told; its help says what each means. ``out`` None: named after the checkpoint."""

    checkpoint: str
    format: Format = "pth"
    out: Path | None = None
    recipe: str = ""


def export(options: Options) -> tuple[Path, ...]:
    """Write the checkpoint in another format; the files written. Raises ConfigError, OutputError."""
    _check(options)
    trained = load_trained(options.checkpoint, recipe=options.recipe, device="cpu")
    out = options.out or Path(_default_name(trained.name, options.format))
    _check_free(out, options.format)
    if options.format == "onnx":
        return _onnx(trained, out)
    save_original(trained.sam, out)
    return (out,)


def _check(options: Options) -> None:
    missing = [name for name in _PACKAGES if options.format == "onnx" and not find_spec(name)]
    if missing:
        raise ConfigError(f'--format onnx needs the package "{missing[0]}": pip install "medcurate[onnx]"')
    wanted = f".{options.format}"
    if options.out and options.format != "onnx" and options.out.suffix != wanted:
        raise ConfigError(f"--out {options.out}: with --format {options.format} its name ends in {wanted}")
    if options.out and options.format == "onnx" and (options.out.is_file() or options.out.suffix == wanted):
        raise ConfigError(f"--out {options.out}: --format onnx writes several files; give a folder")
    if options.out:
        _check_free(options.out, options.format)


def _check_free(out: Path, kind: Format) -> None:
    """Raise ConfigError where something lies at ``out``: it may be the very weights that are read."""
    empty = kind == "onnx" and out.is_dir() and not any(out.iterdir())
    if os.path.lexists(out) and not empty:
        raise ConfigError(
            f"{out}: is there already, and is not overwritten; give another name with --out (-o)."
        )


def _default_name(name: str, kind: Format) -> str:
    plain = name.replace("/", "-")
    return f"{plain}-onnx" if kind == "onnx" else f"{plain}.{kind}"


def _onnx(trained: Trained, out: Path) -> tuple[Path, ...]:
    """The two networks and what has to be known to use them, in one folder: all of it or nothing."""
    from medcurate.train.export.onnx import export_decoder, export_encoder

    largest = sum(value.nbytes for value in trained.sam.image_encoder.state_dict().values())
    if largest >= _ONNX_BYTES:
        raise ConfigError(
            f"{trained.name}: its image encoder has {largest / 1e9:.1f} GB of weights, and an ONNX file holds 2 GiB. "
            "Export a smaller model, or with --format safetensors."
        )
    with committed_folder(out) as temporary:
        with _quiet():
            export_encoder(trained.sam, temporary / ENCODER_FILE)
            export_decoder(trained.sam, temporary / DECODER_FILE)
        write_json(temporary / ABOUT_FILE, _about(trained))
    return (out / ENCODER_FILE, out / DECODER_FILE, out / ABOUT_FILE)


def _about(trained: Trained) -> dict[str, Any]:
    data, prompts = trained.recipe.data, trained.recipe.prompts
    return {
        "checkpoint": trained.name,
        "image_side": trained.sam.side,
        "fit": data.fit,
        "interpolation": data.interpolation,
        "padding": PADDING[trained.recipe.model.channel_order],
        "box_end": prompts.box.end,
        "multimask": trained.recipe.steps.multimask,
        "feedback": trained.recipe.steps.feedback,
        "intensity": dict(trained.intensity),
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's warnings about its own insides."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
