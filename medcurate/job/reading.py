"""One image or label of a case through its registered reader: a file, or one entry of a file of many."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medcurate.readers import READERS
from medcurate.readers.files import CaseFiles
from medcurate.registry import load
from medcurate.types import ImageFile, LabelFile, Volume


def read_file(files: CaseFiles, file: ImageFile | LabelFile, kind: str, options: Mapping[str, Any]) -> Volume:
    """What ``file`` holds, as the reader ``kind`` gives it. Raises CaseRejected."""
    reader = load(READERS, kind, "reader")
    chosen = reader.Options(**options)
    if file.entry:
        entry: Volume = reader.read_entry(files, file.paths, file.entry, chosen)
        return entry
    whole: Volume = reader.read(files, file.paths, chosen)
    return whole
