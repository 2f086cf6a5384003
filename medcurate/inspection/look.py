"""A few cases of a guess, read in full: what their images and labels hold, in numbers."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medcurate.config.source import UNRESOLVED
from medcurate.decoders.colour_map import packed_colours
from medcurate.decoders.values import blocks, distinct
from medcurate.errors import CaseRejected, ConfigError, Reason
from medcurate.inspection import array_files
from medcurate.inspection.drawn import drawn_on
from medcurate.inspection.guess import Guess, guesses
from medcurate.inspection.survey import Survey, is_series, kind_of
from medcurate.pairings.found import Found
from medcurate.readers import READERS
from medcurate.readers.files import CaseFiles
from medcurate.registry import load
from medcurate.types import Array, Reference, Volume

CASES_READ = 4
KINDS_READ = 12  # of files that do not pair
LABEL_FILES_READ = 8  # of a sampled case
VALUES_LISTED = 64
VOLUME_BYTES = 2 << 30
_STACK = {"stack": True, "spacing_mm": UNRESOLVED}  # of pictures that are the planes of a volume


@dataclass(frozen=True, slots=True)
class Facts:
    """One file as read. ``values``: physical value (or 0xRRGGBB) -> voxels; None where they are too many.

    ``affine`` is None for pictures, whose ``spacing_mm`` is (row, column) or empty.
    """

    token: str  # channel or class
    reader: str
    lossy: bool
    shape: tuple[int, ...]
    dtype: str
    spacing_mm: tuple[float, ...]
    affine: npt.NDArray[np.float64] | None
    low: float
    high: float
    colours: bool = False
    values: Mapping[float, int] | None = None
    structures: Mapping[str, int] = field(default_factory=dict)  # of a drawn label: voxels by name
    options: Mapping[str, Any] = field(default_factory=dict)  # of the reader

    @property
    def grid_shape(self) -> tuple[int, ...]:
        """Without components."""
        return self.shape[: 2 if self.affine is None else 3]


@dataclass(slots=True)
class Look:
    """One sampled case. ``problems``: what could not be read, or does not fit, by reason code and words."""

    name: str
    images: list[Facts] = field(default_factory=list)
    labels: list[Facts] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def sample(guess: Guess) -> list[int]:
    """Places of up to ``CASES_READ`` usable cases, evenly spread over the sorted names."""
    count = min(CASES_READ, len(guess.usable))
    return [index * (len(guess.usable) - 1) // max(1, count - 1) for index in range(count)]


def peek(survey: Survey) -> list[Look]:
    """Files of a tree that pairs with nothing: some of the commonest kinds of names, each as its only image."""
    files = CaseFiles(survey.root, VOLUME_BYTES)
    seen = []
    for paths in kinds(survey)[:KINDS_READ]:
        seen.append(Look((paths[0].parent if len(paths) > 1 else paths[0]).as_posix()))
        # As labels: whether values are few tells an author which of the files are labels.
        for entry in _entries(survey.root, paths):
            what = f"{seen[-1].name} {entry}".rstrip()
            _add(seen[-1].images, seen[-1], files, (entry, paths, entry), what, is_label=True)
    return seen


def _entries(root: Path, paths: Sequence[Path]) -> list[str]:
    """The arrays of an .npz that may be images, "" for any other file."""
    if paths[0].suffix.lower() != ".npz":
        return [""]
    found = array_files.headers(root / paths[0])
    return [key for key, header in found.items() if len(header.shape) > 1] or [""]


def kinds(survey: Survey) -> list[tuple[Path, ...]]:
    """The first file or series of each kind of path, which differ in more than digits; the commonest kinds first."""
    found: dict[str, list[tuple[Path, ...]]] = defaultdict(list)
    for folder, names in survey.data.items():
        paths = [Path(folder, name) for name in names]
        series = kind_of(names[0]) == "dicom" and is_series(names)
        for entry in [tuple(paths)] if series else [(path,) for path in paths]:
            pattern = folder if series else entry[0].as_posix()
            found[re.sub(r"[0-9]+", "#", pattern)].append(entry)
    ranked = sorted(found, key=lambda pattern: (-len(found[pattern]), pattern))
    return [found[pattern][0] for pattern in ranked]


def likeliest(survey: Survey) -> Guess | None:
    """The best pairing of the tree; where names do not tell images from labels, what a case holds does."""
    rivals = guesses(survey)
    if len(rivals) < 2:
        return rivals[0] if rivals else None
    return next((rival for rival in rivals if not _is_turned(survey.root, rival.usable[0])), rivals[0])


def _is_turned(root: Path, found: Found) -> bool:
    """Whether the image of a case has as few values as labels have, and a label of it more."""
    files, seen = CaseFiles(root, VOLUME_BYTES), Look(found.name)
    _add(seen.images, seen, files, ("", found.images[0].paths, ""), "", is_label=True)
    for label in found.labels[:LABEL_FILES_READ]:
        _add(seen.labels, seen, files, (label.label, label.paths, ""), "", is_label=True)
    few = any(facts.values is not None for facts in seen.images)
    return few and any(facts.values is None for facts in seen.labels)


def look(root: Path, found: Found, *, whole: bool = False) -> Look:
    """One case as read: its images and the first ``LABEL_FILES_READ`` labels, all of them where ``whole``."""
    seen = Look(found.name)
    files = CaseFiles(root, VOLUME_BYTES)
    for image in found.images:
        what = f"image {image.channel}".rstrip()
        _add(seen.images, seen, files, (image.channel, image.paths, image.entry), what, is_label=False)
    for label in found.labels[: None if whole else LABEL_FILES_READ]:
        what = f"label {label.label}".rstrip()
        if found.images and _add_drawn(seen, files, found.images[0].paths, (label.label, label.paths), what):
            continue
        _add(seen.labels, seen, files, (label.label, label.paths, label.entry), what, is_label=True)
    if seen.images:
        seen.problems += _disagreements(seen.images[0], [*seen.images[1:], *seen.labels])
    return seen


def _add_drawn(
    seen: Look, files: CaseFiles, image: Sequence[Path], part: tuple[str, Sequence[Path]], what: str
) -> bool:
    """Whether the label is one that is drawn on the image; then it is in ``seen``, or what is wrong with it."""
    try:
        drawn = drawn_on(files, image, part[1])
    except CaseRejected as problem:
        seen.problems.append(f"{what}: {problem}")
        return True
    if drawn is None:
        return False
    place = drawn.reference
    seen.labels.append(
        Facts(
            token=part[0],
            reader=drawn.reader,
            lossy=False,
            shape=place.shape,
            dtype="drawn",
            spacing_mm=_spacing_mm(place),
            affine=place.affine,
            low=0.0,
            high=1.0,
            structures=drawn.structures,
        )
    )
    return True


def _add(
    facts: list[Facts],
    seen: Look,
    files: CaseFiles,
    part: tuple[str, Sequence[Path], str],
    what: str,
    *,
    is_label: bool,
) -> None:
    """Read a part (channel or class, paths, entry) to ``facts``, or note in ``seen`` why not."""
    token, paths, entry = part
    kind = kind_of(paths[0].name)
    try:
        options = _options(files.root, kind, paths, entry)
        volume, options = _read_or_stack(files, kind, paths, entry, options)
    except CaseRejected as problem:
        seen.problems.append(f"{what}: {problem}")
        return
    except (ConfigError, ImportError) as problem:
        seen.problems.append(f"{what}: no reader for it: {problem}")
        return
    lossy = paths[0].suffix.lower() in {".jpg", ".jpeg"}
    found = replace(_facts(token, kind, volume, lossy=lossy, is_label=is_label), options=options)
    facts.append(replace(found, spacing_mm=()) if "spacing_mm" in options else found)


def _options(root: Path, kind: str, paths: Sequence[Path], entry: str) -> dict[str, Any]:
    """What the reader has to be told. Raises CaseRejected where the file holds no image."""
    if kind == "raster" and len(paths) > 1:
        return _STACK
    if kind != "array":
        return {}
    path = root / paths[0]
    options = array_files.options(path, entry)
    if not options and array_files.headers(path):
        raise CaseRejected(Reason.UNREADABLE, "no array in it has the axes of an image")
    return options


def _read_or_stack(
    files: CaseFiles, kind: str, paths: Sequence[Path], entry: str, options: dict[str, Any]
) -> tuple[Volume, dict[str, Any]]:
    """The volume, and the options that it takes: only the file tells whether a TIFF is a picture or its pages a volume.

    Raises as ``_read``.
    """
    try:
        return _read(files, kind, paths, entry, options), options
    except CaseRejected as problem:
        if options or paths[0].suffix.lower() not in {".tif", ".tiff"}:
            raise
        try:
            return _read(files, kind, paths, entry, _STACK), _STACK
        except CaseRejected:
            raise problem from None


def _read(
    files: CaseFiles, kind: str, paths: Sequence[Path], entry: str, options: Mapping[str, Any]
) -> Volume:
    """Raises CaseRejected; ConfigError and ImportError where there is no reader."""
    reader = load(READERS, kind, "reader")
    known = {**options, "spacing_mm": (1.0, 1.0, 1.0)} if "spacing_mm" in options else options
    made = reader.Options(**known)
    volume: Volume = (
        reader.read_entry(files, paths, entry, made) if entry else reader.read(files, paths, made)
    )
    return volume


def _facts(token: str, reader: str, volume: Volume, *, lossy: bool, is_label: bool) -> Facts:
    voxels = volume.voxels
    if volume.affine is None and voxels.shape[2:] == (1,):
        voxels = voxels[..., 0]  # as the decoders take it
    colours = volume.affine is None and voxels.shape[2:] == (3,)
    # Of pictures with other components nothing is counted.
    is_label = is_label and (volume.affine is not None or colours or voxels.ndim == 2)
    if is_label and colours:
        grey = all(np.array_equal(voxels[..., 0], voxels[..., channel]) for channel in (1, 2))
        colours = not grey
        deep = colours and voxels.dtype != np.uint8
        voxels = voxels if deep else packed_colours(volume) if colours else voxels[..., 0]
        is_label = not deep  # no label map has colours of more than 8 bits: nothing to count
    low, high = _extremes(volume.voxels)
    scale = (volume.slope, volume.intercept)
    return Facts(
        token=token,
        reader=reader,
        lossy=lossy,
        shape=volume.voxels.shape,
        dtype=str(volume.voxels.dtype),
        spacing_mm=_spacing_mm(volume),
        affine=volume.affine,
        low=low * scale[0] + scale[1],
        high=high * scale[0] + scale[1],
        colours=colours,
        values=_counts(voxels, scale if not colours else (1.0, 0.0)) if is_label else None,
    )


def _extremes(voxels: Array) -> tuple[float, float]:
    """Smallest and largest value that is a number; NaN where there is none."""
    low = [float(np.fmin.reduce(block, axis=None)) for block in blocks(voxels)]
    high = [float(np.fmax.reduce(block, axis=None)) for block in blocks(voxels)]
    return (float(np.fmin.reduce(low)), float(np.fmax.reduce(high))) if low else (np.nan, np.nan)


def _spacing_mm(volume: Volume | Reference) -> tuple[float, ...]:
    if volume.affine is None:
        return volume.spacing_mm or ()
    return tuple(np.linalg.norm(volume.affine[:3, :3], axis=0).tolist())


def _counts(voxels: Array, scale: tuple[float, float]) -> dict[float, int] | None:
    """Voxels by physical value; None beyond ``VALUES_LISTED`` values or where a voxel is no number."""
    counts: dict[float, int] = {}
    for block in blocks(voxels):
        for value in distinct(block).tolist():
            key = value * scale[0] + scale[1]
            if not np.isfinite(key) or (key not in counts and len(counts) == VALUES_LISTED):
                return None
            counts[key] = counts.get(key, 0) + int(np.count_nonzero(block == value))
    return dict(sorted(counts.items()))


def _disagreements(first: Facts, others: Sequence[Facts]) -> list[str]:
    """Where files of a case do not lie on the grid of its first image."""
    found = []
    for other in others:
        what = other.token or "label"
        if other.grid_shape != first.grid_shape:
            found.append(f"{what}: shape {other.grid_shape}, image {first.grid_shape}")
        elif first.affine is not None and other.affine is not None and first.spacing_mm and other.spacing_mm:
            largest = float(np.abs(first.affine - other.affine).max())
            if largest > 1e-3 * min(first.spacing_mm):
                found.append(f"{what}: affine differs from the image's by up to {largest:.3g}")
    return found
