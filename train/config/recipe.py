"""The ``TrainRecipe``: everything that decides a training run, and nothing else."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated

from pydantic import Field, model_validator

from medcurate.tables import Strict
from medcurate.train.config.data import DataTable
from medcurate.train.config.model import ModelTable
from medcurate.train.config.objective import Interactive, LossTable, Steps
from medcurate.train.config.prompts import PromptTable
from medcurate.train.config.run import OptimiserTable, RunTable, ScheduleTable

Name = Annotated[
    str,
    Field(
        pattern=r"^[a-z0-9][a-z0-9-]{0,39}$",
        description="lower-case letters, digits and hyphens, starting with a letter or digit, at most 40",
    ),
]


class TrainRecipe(Strict):
    """``recipes/train/<name>.toml``, with what it ``extends`` filled in."""

    name: Name
    title: str
    extends: str = ""  # a packaged name or a path: its keys hold where this file says nothing
    model: ModelTable
    data: DataTable = DataTable()
    prompts: PromptTable = PromptTable()
    steps: Steps
    loss: LossTable = LossTable()
    optimiser: OptimiserTable = OptimiserTable()
    schedule: ScheduleTable = ScheduleTable()
    run: RunTable

    @model_validator(mode="after")
    def _fits(self) -> TrainRecipe:
        decoder_only = self.steps.method == "decoder-only"
        if decoder_only and self.model.trainable != ("mask-decoder",):
            raise ValueError('steps.method = "decoder-only" goes with model.trainable = ["mask-decoder"]')
        if idle := self._idle_rounds():
            raise ValueError(
                f"steps.rounds = {idle} train nothing that model.trainable names: add "
                '"mask-decoder" (or "prompt-encoder", with steps.prompt_encoder_rounds = true), or say steps.rounds = 0'
            )
        if self.data.embeddings and not decoder_only:
            raise ValueError('data.embeddings = true goes with steps.method = "decoder-only"')
        if self.loss.pool == "batch" and self.run.micro_batch:
            raise ValueError('loss.pool = "batch" needs the batch whole: run.micro_batch must be 0')
        return self

    def _idle_rounds(self) -> int:
        """The rounds where nothing learns in them: they see the embedding without gradient. Else 0."""
        steps, trainable = self.steps, self.model.trainable
        if not isinstance(steps, Interactive) or "mask-decoder" in trainable:
            return 0
        return 0 if steps.prompt_encoder_rounds and "prompt-encoder" in trainable else steps.rounds


def digest(recipe: TrainRecipe) -> str:
    """SHA-256, in hexadecimal, of the recipe's canonical JSON; ``extends`` counts only by what it brought."""
    value = recipe.model_dump(mode="json", exclude={"extends"})
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
