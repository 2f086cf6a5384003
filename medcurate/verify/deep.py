"""Deep check of one sample: it decodes, and what was measured once is measured again."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from medcurate.format.sample import SampleError, decode

_RELATIVE = 1e-9  # of float64 columns: products of two or three factors
# What a sample's JSON says of its image under the names of the manifest; a sample need not say all of it.
_STATED = (
    "source",
    "case",
    "modality",
    "sequence",
    "channel",
    "axis",
    "slice_index",
    "slice_count",
    "licence",
)
_NOTHING = ""
COLUMNS = (*_STATED, "instance", "intensity_low", "intensity_high")  # beyond those that every check reads


def deep_problems(blob: bytes, masks: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What differs between a sample's pixels, its JSON and its rows ``masks`` (one a mask, in order)."""
    try:
        sample = decode(blob)
    except SampleError as error:
        yield str(error).removeprefix(f"sample {masks[0]['key']} ")
        return
    height, width = sample.image.shape[:2]
    rows = masks[0]["height"], masks[0]["width"]
    given = sample.info.get("image")
    facts = given if isinstance(given, dict) else {}
    stated = facts.get("height"), facts.get("width")
    if not (height, width) == rows == stated:
        yield f"its image is {height} x {width}; the JSON says {stated}, the manifest {rows}"
        return
    yield from dict.fromkeys(what for row in masks for what in _stated_problems(facts, row))
    for number, (row, pixels) in enumerate(zip(masks, sample.masks, strict=True)):
        annotation = sample.info["annotations"][number]
        expected = measures(pixels)
        for name, values in _compared(annotation, row, expected, number).items():
            if any(value != values[0] for value in values):
                shown = ", ".join(str(value) for value in values)
                yield f"mask {number}: {name} differs (measured or numbered, JSON, manifest: {shown})"
        yield from (f"mask {number}: {what}" for what in _derived_problems(row, expected["area_px"]))


def measures(mask: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """``area_px``, ``bbox`` [x0, y0, width, height] and ``touches_border`` of a mask, bool (H, W)."""
    ys, xs = np.nonzero(mask)
    if not len(ys):
        return {"area_px": 0, "bbox": [0, 0, 0, 0], "touches_border": False}
    x0, y0, x1, y1 = int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1
    touches = x0 == 0 or y0 == 0 or x1 == mask.shape[1] or y1 == mask.shape[0]
    return {"area_px": len(ys), "bbox": [x0, y0, x1 - x0, y1 - y0], "touches_border": touches}


def _stated_problems(facts: Mapping[str, Any], row: Mapping[str, Any]) -> Iterator[str]:
    """What the JSON says of the image, and its row otherwise."""
    expected = {name: row[name] for name in _STATED} | {
        "image_id": row["key"],
        "spacing_mm": [row["row_spacing_mm"], row["col_spacing_mm"]],
        "intensity": [row["intensity_low"], row["intensity_high"]],
    }
    for name, value in expected.items():
        # A build leaves out what is empty; others may say nothing of their images but the size.
        said = facts.get(name, _NOTHING if "source" in facts else value)
        if said != value and not (said == _NOTHING and value in (None, [None, None])):
            yield f"{name} differs (JSON, manifest: {said}, {value})"


def _compared(
    annotation: Mapping[str, Any], row: Mapping[str, Any], expected: Mapping[str, Any], number: int
) -> dict[str, tuple[Any, ...]]:
    """What must be equal, by name."""
    box = [row["x0"], row["y0"], row["x1"] - row["x0"], row["y1"] - row["y0"]]
    size = [row["height"], row["width"]]
    instance = annotation.get("instance", row["instance"])
    return {
        "id": (number, annotation.get("id"), row["annotation"]),
        "label": (annotation.get("label"), annotation.get("label"), row["label"]),
        "instance": (instance, instance, row["instance"]),
        "segmentation size": (size, annotation["segmentation"].get("size", size), size),
        "area": (expected["area_px"], annotation.get("area"), row["area_px"]),
        "bbox": (expected["bbox"], annotation.get("bbox"), box),
        "touches_border": (expected["touches_border"], expected["touches_border"], row["touches_border"]),
    }


def _derived_problems(row: Mapping[str, Any], area_px: int) -> Iterator[str]:
    fraction = area_px / (row["height"] * row["width"])
    if not math.isclose(row["area_fraction"], fraction, rel_tol=_RELATIVE):
        yield f"area_fraction is {row['area_fraction']}; {fraction} was expected"
    row_mm, col_mm = row["row_spacing_mm"], row["col_spacing_mm"]
    if row_mm is None or col_mm is None or row["area_mm2"] is None:
        if row["area_mm2"] is not None or (row_mm is not None and col_mm is not None):
            yield "area_mm2 must be null where the spacing is unknown, and only there"
    elif not math.isclose(row["area_mm2"], area_px * row_mm * col_mm, rel_tol=_RELATIVE):
        yield f"area_mm2 is {row['area_mm2']}; {area_px * row_mm * col_mm} was expected"
