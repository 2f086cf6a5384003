"""Geometry that readers share: other spaces to RAS+, and the affines that none of them lets through."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from medcurate.errors import CaseRejected, Reason

Affine = npt.NDArray[np.float64]

# Signs that turn a space's axes into Right, Anterior, Superior. DICOM and ITK are LPS.
RAS = (1.0, 1.0, 1.0)
LPS = (-1.0, -1.0, 1.0)
LAS = (-1.0, 1.0, 1.0)
_MIN_DETERMINANT = 1e-9  # of the axes' unit vectors: below, two axes are parallel


def affine_from_axes(axes_mm: npt.ArrayLike, origin_mm: npt.ArrayLike, space: tuple[float, ...]) -> Affine:
    """(4, 4) RAS+ affine from the steps of i, j, k (rows of (3, 3)) and the centre of voxel (0, 0, 0).

    Both are given in ``space``: RAS, LPS or LAS. Raises as ``checked``.
    """
    affine = np.eye(4)
    affine[:3, :3] = np.asarray(axes_mm, np.float64).T
    affine[:3, 3] = origin_mm
    affine[:3] *= np.reshape(space, (3, 1))
    return checked(affine)


def checked(affine: npt.ArrayLike) -> Affine:
    """``affine`` as float64. Raises CaseRejected (GEOMETRY) when it is not finite or has no inverse."""
    matrix = np.asarray(affine, np.float64)
    if not np.isfinite(matrix).all():
        raise CaseRejected(Reason.GEOMETRY, "the affine holds NaN or infinity")
    lengths = np.linalg.norm(matrix[:3, :3], axis=0)
    if not lengths.all():
        raise CaseRejected(Reason.GEOMETRY, "an axis of the affine has no length")
    determinant = abs(float(np.linalg.det(matrix[:3, :3] / lengths)))
    if not determinant > _MIN_DETERMINANT:
        raise CaseRejected(
            Reason.GEOMETRY,
            "the affine is singular",
            {"measure": round(determinant, 12), "bound": _MIN_DETERMINANT},
        )
    return matrix
