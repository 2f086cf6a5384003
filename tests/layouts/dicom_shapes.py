"""DICOM collections: files in folders that say nothing, patients and series that headers name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from layouts.shapes import FIRST, LABEL, Place, Placed, Shape, filled, tokens_of
from medcurate.config.source import Source

ENDINGS = {"lidc-xml": ".xml", "rtstruct": ".dcm", "seg": ".dcm"}  # of labels that name their series
_UID = r"2\.25\.[1-9]\d{8}"


def dicom_tree(source: Source, options: Mapping[str, Any]) -> Shape:
    """``<Patient ID>/<Series Instance UID>``; writers of a series and of its label are given both as the entry."""
    by_name = options["labels"] == "files"
    assert by_name or options["labels"] in ENDINGS, f"{options['labels']}: add it to tests/layouts"
    patient = str(options.get("patient", "(?P<id>.+)")).replace("(?P<id>.+)", f"(?P<id>{FIRST}[^/]*)")
    folder = filled(str(options.get("folder", ".")), ()).removeprefix("./")

    def place(match: re.Match[str], number: int) -> Placed:
        image = Place(f"{folder}/{match['uid']}/", f"{options['modality']}/{match['patient']}/{match['uid']}")
        if not by_name:
            label = Place(f"{folder}/labels/{match['uid'][::-1]}{ENDINGS[options['labels']]}", image.entry)
            return Placed({"": image}, {"": [label]})
        label = filled(str(options["label"]).replace("{id}", match["id"]), ())
        return Placed(
            {"": image},
            {
                token: [Place(label.replace(LABEL, token))]
                for token in tokens_of(LABEL, (label,), tuple(source.labels))
            },
        )

    return Shape(f"(?P<patient>{patient})/(?P<uid>{_UID})", place, patient=lambda match: match["patient"])
