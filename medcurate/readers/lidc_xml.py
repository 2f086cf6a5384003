"""LIDC-IDRI annotations: the nodules of up to four readers as outlines on the planes of a CT.

Layout: readingSession / unblindedReadNodule / roi / edgeMap, one session a reader (sessions of different scans
are different persons). An outline is the outer border of a nodule: its own pixels are outside, of regions to
leave out (inclusion FALSE) too. Nodules below 3 mm and non-nodules are points and enclose nothing. Sources:
Armato et al., Med Phys 38:915 (2011), section II.D, and S. Armato's answer in pylidc's pull request 16.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from medcurate.config.source import Strict
from medcurate.errors import CaseRejected, Reason
from medcurate.readers import markup
from medcurate.readers.files import CaseFiles
from medcurate.readers.polygons import OnPath, Points, fill, stacked
from medcurate.types import Drawing, Patch, Reference, Structure

NAME = "nodule"
_MAX_READERS = 4
_OFF_PLANE_STEPS = 0.1  # how far a stated z may lie from the plane, in steps between planes


class Options(Strict):
    """Whose outlines count; exactly one of the two. ``session``: the number of one reading session of the file,
    each nodule a structure of its own. ``agreement``: voxels that at least so many sessions enclose, as one
    structure: 1 is the union, 2 half of the four readers, 3 a majority, 4 their intersection.
    """

    session: Annotated[int, Field(ge=1, le=_MAX_READERS)] | None = None
    agreement: Annotated[int, Field(ge=1, le=_MAX_READERS)] | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Options:
        if (self.session is None) == (self.agreement is None):
            raise ValueError("state whose outlines count: either session or agreement")
        return self


@dataclass(slots=True)
class _Roi:
    """One outline: its plane by UID and by z in millimetres, and whether it adds or takes away."""

    uid: str = ""
    z_mm: float = np.nan
    inclusion: bool = True
    xs: list[float] = field(default_factory=list)
    ys: list[float] = field(default_factory=list)

    @property
    def outline(self) -> Points:
        return np.column_stack([self.xs, self.ys]) if self.xs else np.empty((0, 2))


@dataclass(slots=True)
class _Reading:
    """Sessions, of nodules, of outlines, as they are read."""

    sessions: list[list[list[_Roi]]] = field(default_factory=list)

    def start(self, path: markup.Path, attributes: Mapping[str, str]) -> None:
        if len(path) == 1 and path != ("LidcReadMessage",):
            raise CaseRejected(Reason.UNREADABLE, "no LIDC reading of a CT: the root is another element")
        if path[-1] == "readingSession":
            self.sessions.append([])
        elif path[-2:] == ("readingSession", "unblindedReadNodule"):
            self.sessions[-1].append([])
        elif path[-2:] == ("unblindedReadNodule", "roi"):
            self.sessions[-1][-1].append(_Roi())

    def end(self, path: markup.Path, text: str) -> None:
        if path[-3:-1] == ("unblindedReadNodule", "roi"):
            roi = self.sessions[-1][-1][-1]
            if path[-1] == "imageSOP_UID":
                roi.uid = text
            elif path[-1] == "imageZposition":
                roi.z_mm = markup.number(text)
            elif path[-1] == "inclusion":
                roi.inclusion = text.upper() != "FALSE"
        elif path[-4:-1] == ("unblindedReadNodule", "roi", "edgeMap"):
            roi = self.sessions[-1][-1][-1]
            {"xCoord": roi.xs, "yCoord": roi.ys}.get(path[-1], []).append(markup.number(text))


def draw(files: CaseFiles, paths: Sequence[Path], reference: Reference, options: Options) -> Drawing:
    """The nodules that ``options`` choose, under the name "nodule". Masks have axes (i, j, k).

    Raises CaseRejected: CORRUPT, UNREADABLE, GEOMETRY; MISSING_FILE where the chosen session is not there.
    """
    if reference.affine is None:
        raise CaseRejected(Reason.GEOMETRY, "LIDC outlines belong to a volume, but the image is a picture")
    reading = _Reading()
    for path in sorted(paths):
        markup.walk(files.read(path), reading.start, reading.end)
    planes = _Planes(reference)
    if options.agreement is not None:
        paint = partial(_paint_agreement, reading.sessions, planes, options.agreement)
        return Drawing(reference, [Structure((NAME,), paint)])
    number = options.session or 0
    if number > len(reading.sessions):
        raise CaseRejected(
            Reason.MISSING_FILE,
            "fewer reading sessions than the one chosen",
            {"measure": len(reading.sessions), "bound": number},
        )
    chosen = reading.sessions[number - 1]
    return Drawing(reference, [Structure((NAME,), partial(_paint, rois, planes)) for rois in chosen])


class _Planes:
    """Finds the plane k of an outline: by SOP Instance UID, else (some UIDs of the set are wrong) by z."""

    def __init__(self, reference: Reference) -> None:
        assert reference.affine is not None  # ``draw`` has looked
        affine = reference.affine
        self.width, self.height, self.count = reference.shape[:3]
        self._numbers = {uid: k for k, (uid, _) in enumerate(reference.planes)}
        self._z_mm, self._step_mm = float(affine[2, 3]), float(affine[2, 2])
        # Columns to the left, rows to the back: else pixels of the file are not those of the CT's planes.
        steps = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
        if not np.allclose(np.diag(steps)[:2], -1, atol=1e-2) or abs(self._step_mm) < 1e-6:
            raise CaseRejected(Reason.GEOMETRY, "LIDC outlines need axial planes as the scanner stored them")

    def number(self, roi: _Roi) -> int:
        if roi.uid in self._numbers:
            return self._numbers[roi.uid]
        place = (roi.z_mm - self._z_mm) / self._step_mm
        k = int(np.rint(place)) if np.isfinite(place) else -1
        if not (0 <= k < self.count and abs(place - k) <= _OFF_PLANE_STEPS):
            raise CaseRejected(Reason.GEOMETRY, "an outline lies on no plane of the image, by UID or by z")
        return k


def _paint(rois: Sequence[_Roi], planes: _Planes) -> Patch | None:
    """One reader's nodule: what outlines enclose, less what those to leave out enclose and touch."""
    found: dict[int, Patch] = {}
    for roi in sorted(rois, key=lambda roi: not roi.inclusion):
        if len(roi.xs) != len(roi.ys):
            raise CaseRejected(Reason.CORRUPT, "an outline has more x than y coordinates, or fewer")
        k = planes.number(roi)
        border: OnPath = "outside" if roi.inclusion else "inside"
        patch = fill([roi.outline], planes.height, planes.width, path=border)
        if patch is None or (not roi.inclusion and k not in found):
            continue
        found[k] = _combined(found.get(k), patch, add=roi.inclusion)
    return stacked(found)


