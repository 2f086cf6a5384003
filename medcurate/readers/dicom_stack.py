"""Planes of a DICOM series to one stack: their order, equal steps, and whether planes at its ends are missing."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from medcurate.errors import CaseRejected, Reason
from medcurate.readers import dicom_parse, dicom_pixels, geometry
from medcurate.readers.dicom_parse import Frame, Vector

_STEP_TOLERANCE = 0.05  # of the step: how far a plane may lie from its place, along any direction
_COSINE_TOLERANCE = 1e-3  # between direction cosines, which files round
_SPACING_TOLERANCE = 1e-3  # relative
_INSTANCE_NUMBER = 0x00200013


def stacked(named: Sequence[Frame], *, by_names: bool, from_one: bool) -> tuple[list[Frame], geometry.Affine]:
    """Frames in the order of their positions, or of names, and the RAS+ affine of the whole.

    ``from_one``: refuse a stack whose instance numbers tell that its first planes are missing.
    Raises CaseRejected: MIXED_SERIES, SERIES_GAP, GEOMETRY.
    """
    _check_alike(named)
    frames, affine = _by_position(named)
    if from_one:
        _check_first(frames)
    if not by_names or all(one is other for one, other in zip(frames, named, strict=True)):
        return frames, affine
    if any(one is not other for one, other in zip(reversed(frames), named, strict=True)):
        raise CaseRejected(Reason.SERIES_GAP, "the order of file names is not that of the positions")
    affine[:3, 3] += affine[:3, 2] * (len(frames) - 1)
    affine[:3, 2] *= -1
    return frames[::-1], affine


def _check_first(frames: Sequence[Frame]) -> None:
    """A plane that is missing at an end leaves no gap between positions; instance numbers may tell.

    They do where they count the planes in equal steps: those of a whole series begin with 1 (or 0). A stack that is
    one phase of a series follows others of its size, so only a beginning within the first stack is refused. A phase
    longer than those before it looks the same: it is refused aloud, with the option that takes it, rather than a
    stack without its beginning taken silently.
    """
    numbers = [_instance_number(frame) for frame in frames]
    known = [number for number in numbers if number is not None]
    if len(known) < len(numbers) or len(numbers) < 2:
        return
    steps = np.diff(known)
    step = abs(int(steps[0]))
    if step == 0 or (steps != steps[0]).any():
        return
    missing = (min(known) - 1) // step
    if 0 < missing < len(frames):
        raise CaseRejected(
            Reason.SERIES_GAP,
            f"the instance numbers of {len(frames)} planes begin at {min(known)}: the {missing} before are missing; "
            'the reader\'s option instance_numbers = "any" says that this is right',
            {"measure": float(min(known)), "bound": float(step)},
        )


def _instance_number(frame: Frame) -> int | None:
    """Of a file of its own; None where it states none."""
    stated = dicom_parse.text(frame.dataset, _INSTANCE_NUMBER)
    return int(stated) if re.fullmatch(r"[+-]?[0-9]{1,12}", stated) else None


def _check_alike(frames: Sequence[Frame]) -> None:
    first = frames[0]
    if first.spacing_mm is None or not (first.spacing_mm > 0).all():
        raise CaseRejected(Reason.GEOMETRY, "no positive Pixel Spacing")
    alike = {
        "image size": len({dicom_pixels.grid(frame.dataset) for frame in frames}) == 1,
        "Pixel Spacing": _all_close([frame.spacing_mm for frame in frames], _SPACING_TOLERANCE),
        "Image Orientation (Patient)": _all_close(
            [frame.orientation for frame in frames], 0, _COSINE_TOLERANCE
        ),
    }
    for what, same in alike.items():
        if not same:
            raise CaseRejected(Reason.MIXED_SERIES, f"the planes differ in {what}")


def _all_close(vectors: Sequence[Vector | None], relative: float, absolute: float = 0.0) -> bool:
    """Whether all are there and like the first."""
    stated = [vector for vector in vectors if vector is not None]
    return len(stated) == len(vectors) and np.allclose(stated, stated[0], rtol=relative, atol=absolute)


def _by_position(frames: Sequence[Frame]) -> tuple[list[Frame], geometry.Affine]:
    row, column = _unit_directions(frames[0])
    normal = np.cross(row, column)
    frames = sorted(frames, key=lambda frame: float(_position(frame) @ normal))
    positions = np.array([_position(frame) for frame in frames])
    step = _even_step(positions, normal) if len(frames) > 1 else normal * _single_step(frames[0])
    between_rows, between_columns = frames[0].spacing_mm  # type: ignore[misc]
    axes = np.array([row * between_columns, column * between_rows, step])
    return list(frames), geometry.affine_from_axes(axes, positions[0], geometry.LPS)


def _position(frame: Frame) -> Vector:
    assert frame.position_mm is not None  # frames without one never get here
    return frame.position_mm


def _unit_directions(frame: Frame) -> tuple[Vector, Vector]:
    assert frame.orientation is not None
    row, column = frame.orientation
    gram = frame.orientation @ frame.orientation.T
    if not np.allclose(gram, np.eye(2), atol=2 * _COSINE_TOLERANCE):
        raise CaseRejected(
            Reason.GEOMETRY, "Image Orientation (Patient) is not two perpendicular unit vectors"
        )
    return row, column


def _even_step(positions: Vector, normal: Vector) -> Vector:
    """The step from plane to plane; oblique where the planes are sheared (a tilted gantry).

    Raises CaseRejected (SERIES_GAP) for planes at one place, and for a plane away from where equal
    steps put it: a missing plane moves all that follow.
    """
    gaps = np.diff(positions @ normal)
    usual = float(np.median(gaps))
    if not gaps.min() > _STEP_TOLERANCE * usual or usual <= 0:
        raise CaseRejected(
            Reason.SERIES_GAP, "several planes at one position", {"measure": float(gaps.min())}
        )
    if gaps.max() > 1.5 * usual:
        raise CaseRejected(
            Reason.SERIES_GAP, "a plane is missing", {"measure": float(gaps.max()), "bound": 1.5 * usual}
        )
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    ideal = positions[0] + np.arange(len(positions))[:, None] * step
    away = float(np.linalg.norm(positions - ideal, axis=1).max())
    if away > _STEP_TOLERANCE * usual:
        raise CaseRejected(
            Reason.SERIES_GAP,
            "the planes are not equally spaced",
            {"measure": away, "bound": _STEP_TOLERANCE * usual},
        )
    return np.asarray(step)


def _single_step(frame: Frame) -> float:
    if frame.thickness_mm is None or not frame.thickness_mm > 0:
        raise CaseRejected(
            Reason.GEOMETRY,
            'a single plane without slice thickness; the reader\'s option "flat" reads it as 2D',
        )
    return frame.thickness_mm
