"""The ``Recipe`` model: everything that decides the bytes of a dataset, and nothing else."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from medcurate.config.source import Id, Strict

LineageRule = Literal["warn", "drop", "refuse"]
"""What becomes of sources that hold the same patients: told, the losing ones left out, or an error."""
AxisRule = Literal["out-of-plane", "x", "y", "z"]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Slices(Strict):
    """Which planes of a volume become samples; only annotated planes do.

    ``out-of-plane`` is the axis of the largest spacing; when the two largest differ by less than 1 %,
    z wins, then y, then x.
    """

    axes: Annotated[tuple[AxisRule, ...], Field(min_length=1)] = ("out-of-plane",)
    min_aspect: Fraction = 0.0  # short side / long side; planes below are refused


class Clip(Strict):
    """Values at or below ``low`` become 0, at or above ``high`` 255, linear between. Source units (CT: HU)."""

    rule: Literal["clip"]
    low: float
    high: float

    @model_validator(mode="after")
    def _ordered(self) -> Clip:
        if not self.low < self.high:
            raise ValueError(f"low must be below high, not {self.low:.10g} and {self.high:.10g}")
        return self


class Window(Strict):
    """``clip`` around ``level`` with ``width``. Source: DICOM PS3.3 C.11.2.1.3.2 (LINEAR_EXACT)."""

    rule: Literal["window"]
    level: float
    width: Annotated[float, Field(gt=0)]


class Percentiles(Strict):
    """``clip`` at two percentiles of the whole volume (never of a slice), linear interpolation between values."""

    rule: Literal["percentiles"]
    low: Annotated[float, Field(ge=0, lt=100)]
    high: Annotated[float, Field(gt=0, le=100)]
    voxels: Literal["all", "nonzero"] = "all"

    @model_validator(mode="after")
    def _ordered(self) -> Percentiles:
        if not self.low < self.high:
            raise ValueError(f"low must be below high, not {self.low:.10g} and {self.high:.10g}")
        return self


class MinMax(Strict):
    """``clip`` at the extremes of the whole volume."""

    rule: Literal["minmax"]


class Rgb(Strict):
    """8-bit pictures (RGB or grey) are stored as they are."""

    rule: Literal["rgb"]


Intensity = Annotated[Clip | Window | Percentiles | MinMax | Rgb, Field(discriminator="rule")]


class MinArea(Strict):
    """``pixels`` on a grid of ``at`` x ``at``: an area fraction of pixels / at². ``at`` 0: pixels as they are."""

    pixels: Annotated[float, Field(ge=0)]
    at: Annotated[int, Field(ge=0)] = 0

    def pixels_in(self, height: int, width: int) -> float:
        """The smallest kept area, in pixels of an image of ``height`` x ``width``."""
        return self.pixels * height * width / self.at**2 if self.at else self.pixels


class Masks(Strict):
    """What becomes one mask, and the bounds that it must keep.

    ``components``: "2d" (each connected region of a label in a slice), "3d" (each connected region of the
    volume, cut by the slice) or "none" (the whole label in a slice). ``connectivity``: "full" joins
    diagonal neighbours (8 in 2D, 26 in 3D), "face" does not (4, 6).
    """

    components: Literal["2d", "3d", "none"] = "2d"
    connectivity: Literal["full", "face"] = "full"
    min_area: MinArea = MinArea(pixels=0)
    min_voxels: Annotated[int, Field(ge=0)] = 0  # of the 3D object: the component for "3d", else the label


class SplitRule(Strict):
    """Shares of the splits; every group is assigned by a hash of (salt, group), so new sources move nobody."""

    train: Fraction = 0.8
    val: Fraction = 0.1
    test: Fraction = 0.1
    salt: str = "medcurate"
    official: bool = True  # respect the splits that sources declare

    @model_validator(mode="after")
    def _whole(self) -> SplitRule:
        total = self.train + self.val + self.test
        if abs(total - 1) > 1e-9:
            raise ValueError(f"train + val + test must be 1, not {total:.10g}")
        return self


class Shards(Strict):
    """How samples are shuffled into shards."""

    size_bytes: Annotated[int, Field(ge=1 << 16)] = 256 << 20
    seed: int = 0


class Limits(Strict):
    """What a case may claim; beyond it is refused before anything is allocated."""

    volume_bytes: Annotated[int, Field(gt=0)] = 4 << 30  # of one decoded array
    case_seconds: Annotated[float, Field(gt=0)] = 600.0


class Recipe(Strict):
    """``recipes/<name>.toml``. ``sources``: ids, or paths of source files (relative to the recipe)."""

    name: Id
    title: str
    sources: Annotated[tuple[str, ...], Field(min_length=1)]
    lineage: LineageRule = "warn"
    slices: Slices = Slices()
    intensity: dict[str, Intensity]  # by modality id; "default" for the others
    masks: Masks = Masks()
    split: SplitRule = SplitRule()
    shards: Shards = Shards()
    limits: Limits = Limits()
