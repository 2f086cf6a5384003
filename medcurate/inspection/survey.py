"""The names in a folder tree: one walk, nothing opened, quick for hundreds of thousands of files."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medcurate.errors import ConfigError
from medcurate.pairings.tree import entries

READER_OF = {
    ".nii": "nifti",
    ".nii.gz": "nifti",
    ".nrrd": "nrrd",
    ".nhdr": "nrrd",
    ".mha": "metaimage",
    ".mhd": "metaimage",
    ".png": "raster",
    ".jpg": "raster",
    ".jpeg": "raster",
    ".tif": "raster",
    ".tiff": "raster",
    ".bmp": "raster",
    ".gif": "raster",
    ".ppm": "raster",
    ".dcm": "dicom",
    ".dicom": "dicom",
    ".ima": "dicom",
}
"""Reader by lower-case extension; what is not here (.csv, .raw beside .mhd, …) is no image by itself."""

_OF_SOURCES = {".npy": "array", ".npz": "array", ".hdr": "nifti"}

ARCHIVES = frozenset({".7z", ".bz2", ".gz", ".rar", ".tar", ".tgz", ".xz", ".zip", ".zst"})
"""Lower-case extensions of what is to be unpacked before there is anything to see."""

SERIES_FILES = 3
_NUMBER = re.compile(r"\.[0-9]+")


@dataclass(slots=True)
class Survey:
    """Visible files below ``root``, by folder; ``data`` holds only names that a reader may understand."""

    root: Path
    data: dict[str, list[str]] = field(default_factory=dict)  # folder ("" is the root) -> sorted names
    extensions: Counter[str] = field(default_factory=Counter)

    @property
    def file_count(self) -> int:
        """All visible files."""
        return self.extensions.total()

    @property
    def data_count(self) -> int:
        """Files that a reader may understand."""
        return sum(len(names) for names in self.data.values())


def extension(name: str) -> str:
    """The extension as written: ".nii.gz" as a whole, "" where there is none, an archive's of its parts (.zip.001)."""
    if name.lower().endswith(".nii.gz"):
        return name[-len(".nii.gz") :]
    stem, found = os.path.splitext(name)
    within = os.path.splitext(stem)[1]
    return within if _NUMBER.fullmatch(found) and within.lower() in ARCHIVES else found


def reader_of(name: str) -> str:
    """The reader for a file name, "" where none is known. Files without extension may be DICOM."""
    found = extension(name).lower()
    return READER_OF.get(found, "") if found else "dicom"


def kind_of(name: str) -> str:
    """The reader for a file of a source: also of arrays, whose axes only a source states, of headers beside their
    data, and of DICOM files that are called by their UID or a number ("1.2.840.56", "IM.001"); "" where none is known.
    """
    found = extension(name).lower()
    return _OF_SOURCES.get(found) or ("dicom" if found[1:].isdigit() else reader_of(name))


def is_series(files: Sequence[str]) -> bool:
    """Several files of one kind that differ in digits only, or DICOM of any name."""
    patterns = {re.sub(r"[0-9]+", "#", name) for name in files}
    dicom = all(kind_of(name) == "dicom" for name in files)
    return len(files) >= SERIES_FILES and (len(patterns) == 1 or dicom)


def survey(root: Path) -> Survey:
    """Walk ``root``. Links to folders are followed once and only outside of it. Raises ConfigError."""
    if root.is_file():
        raise ConfigError(f"{root}: is a file; name the folder that holds images and labels")
    if not root.is_dir():
        raise ConfigError(f"{root}: no such folder")
    found = Survey(root)
    seen = {os.path.realpath(root)}
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        files, below = entries(root / folder)
        found.extensions.update(extension(name).lower() for name in files)
        data = [name for name in files if kind_of(name)]
        if data:
            found.data[folder] = data
        waiting += [path for name in below if _is_new(root, path := f"{folder}/{name}".lstrip("/"), seen)]
    found.data = dict(sorted(found.data.items()))
    return found


def _is_new(root: Path, path: str, seen: set[str]) -> bool:
    if not (root / path).is_symlink():
        return True
    real = os.path.realpath(root / path)
    inside = any(real == known or real.startswith(known + os.sep) for known in seen)
    seen.add(real)
    return not inside
