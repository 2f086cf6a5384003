"""What an evaluation is told, what it works on and what it finds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from medcurate.storage import Location
from medcurate.train.evaluation.collected import Collected
from medcurate.train.evaluation.leaks import Leaks
from medcurate.train.evaluation.models import Model
from medcurate.train.evaluation.parts import Part
from medcurate.train.evaluation.tables import Row, VolumeRow
from medcurate.train.evaluation.work import Work
from medcurate.train.stream.index import Index


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What ``medcurate evaluate`` is told; its help says what each means. ``processes`` 0: as many as are of use; more
    than one need ``if __name__ == "__main__"`` in a script that calls this.
    """

    data: str
    checkpoint: str
    out: Path
    recipe: str = ""
    prompts: str = "box,1,3,5"
    split: str = "test"
    where: str = ""
    against: tuple[str, ...] = ()
    against_recipe: str = ""
    replay: Path | None = None
    allow_leaks: bool = False
    picture: Path | None = None
    masks_at_once: int = 32
    tolerance_mm: float = 1.0
    seed: int = 0
    device: str = "auto"
    processes: int = 1


@dataclass(frozen=True, slots=True)
class Selection:
    """What is scored. ``facts``: a row a mask, as of ``mask_facts``."""

    dataset: Location
    index: Index
    facts: pa.Table
    parts: list[Part]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One of those that are scored. ``name``: in tables, of no other; ``model`` None: the filled box.

    ``leaked``: bool of every mask; ``leaks``: None for what is no model.
    """

    name: str
    model: Model | None
    leaked: pa.Array
    leaks: Leaks | None


@dataclass(frozen=True, slots=True)
class Pass:
    """A finished pass of one candidate."""

    candidate: Candidate
    collected: Collected
    work: Work


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What was found: rows of tables, and leaks by model."""

    rows: list[Row]
    volumes: list[VolumeRow]
    leaks: dict[str, Leaks]
