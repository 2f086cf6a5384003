"""What a pairing is given and what it finds."""

from __future__ import annotations

from dataclasses import dataclass

from medcurate.types import ImageFile, LabelFile


@dataclass(frozen=True, slots=True)
class Names:
    """The tokens of the source that may stand in file names."""

    channels: tuple[str, ...] = ()  # channel names; empty where a case has one image
    components: tuple[int | None, ...] = ()  # parallel to channels: index on a 4D file's fourth axis
    labels: tuple[str, ...] = ()  # keys of the source's [labels]: tokens where every class has its own file


@dataclass(frozen=True, slots=True)
class Found:
    """One case as files. ``problem`` says why it cannot be used (an image without label, …); "" if it can."""

    name: str  # what ids are read from
    images: tuple[ImageFile, ...]
    labels: tuple[LabelFile, ...]
    problem: str = ""
