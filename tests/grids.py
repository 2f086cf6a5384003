"""Voxel grids in every orientation, shared by the tests of geometry."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np

# (RAS axis of each stored axis, its sign)
ORIENTATIONS = list(product(permutations(range(3)), product((1, -1), repeat=3)))


def affine_of(order, signs, spacing_mm=(0.7, 0.8, 5.0), origin_mm=(-90.0, 40.0, 7.0)):
    """(4, 4): stored axis n runs along RAS axis order[n], forwards or backwards."""
    affine = np.zeros((4, 4))
    for stored, (ras, sign) in enumerate(zip(order, signs, strict=True)):
        affine[ras, stored] = sign * spacing_mm[stored]
    affine[:3, 3], affine[3, 3] = origin_mm, 1
    return affine
