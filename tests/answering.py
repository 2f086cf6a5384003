"""A model whose answers are known: it fills the box that it is given, or a square around the last point."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from medcurate.tables import check_model
from medcurate.train.config.recipe import TrainRecipe
from medcurate.train.evaluation import candidates, models
from medcurate.train.loop.checkpoint import GROUPS_FILE, RUN_FILE
from medcurate.train.model.build import build_sam
from medcurate.train.model.checkpoint import save_original
from medcurate.train.prediction.loading import Trained
from medcurate.train.types import Prompts

# Enough channels that a mask that is given back matters: a norm over one channel forgets what was in it.
TINY = {
    "width": 16, "depth": 2, "heads": 2, "global_blocks": [1], "window": 3, "prompt_width": 16, "mask_channels": 16,
    "decoder_heads": 2, "decoder_mlp": 32, "iou_hidden": 16,
}  # fmt: skip


def recipe_of(side: int = 64, fit: str = "resize", **prompts: object) -> TrainRecipe:
    value = {
        "name": "test",
        "title": "Test",
        "model": {"kind": "tiny", "dims": TINY, "image_side": side, "trainable": ["mask-decoder"]},
        "data": {"fit": fit},
        "prompts": prompts,
        "steps": {"method": "decoder-only"},
        "run": {"epochs": 1},
    }
    return check_model(value, TrainRecipe, "test")


def write_tiny_recipe(folder: Path) -> str:
    """A train recipe of models of ``TINY``'s size, in ``folder``; its path."""
    dims = ", ".join(f"{name} = {value}" for name, value in TINY.items())
    (folder / "recipe.toml").write_text(
        'name = "test"\ntitle = "t"\n[model]\nkind = "tiny"\nimage_side = 64\ntrainable = ["mask-decoder"]\n'
        f'dims = {{ {dims} }}\n[steps]\nmethod = "decoder-only"\n[run]\nepochs = 1\n'
    )
    return str(folder / "recipe.toml")


def write_run(folder: Path, *, side: int = 64, groups: Sequence[str] = ()) -> Path:
    """A run with one checkpoint, the same wherever it is."""
    add_checkpoint(folder, 7, seed=3, side=side)
    (folder / RUN_FILE).write_text(json.dumps({"recipe": recipe_of(side).model_dump(mode="json")}))
    (folder / GROUPS_FILE).write_text(json.dumps(list(groups)))
    return folder


def add_checkpoint(run: Path, batches: int, *, seed: int, side: int = 64) -> None:
    torch.manual_seed(seed)
    sam = build_sam(recipe_of(side).model)
    save_original(sam, run / f"checkpoints/step-{batches:08d}/model.safetensors")


class AnsweringSam(nn.Module):
    """Stands for a ``Sam`` of ``side`` pixels. ``asked``: the prompts of every call."""

    def __init__(self, side: int, reach: int = 8, iou: float = 0.9) -> None:
        super().__init__()
        self.side, self.reach, self.iou = side, reach, iou
        self.register_buffer("pixel_mean", torch.zeros(3, 1, 1), persistent=False)
        self.asked: list[Prompts] = []
        self.images: list[torch.Tensor] = []

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        self.images.append(images)
        return torch.zeros(len(images), 4, self.side // 16, self.side // 16)

    def decode(self, embeddings, image_of_prompt, prompts: Prompts, multimask: bool):
        self.asked.append(prompts)
        y, x = torch.meshgrid(*[torch.arange(self.side // 4) * 4 + 1.5] * 2, indexing="ij")
        x0, y0, x1, y1 = (column[:, None, None] for column in self._boxes(prompts).unbind(1))
        inside = (x > x0 - 1) & (x < x1 + 1) & (y > y0 - 1) & (y < y1 + 1)
        count = 3 if multimask else 1
        logits = (inside.float() * 20 - 10)[:, None].repeat(1, count, 1, 1)
        return logits, torch.full((len(image_of_prompt), count), self.iou)

    def _boxes(self, prompts: Prompts) -> torch.Tensor:
        if prompts.boxes is not None:
            return prompts.boxes
        assert prompts.points is not None
        last = prompts.points[:, -1]
        return torch.cat([last - self.reach, last + self.reach], dim=1)


def answering(
    side: int = 64, fit: str = "resize", *, groups=None, iou: float = 0.9, **prompts: object
) -> Trained:
    sam = AnsweringSam(side, iou=iou)
    return Trained(sam=sam, recipe=recipe_of(side, fit, **prompts), name="answering", groups=groups)  # type: ignore[arg-type]


def every_checkpoint_is(monkeypatch: pytest.MonkeyPatch, trained: Trained) -> None:
    """In evaluations, whatever path is given."""
    monkeypatch.setattr(candidates, "checkpoint_at", Path)
    monkeypatch.setattr(models, "load_trained", lambda *_, **__: trained)


def block(shape: tuple[int, int], x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    """bool mask of columns [x0, x1) and rows [y0, y1)."""
    mask = np.zeros(shape, np.bool_)
    mask[y0:y1, x0:x1] = True
    return mask
