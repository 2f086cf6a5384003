"""Means of scores by source, modality and organ: of masks, and of what masks belong to, side by side.

"per mask": every mask counts alike, as SAM-Med2D reports. "per patient" and "per label": first the mean of each
patient's (label's) masks, then the mean of those, so that a patient (label) with many masks counts no more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from medcurate.train.evaluation.collected import Collected

BY = ("all", "source", "modality", "organ")
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Means over the masks of ``value`` in ``by``; None where nothing could be measured.

    ``nsd``: over the masks of known spacing, ``nsd_px`` over the others.
    """

    model: str
    prompt: str
    by: str
    value: str
    masks: int
    patients: int
    labels: int
    dice: float
    dice_per_patient: float
    dice_per_label: float
    iou: float
    nsd: float | None
    nsd_per_patient: float | None
    nsd_px: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeRow:
    """Means over volumes and labels, each pair counting alike."""

    model: str
    prompt: str
    by: str
    value: str
    volumes: int
    dice: float
    iou: float
    nsd: float | None


def summarise(collected: Collected, facts: pa.Table) -> list[Row]:
    """Rows for all masks, and by source, modality and organ, for every prompt."""
    patients, labels = _codes(facts, "group"), _codes(facts, "label")
    found = []
    for by, value, rows in _parts(facts):
        for prompt in collected.prompts:
            scores = {name: collected.values(prompt, name)[rows] for name in ("dice", "iou", "nsd", "nsd_px")}
            found.append(_row(collected.model, prompt, by, value, scores, patients[rows], labels[rows]))
    return found


def summarise_volumes(volumes: pa.Table) -> list[VolumeRow]:
    """The same for rows of ``VOLUMES``."""
    found = []
    for by, value, rows in _parts(volumes):
        part = volumes.take(pa.array(rows))
        names = list(zip(part["model"].to_pylist(), part["prompt"].to_pylist(), strict=True))
        for model, prompt in dict.fromkeys(names):
            here = part.filter(pa.array([name == (model, prompt) for name in names]))
            dice, iou, nsd = (_numbers(here, name) for name in ("dice", "iou", "nsd"))
            found.append(
                VolumeRow(
                    model=model, prompt=prompt, by=by, value=value, volumes=len(here),
                    dice=float(dice.mean()), iou=float(iou.mean()), nsd=_mean(nsd),
                )
            )  # fmt: skip
    return found


def _row(
    model: str, prompt: str, by: str, value: str, scores: Mapping[str, Floats], patients: Ints, labels: Ints
) -> Row:
    dice, nsd = scores["dice"], scores["nsd"]
    return Row(
        model=model,
        prompt=prompt,
        by=by,
        value=value,
        masks=len(dice),
        patients=len(np.unique(patients)),
        labels=len(np.unique(labels)),
        dice=float(dice.mean()),
        dice_per_patient=float(_means(dice, patients).mean()),
        dice_per_label=float(_means(dice, labels).mean()),
        iou=float(scores["iou"].mean()),
        nsd=_mean(nsd),
        nsd_per_patient=_mean(_means(nsd[~np.isnan(nsd)], patients[~np.isnan(nsd)])),
        nsd_px=_mean(scores["nsd_px"]),
    )


def _parts(facts: pa.Table) -> list[tuple[str, str, Ints]]:
    """(by, value, rows) of every group that there is."""
    found = [("all", "all", np.arange(len(facts)))]
    for by in BY[1:]:
        names, codes = np.unique(_strings(facts, by), return_inverse=True)
        found += [(by, str(name), np.flatnonzero(codes == code)) for code, name in enumerate(names)]
    return found


def _means(values: Floats, codes: Ints) -> Floats:
    """Mean of the values of each code."""
    _, places = np.unique(codes, return_inverse=True)
    return np.asarray(np.bincount(places, values) / np.bincount(places))


def _mean(values: Floats) -> float | None:
    """Of those that are numbers; None where there are none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def _codes(facts: pa.Table, name: str) -> Ints:
    return np.asarray(np.unique(_strings(facts, name), return_inverse=True)[1])


def _strings(facts: pa.Table, name: str) -> npt.NDArray[np.str_]:
    values: Sequence[Any] = facts[name].to_pylist()
    return np.array(values, np.str_)


def _numbers(table: pa.Table, name: str) -> Floats:
    return np.array(table[name].to_pylist(), np.float64)  # None becomes NaN
