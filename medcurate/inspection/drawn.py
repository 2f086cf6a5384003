"""Labels that are drawn on a DICOM image: which reader takes them, and what their structures are called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medcurate.errors import CaseRejected, Reason
from medcurate.inspection.survey import kind_of
from medcurate.readers import READERS
from medcurate.readers.files import CaseFiles
from medcurate.registry import load
from medcurate.types import Reference

_DRAWN = ("dicom-seg", "rtstruct")


@dataclass(frozen=True, slots=True)
class Drawn:
    """``structures``: voxels by name, which is what [labels] has keys for."""

    reader: str
    reference: Reference
    structures: Mapping[str, int]


def drawn_on(files: CaseFiles, image: Sequence[Path], label: Sequence[Path]) -> Drawn | None:
    """The label as the first reader takes it that knows its kind; None where it or the image is of no such kind.

    Raises CaseRejected for a label of such a kind that cannot be drawn.
    """
    if {kind_of(paths[0].name) for paths in (image, label)} != {"dicom"}:
        return None
    images = load(READERS, "dicom", "reader")
    try:
        reference = images.reference(files, image, images.Options())
    except CaseRejected:
        return None  # told of the image itself
    for kind in _DRAWN:
        reader = load(READERS, kind, "reader")
        try:
            found = reader.draw(files, label, reference, reader.Options())
        except CaseRejected as problem:
            if problem.reason is not Reason.UNREADABLE:
                raise
            continue
        counts: dict[str, int] = {}
        for structure in found.structures:
            patch, name = structure.paint(), structure.names[0]
            counts[name] = counts.get(name, 0) + (0 if patch is None else int(patch.mask.sum()))
        return Drawn(kind, reference, counts)
    return None
