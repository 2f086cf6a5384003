"""Labels on the image's grid by rule; the same grid stored another way; masks made of masks."""

from __future__ import annotations

import itertools

import nibabel as nib
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform

from medcurate.config.source import LabelSpec
from medcurate.errors import CaseRejected, Reason
from medcurate.job.placing import placed
from medcurate.job.unions import agreed, with_regions
from medcurate.stages.orient import (
    along,
    canonical,
    canonical_affine,
    orientation,
    same_grid,
    stored,
    stored_affine,
)
from medcurate.types import LabelLayer, Reference, Volume

ORIENTATIONS = [
    "".join(codes)
    for order in itertools.permutations(["RL", "AP", "SI"])
    for codes in itertools.product(*order)
]
AFFINE = np.array([[0.7, 0, 0, -30], [0, 0.8, 0, 12], [0, 0, 2.5, 100], [0, 0, 0, 1.0]])  # RAS


def rule(**facts) -> LabelSpec:
    return LabelSpec(reader="nifti", decoder="index", **facts)


def as_stored(array: np.ndarray, directions: str) -> tuple[np.ndarray, np.ndarray]:
    """A RAS array on AFFINE, stored along ``directions``, by nibabel."""
    move = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(directions))
    moved = nib.orientations.apply_orientation(array, move)
    return moved, AFFINE @ inv_ornt_aff(move, array.shape)


@pytest.mark.parametrize("directions", ORIENTATIONS)
def test_stored_axes_are_nibabel_s(directions):
    array = np.arange(24).reshape(2, 3, 4)
    moved, affine = as_stored(array, directions)
    assert along(directions) == orientation(affine)
    np.testing.assert_array_equal(canonical(moved, along(directions)), array)
    np.testing.assert_array_equal(stored(array, along(directions)), moved)
    back = stored_affine(
        canonical_affine(affine, orientation(affine), moved.shape), orientation(affine), array.shape
    )
    assert same_grid(moved.shape, affine, moved.shape, back) == ""


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(ORIENTATIONS), st.sampled_from(ORIENTATIONS))
def test_a_label_whose_affine_is_wrong_lies_along_the_stated_axes(image_axes, label_axes):
    truth = np.random.default_rng(0).integers(0, 5, (3, 4, 5), np.uint8)
    expected, affine = as_stored(truth, image_axes)
    label, _ = as_stored(truth, label_axes)
    wrong = Volume(voxels=label, affine=np.eye(4))
    found = placed(
        wrong, Reference(shape=expected.shape, affine=affine), rule(geometry="image", axes=label_axes)
    )
    np.testing.assert_array_equal(found.voxels, expected)
    np.testing.assert_array_equal(found.affine, affine)
    as_image = placed(
        Volume(voxels=expected, affine=np.eye(4)),
        Reference(shape=expected.shape, affine=affine),
        rule(geometry="image"),
    )
    np.testing.assert_array_equal(as_image.voxels, expected)


def test_a_label_of_another_shape_is_refused():
    for reference in (Reference(shape=(3, 4, 6), affine=AFFINE), Reference(shape=(3, 4))):
        with pytest.raises(CaseRejected) as caught:
            placed(Volume(voxels=np.zeros((3, 4, 5)), affine=AFFINE), reference, rule(geometry="image"))
        assert caught.value.reason is Reason.GEOMETRY


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(*[st.integers(3, 9)] * 3),
    st.tuples(*[st.floats(0.5, 3)] * 3),
    st.tuples(*[st.floats(-4, 4)] * 3),
    st.floats(-0.4, 0.4),
)
def test_nearest_is_simpleitk_s(shape, spacing, origin, angle):
    """Away from ties, where a centre lies halfway between two label voxels and either would do."""
    sitk = pytest.importorskip("SimpleITK")
    labels = np.random.default_rng(0).integers(0, 200, (6, 7, 8)).astype(np.int16)
    label = sitk.GetImageFromArray(labels.T)
    label.SetSpacing((1.0, 1.3, 2.0))
    image = sitk.Image([*shape], sitk.sitkUInt8)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    image.SetDirection(turn.ravel().tolist())

    def affine(of) -> np.ndarray:
        matrix = np.eye(4)
        matrix[:3, :3] = np.reshape(of.GetDirection(), (3, 3)) * of.GetSpacing()
        matrix[:3, 3] = of.GetOrigin()
        return np.diag([-1, -1, 1, 1]) @ matrix

    step = np.linalg.solve(affine(label), affine(image))
    places = step[:3] @ np.stack([*(axis.ravel() for axis in np.indices(shape)), np.ones(np.prod(shape))])
    assume(np.abs(places - np.floor(places) - 0.5).min() > 1e-4)
    expected = sitk.GetArrayFromImage(
        sitk.Resample(label, image, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
    ).T
    found = placed(
        Volume(voxels=labels, affine=affine(label)),
        Reference(shape=shape, affine=affine(image)),
        rule(geometry="nearest"),
    )
    np.testing.assert_array_equal(found.voxels, expected)
    assert found.voxels.dtype == labels.dtype


def test_what_is_not_resampled():
    reference = Reference(shape=(2, 2, 2), affine=AFFINE)
    scaled = Volume(voxels=np.zeros((2, 2, 2)), affine=AFFINE, slope=2.0)
    flat = Volume(voxels=np.zeros((2, 2)))
    singular = Volume(voxels=np.zeros((2, 2, 2)), affine=np.diag([1.0, 0.0, 1.0, 1.0]))
    for volume, reason in (
        (scaled, Reason.BAD_LABEL),
        (flat, Reason.GEOMETRY),
        (singular, Reason.GEOMETRY),
    ):
        with pytest.raises(CaseRejected) as caught:
            placed(volume, reference, rule(geometry="nearest"))
        assert caught.value.reason is reason


# -- masks of masks ------------------------------------------------------------------------------------

TERMS = {1: "liver", 2: "spleen"}


def named(layers, term) -> np.ndarray:
    masks = [np.isin(layer.labels, [v for v, t in layer.terms.items() if t == term]) for layer in layers]
    return np.logical_or.reduce(masks)


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 5), st.sampled_from(["majority", "union", "intersection"]), st.integers(0, 2**32 - 1))
def test_what_raters_agree_on(count, how, seed):
    readings = np.random.default_rng(seed).integers(0, 3, (count, 4, 5), np.uint8)
    layers = agreed(
        ((LabelLayer(labels=reading, terms=TERMS),) for reading in readings), TERMS.values(), count, how
    )
    for value, term in TERMS.items():
        votes = (readings == value).sum(0)
        expected = {"majority": votes * 2 > count, "union": votes > 0, "intersection": votes == count}[how]
        np.testing.assert_array_equal(named(layers, term), expected)


def test_regions_unite_terms_and_leave_them():
    labels = np.array([[0, 1, 2, 4]], np.uint8)
    layer = LabelLayer(labels=labels, terms={1: "necrosis", 2: "oedema", 4: "enhancing"})
    nuclei = LabelLayer(labels=labels[:, ::-1].copy(), terms={0: "nucleus"}, instances=True)
    whole = {
        "tumour": ("necrosis", "oedema", "enhancing"),
        "core": ("necrosis", "enhancing"),
        "cell": ("nucleus",),
    }
    found = with_regions((layer, nuclei), whole)
    assert found[:2] == (layer, nuclei)
    assert named(found[2:], "tumour").tolist() == [[False, True, True, True]]
    assert named(found[2:], "core").tolist() == [[False, True, False, True]]
    assert named(found[2:], "cell").tolist() == [[True, True, True, False]]
    assert with_regions((layer,), {}) == (layer,)
