"""What the DICOM files below a folder are: headers alone, and those of unchanged files only once.

Facts are kept in the user's cache folder, readable by the user alone, by path, size and time of change, so that
a second plan of a large collection opens nothing. They decide nothing that the files themselves do not say.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag, Tag

from medcurate.commit import write_json
from medcurate.errors import OutputError
from medcurate.places import cache_folder

_VERSION = 1  # of the facts; others are read again
_PREFIX = (b"DICM", 128)
_DEFLATED, _META_BYTES = b"1.2.840.10008.1.2.1.99", 4096  # transfer syntax, and where it stands
_HEAD_BYTES = 1 << 16
_WHOLE_BYTES = 1 << 28  # the largest file that is read as a whole for its header
_LAST_TAG = Tag(0x0020, 0x0052)  # Frame of Reference UID: all facts of images stand before it or there
_LAST_REFERENCE_TAG = Tag(0x3006, 0x0010)  # Referenced Frame of Reference Sequence of structure sets
_REFERRING = {"SEG", "RTSTRUCT"}
_TAGS: list[BaseTag | int] = [
    0x00080016, 0x00080060, 0x0008103E, 0x00081115, 0x00100020, 0x0020000D, 0x0020000E, 0x00200052, 0x30060010,
]  # fmt: skip
_READING = re.compile(rb"<(?:\w+:)?SeriesInstanceUid>\s*([0-9.]{1,64})\s*<", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Facts:
    """``kind``: the DICOM Modality ("CT", "SEG", …), "lidc-xml", "" for what is neither, "damaged" for a DICOM
    file whose header cannot be read, or is deflated. ``refers_to``: Series Instance UIDs that a label was drawn on.
    """

    kind: str = ""
    patient: str = ""
    study: str = ""
    series: str = ""
    description: str = ""
    frame_of_reference: str = ""
    refers_to: tuple[str, ...] = ()


def scan(root: Path, paths: Sequence[Path]) -> dict[Path, Facts]:
    """The facts of ``paths``, which are relative to ``root``, in their order."""
    store = _cache_path(root)
    known = _read_cache(store)
    fresh: dict[str, list[Any]] = {}
    found: dict[Path, Facts] = {}
    for path in paths:
        stamp, entry = _stamp(root / path), known.get(path.as_posix())
        if entry is not None and entry[:2] == stamp:
            found[path] = _facts(entry[2])
        else:
            found[path] = _read(root / path)
        fresh[path.as_posix()] = [*stamp, asdict(found[path])]
    if any(known.get(name) != entry for name, entry in fresh.items()):
        _write_cache(store, known | fresh)
    return found


def _stamp(path: Path) -> list[int]:
    try:
        status = os.stat(path)
    except OSError:
        return [-1, -1]
    return [status.st_size, status.st_mtime_ns]


def _cache_path(root: Path) -> Path:
    name = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:24]
    return cache_folder() / "headers" / f"{name}.json"


def _read_cache(path: Path) -> dict[str, list[Any]]:
    try:
        value = json.loads(path.read_bytes())
        entries: dict[str, list[Any]] = value["files"]
        return entries if value["version"] == _VERSION else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}  # absent, or of another make: the files are read again


def _write_cache(path: Path, entries: dict[str, list[Any]]) -> None:
    try:
        write_json(path, {"version": _VERSION, "files": entries}, mode=0o600)
    except OutputError:
        return  # a full or read-only disk costs the next plan time, nothing else


def _facts(value: dict[str, Any]) -> Facts:
    return Facts(**{**value, "refers_to": tuple(value["refers_to"])})


def _read(path: Path) -> Facts:
    try:
        with open(path, "rb") as stream:
            head = stream.read(_HEAD_BYTES)
            if path.suffix.lower() == ".xml":
                return _reading(head)
            if head[_PREFIX[1] : _PREFIX[1] + 4] != _PREFIX[0]:
                return Facts()
            if _DEFLATED in head[:_META_BYTES]:
                return Facts("damaged")  # pydicom would inflate all of it, however much that is
            dataset = _parsed(head, _LAST_TAG)
            if _is_incomplete(dataset):
                dataset = _parsed(head + stream.read(_WHOLE_BYTES - len(head)), _LAST_REFERENCE_TAG)
    except OSError:
        return Facts("damaged")
    return Facts("damaged") if dataset is None else _dicom(dataset)


def _reading(head: bytes) -> Facts:
    match = _READING.search(head)
    return Facts("lidc-xml", refers_to=(match[1].decode(),)) if match else Facts()


def _is_incomplete(dataset: Dataset | None) -> bool:
    """Whether more than the first bytes is needed: a long header, or a label, whose references stand far behind."""
    return dataset is None or "SeriesInstanceUID" not in dataset or dataset.get("Modality") in _REFERRING


def _dicom(dataset: Dataset) -> Facts:
    if not dataset.get("SeriesInstanceUID"):
        return Facts("damaged")
    kind = str(dataset.get("Modality", ""))
    with _quiet():
        return Facts(
            kind=kind,
            patient=str(dataset.get("PatientID") or "").strip(),
            study=str(dataset.get("StudyInstanceUID") or ""),
            series=str(dataset.get("SeriesInstanceUID")),
            description=str(dataset.get("SeriesDescription") or "").strip(),
            frame_of_reference=_frame_of_reference(dataset),
            refers_to=tuple(sorted(_references(dataset))) if kind in _REFERRING else (),
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """No warnings of pydicom, which quote values."""
    with disable_value_validation(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _parsed(content: bytes, last: BaseTag) -> Dataset | None:
    """The elements up to ``last``; None for what pydicom does not read."""
    with _quiet():
        try:
            return read_partial(
                BytesIO(content), stop_when=lambda tag, vr, length: tag > last, specific_tags=_TAGS
            )
        except Exception:  # whatever it fails on, the header is no use
            return None


def _frame_of_reference(dataset: Dataset) -> str:
    """An image's own; of a structure set, which may have none, the only one that it refers to."""
    own = str(dataset.get("FrameOfReferenceUID") or "")
    frames = list(dataset.get("ReferencedFrameOfReferenceSequence") or ())
    return own or (str(frames[0].get("FrameOfReferenceUID") or "") if len(frames) == 1 else "")


def _references(dataset: Dataset) -> set[str]:
    """DICOM PS3.3 C.12.2 (Common Instance Reference) and C.8.8.5 (RT Referenced Study and Series)."""
    found = {str(item.SeriesInstanceUID) for item in dataset.get("ReferencedSeriesSequence") or ()}
    for frame in dataset.get("ReferencedFrameOfReferenceSequence") or ():
        for study in frame.get("RTReferencedStudySequence") or ():
            found |= {str(item.SeriesInstanceUID) for item in study.get("RTReferencedSeriesSequence") or ()}
    return found
