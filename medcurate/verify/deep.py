"""Deep check of one sample: it decodes, and what was measured once is measured again."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from medcurate.format.sample import SampleError, decode

_RELATIVE = 1e-9  # of float64 columns: products of two or three factors


def deep_problems(blob: bytes, masks: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What differs between a sample's pixels, its JSON and its rows ``masks`` (one a mask, in order)."""
    try:
        sample = decode(blob)
    except SampleError as error:
        yield str(error).removeprefix(f"sample {masks[0]['key']} ")
        return
    height, width = sample.image.shape[:2]
    rows = masks[0]["height"], masks[0]["width"]
    facts = sample.info.get("image", {})
    stated = facts.get("height"), facts.get("width")
    if not (height, width) == rows == stated:
        yield f"its image is {height} x {width}; the JSON says {stated}, the manifest {rows}"
        return
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


def _compared(
    annotation: Mapping[str, Any], row: Mapping[str, Any], expected: Mapping[str, Any], number: int
) -> dict[str, tuple[Any, ...]]:
    """What must be equal, by name."""
    box = [row["x0"], row["y0"], row["x1"] - row["x0"], row["y1"] - row["y0"]]
    return {
        "id": (number, annotation.get("id"), row["annotation"]),
        "label": (annotation.get("label"), annotation.get("label"), row["label"]),
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