def _combined(base: Patch | None, patch: Patch, *, add: bool) -> Patch:
    if base is None:
        return patch
    low, ends = _box([base, patch])
    mask = np.zeros(ends - low, np.bool_)
    mask[_window(base, low)] = base.mask
    if add:
        mask[_window(patch, low)] |= patch.mask
    else:
        mask[_window(patch, low)] &= ~patch.mask
    return Patch(tuple(low.tolist()), mask)


def _box(patches: Sequence[Patch]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Where the box that holds all patches starts and ends."""
    low = np.array([patch.start for patch in patches]).min(axis=0)
    ends = np.array([np.add(patch.start, patch.mask.shape) for patch in patches]).max(axis=0)
    return low, ends


def _window(patch: Patch, low: npt.NDArray[np.int64]) -> tuple[slice, ...]:
    starts = (np.array(patch.start) - low).tolist()
    return tuple(slice(at, at + size) for at, size in zip(starts, patch.mask.shape, strict=True))


def _paint_agreement(
    sessions: Sequence[Sequence[Sequence[_Roi]]], planes: _Planes, agreement: int
) -> Patch | None:
    readers = [list(_nodules(nodules, planes)) for nodules in sessions]
    patches = [patch for nodules in readers for patch in nodules]
    if not patches:
        return None
    low, ends = _box(patches)
    votes = np.zeros(ends - low, np.uint8, order="F")
    for nodules in readers:
        own = np.zeros(votes.shape, np.bool_, order="F")  # a reader's nodules may overlap and are one vote
        for patch in nodules:
            own[_window(patch, low)] |= patch.mask
        votes += own
    agreed = votes >= agreement
    return Patch(tuple(low.tolist()), agreed) if agreed.any() else None


def _nodules(nodules: Sequence[Sequence[_Roi]], planes: _Planes) -> Iterator[Patch]:
    for rois in nodules:
        patch = _paint(rois, planes)
        if patch is not None:
            yield patch
