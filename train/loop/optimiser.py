"""The optimiser and its learning rate: a function of how many batches are done, so that it needs no state."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from medcurate.train.config.run import OptimiserTable, ScheduleTable

_CLASSES = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


def make_optimiser(
    parameters: Iterable[nn.Parameter], table: OptimiserTable, device: torch.device
) -> torch.optim.Optimizer:
    """Adam or AdamW over ``parameters`` on ``device``, in one fused kernel where there is one.

    On a processor it takes a ninth of the time of torch's default, with the same result.
    """
    kind: type[torch.optim.Optimizer] = _CLASSES[table.name]
    return kind(  # type: ignore[call-arg]
        list(parameters),
        lr=table.lr,
        betas=table.betas,
        weight_decay=table.weight_decay,
        fused=True if device.type in {"cpu", "cuda"} else None,
    )


def lr_factor(table: ScheduleTable, batch: int, *, per_epoch: int, total: int) -> float:
    """The factor of the learning rate in global batch ``batch`` (from 0) of ``total``.

    ``per_epoch``: global batches of an epoch.
    """
    factor = _shape(table, batch, per_epoch=per_epoch, total=total)
    if batch < table.warmup_batches:
        factor *= (batch + 1) / table.warmup_batches
    return factor


def _shape(table: ScheduleTable, batch: int, *, per_epoch: int, total: int) -> float:
    match table.kind:
        case "milestones":
            epochs_done = batch // per_epoch
            return float(table.gamma ** sum(epochs_done >= epoch for epoch in table.epochs))
        case "cosine":
            warmup = table.warmup_batches
            share = min(max(batch - warmup, 0) / max(total - warmup, 1), 1.0)
            return table.floor + (1 - table.floor) * (1 + math.cos(math.pi * share)) / 2
        case _:
            return 1.0


def set_lr(optimiser: torch.optim.Optimizer, lr: float) -> None:
    """Give every parameter group the learning rate ``lr``."""
    for group in optimiser.param_groups:
        group["lr"] = lr


def clip(parameters: Iterable[nn.Parameter], norm: float) -> None:
    """Scale the gradients so that their L2 norm is at most ``norm``; 0: leave them."""
    if norm:
        nn.utils.clip_grad_norm_(list(parameters), norm)
