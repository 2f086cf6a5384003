"""``[prompts]``: how boxes, points and scribbles are drawn from masks. Lengths in pixels of the model's square."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from medcurate.tables import Strict

Share = Annotated[float, Field(ge=0, le=1)]


class NoJitter(Strict):
    """The box as it is."""

    rule: Literal["none"] = "none"


class Shift(Strict):
    """The box moves as a whole: in x and in y by a whole number up to min(``pixels``, ``share`` of its short side).

    Source: SAM-Med2D, utils.py. ``half_open``: the largest positive number is never drawn.
    """

    rule: Literal["shift"]
    pixels: Annotated[int, Field(ge=0)] = 5
    share: Share = 0.5
    half_open: bool = False


class Outward(Strict):
    """Each side moves outward by its own whole number up to ``pixels``, not beyond the image.

    ``at``: side of the grid that ``pixels`` counts on; 0: the model's square. ``half_open``: ``pixels`` itself is
    never drawn. Source: MedSAM, finetune_and_inference_tutorial.py of May 2023 (20 px of 256).
    """

    rule: Literal["outward"]
    pixels: Annotated[int, Field(ge=0)] = 20
    at: Annotated[int, Field(ge=0)] = 0
    half_open: bool = False


Jitter = Annotated[NoJitter | Shift | Outward, Field(discriminator="rule")]


class BoxRule(Strict):
    """``of``: of the whole mask, or of its largest component (8 neighbours).

    ``end``: x1 and y1 are the last pixel inside or the first one after it.
    """

    of: Literal["mask", "largest-component"] = "mask"
    end: Literal["inside", "after"] = "inside"
    jitter: Jitter = NoJitter()


class Scribble(Strict):
    """A random curve inside the mask, given as ``points`` points along it.

    Asked for in MedSAM's future work (arXiv 2304.12306v1, section 4).
    """

    points: Annotated[int, Field(ge=2)] = 6
    step: Annotated[float, Field(gt=0, le=0.5)] = 0.1  # of the mask's extent, between points


class FirstPrompt(Strict):
    """What opens an image's interaction, and how often each kind does in proportion to the others."""

    box: Share = 0.5
    point: Share = 0.5
    scribble: Share = 0.0

    @model_validator(mode="after")
    def _whole(self) -> FirstPrompt:
        total = self.box + self.point + self.scribble
        if abs(total - 1) > 1e-9:
            raise ValueError(f"box + point + scribble must be 1, not {total:.10g}")
        return self


class PromptTable(Strict):
    """``[prompts]``. ``points``: how many points a round of corrections may give; one of them is drawn a round."""

    first: FirstPrompt = FirstPrompt()
    box: BoxRule = BoxRule()
    points: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (1, 3, 5, 9)
    scribble: Scribble = Scribble()
