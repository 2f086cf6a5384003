"""The published SA-Med2D-20M release: pictures, binary masks by class and instance, and the map of its classes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from layouts.shapes import Place, Placed, Shape
from medcurate.config.source import Source

SET = "Set_x7"
# What the tree's set calls its classes, and what a build must make of that; the first is left out.
CLASSES = {
    "union_of_both": "",
    "liver": "liver",
    "Left_Kidney": "kidney-left",
    "thing of x7": "unmapped:thing-of-x7",
}


def with_classes(source: Source) -> Source:
    """``source`` with the labels that it takes from the tree's own map."""
    if source.label.vocabulary == "declared":
        return source
    labels = {f"{SET}/{name}": label for name, label in CLASSES.items() if label}
    return source.model_copy(update={"labels": labels})


def sa_med2d_release(source: Source, options: Mapping[str, Any]) -> Shape:
    """``<modality>--<set>--<case>--z_<slice>``; a mask a class, the release's numbers padded to four digits."""
    folder = str(options["folder"])
    numbers = {f"{SET}/{name}": number for number, name in enumerate(CLASSES)}

    def place(match: re.Match[str], number: int) -> Placed:
        stem = match[0]
        return Placed(
            {"": Place(f"{folder}/images/{stem}.png")},
            {key: [Place(f"{folder}/masks/{stem}--{numbers[key]:04d}_000.png")] for key in source.labels},
        )

    modalities = "|".join(map(re.escape, options["modalities"]))
    class_map = {SET: {name: f"{number:04d}" for number, name in enumerate(CLASSES)}}
    return Shape(
        rf"({modalities})--{SET}--(?P<case>[a-k]\d\d\d)--z_\d\d\d\d",
        place,
        patient=lambda match: f"{SET}/{match['case']}",
        files={f"{folder}/SAMed2D_v1_class_mapping_id.json": json.dumps(class_map)},
    )
