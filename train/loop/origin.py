"""What a dataset's record says of how its images became uint8, for those who will prepare images alike."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from medcurate.format import DATASET_FILE
from medcurate.storage import locate


def intensity_rules(dataset: str) -> dict[str, Any]:
    """Intensity rules by modality of the recipe that built ``dataset`` (folder or URL); empty where it names none.

    Raises StorageError.
    """
    file = locate(dataset).member(DATASET_FILE)
    made_by: Any = json.loads(file.read_range(0, file.size_bytes)).get("made_by", {})
    while isinstance(made_by, Mapping):
        recipe = made_by.get("recipe")
        if isinstance(recipe, Mapping) and isinstance(recipe.get("intensity"), Mapping):
            return dict(recipe["intensity"])
        given = made_by.get("input")  # a packed dataset tells what it was packed from
        made_by = given.get("made_by") if isinstance(given, Mapping) else None
    return {}
