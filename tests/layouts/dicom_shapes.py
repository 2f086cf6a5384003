"""DICOM collections: files in folders that say nothing, patients and series that headers name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from layouts.shapes import FIRST, LABEL, Place, Placed, Shape, filled, tokens_of
from medcurate.config.source import Source

_UID = r"2\.25\.[1-9]\d{8}"


def dicom_tree(source: Source, options: Mapping[str, Any]) -> Shape:
    """``<Patient ID>/<Series Instance UID>``; the writer of a series is given both as its entry."""
    assert options["labels"] == "files", "labels that name their series: add them to tests/layouts"
    patient = str(options.get("patient", "(?P<id>.+)")).replace("(?P<id>.+)", f"(?P<id>{FIRST}[^/]*)")
    folder = filled(str(options.get("folder", ".")), ()).removeprefix("./")

    def place(match: re.Match[str], number: int) -> Placed:
        image = Place(f"{folder}/{number}/", f"{options['modality']}/{match['patient']}/{match['uid']}")
        label = filled(str(options["label"]).replace("{id}", match["id"]), ())
        return Placed(
            {"": image},
            {
                token: [Place(label.replace(LABEL, token))]
                for token in tokens_of(LABEL, (label,), tuple(source.labels))
            },
        )

    return Shape(f"(?P<patient>{patient})/(?P<uid>{_UID})", place, patient=lambda match: match["patient"])
