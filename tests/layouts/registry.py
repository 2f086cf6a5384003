"""All layouts of pairings, by kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from layouts import dicom_shapes, more_shapes, release_shapes, shapes, table_shapes
from layouts.shapes import Shape
from medcurate.config.source import Pairing, Source

SHAPES: dict[str, Callable[[Source, Mapping[str, Any]], Shape]] = {
    "array-pack": more_shapes.array_pack,
    "bids-derivatives": more_shapes.bids,
    "case-folder": shapes.case_folder,
    "dicom-tree": dicom_shapes.dicom_tree,
    "flat-suffix": shapes.flat_suffix,
    "paired-folders": shapes.paired_folders,
    "pattern": more_shapes.pattern,
    "sa-med2d-release": release_shapes.sa_med2d_release,
    "same-file": more_shapes.same_file,
    "table": table_shapes.table,
}


def shape(source: Source, pairing: Pairing, rater: str = "") -> Shape:
    """The shape of one pairing of a source, as one rater has it."""
    assert pairing.kind in SHAPES, f"pairing {pairing.kind}: add its layout to tests/layouts/registry.py"
    return SHAPES[pairing.kind](source, _read_by(pairing.options, rater))


def _read_by(value: Any, rater: str) -> Any:
    """``value`` with the rater's name in the place of ``{rater}``."""
    if isinstance(value, str):
        return value.replace("{rater}", rater)
    if isinstance(value, Mapping):
        return {key: _read_by(inside, rater) for key, inside in value.items()}
    return [_read_by(inside, rater) for inside in value] if isinstance(value, list | tuple) else value
