"""``[data]``: which samples are seen, how often, and how they become tensors."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from medcurate.tables import Strict


class Weights(Strict):
    """How often groups of samples are seen: in proportion to (their number) ** ``temper``.

    ``temper`` 1: as they are; 0: every group equally often. ``by`` empty: no groups.
    """

    by: tuple[Literal["source", "modality", "organ"], ...] = ()
    temper: Annotated[float, Field(ge=0, le=1)] = 1.0

    @model_validator(mode="after")
    def _tempers_groups(self) -> Weights:
        if self.temper != 1 and not self.by:
            raise ValueError(
                f"temper = {self.temper:g} weighs groups, and `by` names none; add a column that makes them, such as "
                'by = ["modality"], or leave temper out'
            )
        return self


class DataTable(Strict):
    """``[data]``. ``where``: SQL on the manifest's columns. ``fit``: how an image fills the model's square.

    "resize": both sides to the square's. "pad": the long side to the square's, zeros right and below, as SAM.
    "sam-med2d": images smaller than the square on both sides centred among zeros, all others as "resize".
    ``masks``: "every" shows each mask of an image before any of them again, over the epochs;
    "with-replacement" draws ``masks_per_image`` independently.
    """

    split: Literal["", "train", "val", "test"] = "train"
    where: str = ""
    weights: Weights = Weights()
    masks_per_image: Annotated[int, Field(ge=1)] = 5
    masks: Literal["every", "with-replacement"] = "every"
    repeat_masks: bool = False  # an image with fewer masks than ``masks_per_image`` repeats them
    fit: Literal["resize", "pad", "sam-med2d"] = "resize"
    interpolation: Literal["linear", "nearest"] = "linear"  # of images; masks are always nearest
    embeddings: bool = False  # read image embeddings written by ``medcurate.train.embed``
    drop_last: bool = False  # of an epoch, the batch that is not full
    on_bad_sample: Literal["stop", "skip"] = "stop"
    prefetch: Annotated[int, Field(ge=1)] = 4  # batches read ahead
    cache_bytes: Annotated[int, Field(ge=0)] = 0  # of shards kept on the local disk; 0: none

    @model_validator(mode="after")
    def _filled(self) -> DataTable:
        if self.masks == "with-replacement" and not self.repeat_masks:
            raise ValueError('masks = "with-replacement" repeats masks; say repeat_masks = true')
        return self
