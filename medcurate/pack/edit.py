"""One sample under pack's rules: annotations left out, pixels resized; else bytes stay as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medcurate.format import png, rle, sample
from medcurate.format.sample import SampleError
from medcurate.pack.resize import bounding_box, resize_image, resize_mask

Annotation = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Edited:
    """What became of a sample.

    ``blob``: its new bytes, None where no mask is left. ``kept``: which of the given annotations remain, by
    position. ``measures``: for each kept mask the columns that changed; empty if none did.
    """

    blob: bytes | None
    kept: tuple[int, ...]
    measures: tuple[dict[str, int | bool], ...] = ()


def edit(blob: bytes, chosen: Sequence[int], size_px: int) -> Edited:
    """Keep the annotations ``chosen`` (JSON indices, increasing) and resize to ``size_px`` (0: do not).

    Raises SampleError when the sample is not of the contract.
    """
    key, image_png, info = sample.split_members(blob)
    everything = tuple(range(len(chosen)))
    try:
        annotations: list[Annotation] = [info["annotations"][index] for index in chosen]
        image: dict[str, Any] = info["image"]
        resizing = size_px and (image["height"], image["width"]) != (size_px, size_px)
        if not resizing and len(annotations) == len(info["annotations"]):
            return Edited(blob, everything)
        if not resizing:
            return Edited(_encode(key, image_png, info, annotations), everything)
        return _resized(key, image_png, info, annotations, size_px)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise SampleError(f"its members do not fit together: {error!r}") from error


def _encode(key: str, image_png: bytes, info: dict[str, Any], annotations: Sequence[Annotation]) -> bytes:
    numbered = [{**annotation, "id": number} for number, annotation in enumerate(annotations)]
    return sample.encode(key, image_png, {**info, "annotations": numbered})


def _resized(
    key: str, image_png: bytes, info: dict[str, Any], annotations: Sequence[Annotation], size_px: int
) -> Edited:
    height, width = info["image"]["height"], info["image"]["width"]
    counts = [annotation["segmentation"]["counts"].encode() for annotation in annotations]
    masks = np.stack([resize_mask(mask, size_px) for mask in rle.decode_many(counts, height, width)])
    kept = np.flatnonzero(masks.any(axis=(1, 2))).tolist()
    if not kept:
        return Edited(None, ())
    image = {**info["image"], "height": size_px, "width": size_px}
    if image.get("spacing_mm"):
        row_mm, col_mm = image["spacing_mm"]
        image["spacing_mm"] = [row_mm * height / size_px, col_mm * width / size_px]
    measures = tuple(_measures(mask) for mask in masks[kept])
    texts = rle.encode_many(masks[kept])
    changed = [
        {**annotations[index], **_described(measure, text.decode(), size_px)}
        for index, measure, text in zip(kept, measures, texts, strict=True)
    ]
    pixels = resize_image(png.decode(image_png), size_px)
    blob = _encode(key, png.encode(pixels), {**info, "image": image}, changed)
    return Edited(blob, tuple(kept), measures)


def _measures(mask: np.ndarray[Any, np.dtype[np.bool_]]) -> dict[str, int | bool]:
    box = bounding_box(mask)
    assert box is not None  # only masks with pixels are measured
    x0, y0, x1, y1 = box
    height, width = mask.shape
    touches = x0 == 0 or y0 == 0 or x1 == width or y1 == height
    area_px = int(np.count_nonzero(mask))
    return {"area_px": area_px, "x0": x0, "y0": y0, "x1": x1, "y1": y1, "touches_border": touches}


def _described(measures: dict[str, int | bool], counts: str, size_px: int) -> Annotation:
    x0, y0 = measures["x0"], measures["y0"]
    return {
        "area": measures["area_px"],
        "bbox": [x0, y0, measures["x1"] - x0, measures["y1"] - y0],
        "segmentation": {"size": [size_px, size_px], "counts": counts},
    }
