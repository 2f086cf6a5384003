"""``[optimiser]``, ``[schedule]`` and ``[run]``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from medcurate.tables import Strict

Steps = Annotated[int, Field(ge=0)]
Decay = Annotated[float, Field(ge=0, lt=1)]


class OptimiserTable(Strict):
    """``[optimiser]``. ``clip_norm``: bound of the gradient's L2 norm over all parameters; 0: none."""

    name: Literal["adam", "adamw"] = "adam"
    lr: Annotated[float, Field(gt=0)] = 1e-4
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    clip_norm: Annotated[float, Field(ge=0)] = 0.0


class ScheduleTable(Strict):
    """``[schedule]`` of the learning rate, as a factor of ``optimiser.lr``.

    "constant": 1. "milestones": ``gamma`` more often by one after each of ``epochs``. "cosine": from 1 to ``floor`` at
    the run's end. ``warmup_batches``: global batches in which the factor rises linearly from 0.
    """

    kind: Literal["constant", "milestones", "cosine"] = "constant"
    epochs: tuple[Annotated[int, Field(ge=1)], ...] = ()
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.5
    floor: Annotated[float, Field(ge=0, le=1)] = 0.0
    warmup_batches: Steps = 0

    @model_validator(mode="after")
    def _epochs(self) -> ScheduleTable:
        if (self.kind == "milestones") != bool(self.epochs):
            raise ValueError('epochs go with kind = "milestones", and it with them')
        for key, kind, unused in (("gamma", "milestones", 0.5), ("floor", "cosine", 0.0)):
            value = getattr(self, key)
            if value != unused and self.kind != kind:
                raise ValueError(
                    f'{key} = {value:g} has no effect on kind = "{self.kind}": say kind = "{kind}", or leave {key} out'
                )
        if list(self.epochs) != sorted(set(self.epochs)):
            raise ValueError(f"epochs must rise; given: {list(self.epochs)}")
        return self


class RunTable(Strict):
    """``[run]``. A batch is global: ``batch_images`` images on all processes together, whatever their number."""

    epochs: Steps = 0
    batches: Steps = 0  # in place of epochs: global batches in all
    batch_images: Annotated[int, Field(ge=1)] = 8
    micro_batch: Steps = 0  # images of a process at a time, gradients accumulate; 0: its whole share
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = 0
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = False
    stop_above: Annotated[float, Field(ge=0)] = (
        1000.0  # a step's loss that ends the run; 0: any finite one is fine
    )
    checkpoint_every: Steps = 1000  # global batches; 0: at the end of every epoch only
    keep: Annotated[int, Field(ge=1)] = 3  # checkpoints
    log_every: Annotated[int, Field(ge=1)] = 20  # global batches

    @model_validator(mode="after")
    def _length(self) -> RunTable:
        if bool(self.epochs) == bool(self.batches):
            raise ValueError(
                f"exactly one of epochs and batches, the other 0; given: {self.epochs} and {self.batches}"
            )
        return self
