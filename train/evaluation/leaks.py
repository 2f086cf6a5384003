"""Whether a model was trained on the patients that it is scored on."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from medcurate.errors import ConfigError
from medcurate.train.prediction.loading import Trained

_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaks:
    """``known``: whether the checkpoint says whom it was trained on. Numbers of leaking and of all patients and masks.

    ``started_from``: the checkpoint that training started from, whose patients are not known.
    """

    known: bool
    patients: int
    patients_scored: int
    masks: int
    masks_scored: int
    started_from: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a report."""
        return asdict(self)

    def __str__(self) -> str:
        if not self.known:
            return "the checkpoint does not say which patients it was trained on"
        text = (
            f"{self.patients:,} of {self.patients_scored:,} patients and {self.masks:,} of {self.masks_scored:,} "
            "masks were trained on"
        )
        return f"{text}; those behind {self.started_from} are not known" if self.started_from else text


def find_leaks(trained: Trained, patients: pa.ChunkedArray) -> Leaks:
    """``patients``: the manifest's "group" of every mask."""
    seen = leaked(trained.groups, patients)
    return Leaks(
        known=trained.groups is not None,
        patients=len(pc.unique(patients.filter(seen))) if trained.groups else 0,
        patients_scored=len(pc.unique(patients)),
        masks=pc.sum(seen).as_py() or 0,
        masks_scored=len(patients),
        started_from=trained.started_from,
    )


def leaked(groups: frozenset[str] | None, patients: pa.ChunkedArray) -> pa.Array:
    """Whether each mask's patient was trained on, bool; null where that is not known."""
    if groups is None:
        return pa.nulls(len(patients), pa.bool_())
    return pc.is_in(patients.combine_chunks(), value_set=pa.array(sorted(groups), pa.string()))


def refuse_leaks(trained: Trained, patients: pa.ChunkedArray, leaks: Leaks) -> None:
    """Raise ConfigError where a patient was trained on."""
    if not leaks.patients:
        return
    names = sorted(set(pc.unique(patients).to_pylist()) & (trained.groups or frozenset()))
    shown = ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
    raise ConfigError(
        f"{trained.name}: {leaks} ({shown}): such scores say nothing about new patients. Score a split that was not "
        "trained on (--split, --where), or give --allow-leaks to have them counted in the report."
    )
