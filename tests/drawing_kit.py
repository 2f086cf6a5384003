"""What tests of drawn labels share: reading files of one folder with a reference, structures as whole arrays."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import numpy as np

from medcurate.decoders import structures
from medcurate.readers import dicom
from medcurate.readers.files import CaseFiles
from medcurate.types import Drawing, LabelFile, Reference

LIMIT_BYTES = 1 << 28


def reference_of(*paths: Path) -> Reference:
    """Of a DICOM image whose files lie in one folder."""
    files = CaseFiles(paths[0].parent, LIMIT_BYTES)
    return dicom.reference(files, [Path(path.name) for path in paths], dicom.Options())


def drawing(reader: ModuleType, reference: Reference, *paths: Path, **options: object) -> Drawing:
    files = CaseFiles(paths[0].parent, LIMIT_BYTES)
    names = [Path(path.name) for path in paths]
    return reader.draw(files, names, reference, reader.Options(**options))


def painted(found: Drawing) -> list[tuple[tuple[str, ...], np.ndarray]]:
    """(names, bool array of the image's shape) of every structure."""
    result = []
    for structure in found.structures:
        whole = np.zeros(found.reference.shape, bool)
        patch = structure.paint()
        if patch is not None:
            window = tuple(
                slice(at, at + size) for at, size in zip(patch.start, patch.mask.shape, strict=True)
            )
            assert whole[window].shape == patch.mask.shape  # inside the image
            whole[window] = patch.mask
        result.append((structure.names, whole))
    return result


def draw(reader: ModuleType, reference: Reference, *paths: Path, **options: object):
    """``painted`` of what a reader draws."""
    return painted(drawing(reader, reference, *paths, **options))


class OneFile:
    """A single label file, as decoders are given it."""

    def __init__(self, found: Drawing, label: str = "") -> None:
        self._entry = (LabelFile(paths=(), label=label), found)

    def __len__(self) -> int:
        return 1

    def __iter__(self):
        yield self._entry


def decoded(found: Drawing, labels: Mapping[str, str], label: str = "", **options: object):
    """The layers of a drawing."""
    return structures.decode(OneFile(found, label), labels, structures.Options(**options))
