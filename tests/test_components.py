"""Runs and their components, against scipy.ndimage."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from medcurate.stages.components import numbered_2d, numbered_3d
from medcurate.stages.runs import Grid, find_runs

TERMS = {1: "liver", 2: "kidney", 3: "tumour"}

# Values 0 to 3 are drawn with much background and long stretches, so that components of many shapes occur.
VOLUMES = st.tuples(st.integers(1, 5), st.integers(1, 8), st.integers(1, 8)).flatmap(
    lambda shape: hnp.arrays(np.uint8, shape, elements=st.sampled_from([0, 0, 1, 1, 2, 3, 9]))
)


def numbers_by_scipy(volume: np.ndarray, *, full: bool, planar: bool) -> np.ndarray:
    """Component number of each voxel, inside its (plane, value) or value, by first voxel in raster order."""
    structure = ndimage.generate_binary_structure(3, 3 if full else 1)
    if planar:
        structure[[0, 2]] = False
    numbers = np.zeros(volume.shape, int)
    for value in TERMS:
        for scope in [np.s_[z : z + 1] for z in range(len(volume))] if planar else [np.s_[:]]:
            components = ndimage.label(volume[scope] == value, structure)[0]
            found, first = np.unique(components.ravel(), return_index=True)
            ranked = found[np.argsort(first)]
            for number, component in enumerate(ranked[ranked > 0].tolist(), 1):
                numbers[scope][components == component] = number
    return numbers


def painted(chunks, shape) -> np.ndarray:
    volume = np.zeros(shape, int)
    for runs, numbers in chunks:
        columns = [a.tolist() for a in (runs.plane, runs.column, runs.top, runs.bottom, numbers)]
        for plane, column, top, bottom, number in zip(*columns, strict=True):
            assert not volume[plane, top:bottom, column].any()
            volume[plane, top:bottom, column] = number
    return volume


def numbers_by_us(volume, *, full, planar, chunk_voxels=1 << 22) -> np.ndarray:
    grid = Grid(*volume.shape[1:])
    chunks = find_runs(volume, TERMS, instances=False, chunk_voxels=chunk_voxels)
    if planar:
        return painted(((runs, numbered_2d(runs, grid, full=full)) for runs in chunks), volume.shape)
    return painted(numbered_3d(chunks, grid, full=full), volume.shape)


@given(VOLUMES, st.booleans(), st.booleans(), st.sampled_from([1, 64, 128, 1 << 22]))
@settings(max_examples=400, deadline=None)
def test_components_equal_scipy(volume, full, planar, chunk_voxels):
    ours = numbers_by_us(volume, full=full, planar=planar, chunk_voxels=chunk_voxels)
    np.testing.assert_array_equal(ours, numbers_by_scipy(volume, full=full, planar=planar))


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("planar", [True, False])
def test_blobs_equal_scipy(full, planar):
    noise = ndimage.gaussian_filter(np.random.default_rng(1).standard_normal((24, 61, 47)), 1.3)
    volume = np.digitize(noise, np.quantile(noise, [0.55, 0.7, 0.85]))
    ours = numbers_by_us(volume, full=full, planar=planar, chunk_voxels=5 * 61 * 47)
    assert ours.max() > 5
    np.testing.assert_array_equal(ours, numbers_by_scipy(volume, full=full, planar=planar))


def test_an_object_that_parts_and_meets_again_across_chunks_is_one():
    volume = np.zeros((5, 3, 5), np.uint8)
    volume[1:4, 1, [0, 4]] = 1
    volume[4, 1] = 1
    assert numbers_by_us(volume, full=False, planar=False, chunk_voxels=1).max() == 1
    assert numbers_by_us(volume[:4], full=False, planar=False, chunk_voxels=1).max() == 2


def test_corners_join_only_under_full_connectivity():
    volume = np.zeros((2, 2, 2), np.uint8)
    volume[0, 0, 0] = volume[1, 1, 1] = 1
    assert numbers_by_us(volume, full=True, planar=False).max() == 1
    assert numbers_by_us(volume, full=False, planar=False).max() == 2


@pytest.mark.parametrize("planar", [True, False])
def test_opposite_borders_do_not_touch(planar):
    """The end of a column and the head of the next are neighbours in memory only; planes likewise."""
    volume = np.zeros((2, 4, 3), np.uint8)
    volume[0, 3, 0] = volume[0, 0, 1] = volume[0, 3, 2] = 1
    volume[1, 0, 0] = volume[1, 3, 1] = 1
    assert len(np.unique(volume[0])) == 2
    expected = numbers_by_scipy(volume, full=True, planar=planar)
    np.testing.assert_array_equal(numbers_by_us(volume, full=True, planar=planar), expected)


def test_runs_are_sorted_and_cover_each_label_once():
    volume = np.random.default_rng(3).integers(0, 4, (6, 7, 5))
    grid = Grid(7, 5)
    chunks = list(find_runs(volume, TERMS, instances=False, chunk_voxels=70))
    assert [len(np.unique(runs.plane)) for runs in chunks] == [2, 2, 2]
    places = np.concatenate([grid.place(runs.plane, runs.column, runs.top) for runs in chunks])
    assert (np.diff(places) > 0).all()
    values = painted([(runs, runs.label + 1) for runs in chunks], volume.shape)
    np.testing.assert_array_equal(values, volume)


def test_places_are_taken_apart_again():
    grid = Grid(65535, 65535)
    plane, column, row = np.array([0, 999, 7], np.int32), np.array([65534, 65534, 0]), np.array([65535, 0, 1])
    for given_axis, found in zip(
        (plane, column, row), grid.split(grid.place(plane, column, row)), strict=True
    ):
        np.testing.assert_array_equal(found, given_axis)
