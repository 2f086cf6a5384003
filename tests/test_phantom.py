"""The phantoms: the same bytes everywhere, and anatomy that the pipeline can be tested on."""

from __future__ import annotations

import gzip
import hashlib

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from medcurate.errors import ConfigError
from medcurate.library import ontology
from medcurate.phantom import (
    CT_LABELS,
    MR_LABELS,
    Ellipsoid,
    _noise,
    _paint,
    ct_phantom,
    generate,
    generator_names,
    mr_phantom,
    write_nifti,
)

SMALL = (64, 56, 24)


def digest(*arrays: np.ndarray) -> str:
    return hashlib.sha256(b"".join(array.tobytes(order="F") for array in arrays)).hexdigest()


def masks_per_slice(labels: np.ndarray) -> float:
    """2D components per annotated slice, by scipy."""
    planes = [labels[:, :, k] for k in range(labels.shape[2]) if labels[:, :, k].any()]
    count = sum(
        ndimage.label(plane == value, np.ones((3, 3)))[1]
        for plane in planes
        for value in np.unique(plane)
        if value
    )
    return count / len(planes)


def test_voxels_are_the_same_on_every_platform():
    """Pinned: a platform, numpy or compiler that rounds otherwise would show here."""
    image, labels, _ = ct_phantom(1, SMALL)
    assert digest(image, labels) == "1d2e3113e390a1406401cd3bfd83fd96397bc5e03425751a9b6621ddb3ea23f9"
    image, labels, _ = mr_phantom(1, SMALL)
    assert digest(image, labels) == "05a0ef3a118d298279403b9e8252f210825aa5e3a945066aad818a8ce3cd33c7"


def test_ct_looks_like_ct():
    image, labels, affine = ct_phantom(2)
    assert (image.dtype, labels.dtype, image.shape) == (np.int16, np.uint8, (160, 160, 48))
    assert nib.aff2axcodes(affine) == ("L", "P", "S")
    assert np.allclose(nib.affines.voxel_sizes(affine), (1.5, 1.5, 3.0))
    assert set(np.unique(labels)) == {0, *CT_LABELS}
    assert image.min() >= -1024
    assert image.max() <= 3071
    means = {CT_LABELS[value]: image[labels == value].mean() for value in CT_LABELS}
    assert means["liver-lesion"] < 70 < means["liver"] < means["aorta"] < means["spine"]
    assert 8 < image[labels == 1].std() < 20


def test_ct_organs_lie_on_their_sides():
    """In patient coordinates (RAS+): the liver on the right, the spleen on the left, the spine behind."""
    _, labels, affine = ct_phantom(3)

    def middle(name: str) -> np.ndarray:
        value = next(value for value, label in CT_LABELS.items() if label == name)
        return nib.affines.apply_affine(affine, ndimage.center_of_mass(labels == value))

    assert middle("liver")[0] > 20
    assert middle("spleen")[0] < -20
    assert middle("kidney-right")[0] > 20 > -20 > middle("kidney-left")[0]
    assert middle("spine")[1] < middle("aorta")[1] < middle("liver")[1]
    assert middle("kidney-right")[2] < middle("liver")[2]


@pytest.mark.parametrize("seed", range(1, 7))
def test_lesions_lie_in_the_liver(seed):
    _, labels, _ = ct_phantom(seed, visit=2)
    surroundings = ndimage.binary_dilation(labels == 7, iterations=2)
    assert set(np.unique(labels[surroundings])) <= {0, 1, 7}
    assert (labels[surroundings] == 1).sum() > 5 * (labels[surroundings] == 0).sum()


def test_visits_show_one_patient_with_growing_lesions():
    first, second = ct_phantom(4, visit=1), ct_phantom(4, visit=2)
    other = ct_phantom(5, visit=1)
    for value in (2, 3, 4, 5, 6):
        assert np.array_equal(first[1] == value, second[1] == value)
        assert not np.array_equal(first[1] == value, other[1] == value) or value == 5
    assert (second[1] == 7).sum() > (first[1] == 7).sum() > 0
    assert not np.array_equal(first[0], second[0])


def test_mr_has_a_bias_field_and_all_tissues():
    image, labels, _ = mr_phantom(2)
    assert image.dtype == np.uint16
    assert set(np.unique(labels)) == {0, *MR_LABELS}
    white = labels == 2
    left, right = image[:96][white[:96]].mean(), image[96:][white[96:]].mean()
    assert right > 1.1 * left
    assert (image == 0).mean() > 0.1  # "nonzero" percentiles have something to leave out


@pytest.mark.parametrize("make", [ct_phantom, mr_phantom])
def test_large_phantoms_have_four_to_five_masks_a_slice(make):
    _, labels, _ = make(7, (256, 256, 60), lesions=10)
    assert 4 <= masks_per_slice(labels) <= 5.2


def test_labels_are_in_the_ontology():
    assert {*CT_LABELS.values(), *MR_LABELS.values()} <= set(ontology().labels)


def test_noise_is_about_normal_and_white():
    planes = [plane for _, plane in _noise(9, (128, 128, 8), amplitude=24)]
    values = np.stack(planes).astype(float)
    assert abs(values.mean()) < 0.6  # the shift floors: half a unit below zero
    assert abs(values.std() - 0.577 * 24) < 0.2
    flat = values.ravel() - values.mean()
    for lag in (1, 128, 128 * 128):
        assert abs((flat[lag:] * flat[:-lag]).mean() / flat.var()) < 0.02


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(*[st.integers(4, 40)] * 3),
    st.tuples(*[st.integers(-200, 1200)] * 3),
    st.tuples(*[st.integers(20, 700)] * 2, st.integers(0, 700)),
)
def test_painting_agrees_with_real_arithmetic(shape, centre, radius):
    """Every voxel that a float64 evaluation puts clearly inside or outside is painted so."""
    labels = np.zeros(shape, np.uint8)
    _paint(np.zeros(shape, np.int16), labels, Ellipsoid(1, 1, centre, radius))
    total = np.zeros(shape)
    for axis, size in enumerate(shape):
        if radius[axis]:
            terms = (((np.arange(size) + 0.5) / size * 1000 - centre[axis]) / radius[axis]) ** 2
            total += terms.reshape([-1 if number == axis else 1 for number in range(3)])
    assert labels[total < 1 - 1e-5].all()
    assert not labels[total > 1 + 1e-5].any()


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([np.int16, np.uint8, np.uint16]),
    st.tuples(*[st.integers(1, 9)] * 3),
    st.tuples(*[st.sampled_from([0.5, 0.75, 1.5, 3.0])] * 3),
    st.sampled_from([".nii", ".nii.gz"]),
)
def test_nifti_reads_back_by_nibabel(tmp_path_factory, dtype, shape, spacing, suffix):
    path = tmp_path_factory.mktemp("nifti") / f"a{suffix}"
    voxels = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
    affine[:3, 3] = 10, -20, 30
    write_nifti(path, voxels, affine)
    image = nib.load(path)
    assert np.array_equal(np.asarray(image.dataobj), voxels)
    assert image.get_data_dtype() == dtype
    assert np.array_equal(image.affine, affine)
    assert image.header.get_zooms() == spacing
    assert image.header.get_xyzt_units()[0] == "mm"


def test_gzip_holds_no_time(tmp_path):
    image, _, affine = ct_phantom(1, (16, 16, 4))
    write_nifti(tmp_path / "a.nii.gz", image, affine)
    content = (tmp_path / "a.nii.gz").read_bytes()
    assert content[4:8] == bytes(4)
    write_nifti(tmp_path / "a.nii", image, affine)
    assert gzip.decompress(content) == (tmp_path / "a.nii").read_bytes()


def test_generators_write_image_and_label_of_one_volume(tmp_path):
    names = generator_names()
    assert len(names) == 16
    generate("ct-phantom/p04-2/image", tmp_path / "image.nii")
    generate("ct-phantom/p04-2/label", tmp_path / "label.nii")
    image, labels, affine = ct_phantom(4, visit=2)
    assert np.array_equal(np.asarray(nib.load(tmp_path / "image.nii").dataobj), image)
    loaded = nib.load(tmp_path / "label.nii")
    assert np.array_equal(np.asarray(loaded.dataobj), labels)
    assert np.array_equal(loaded.affine, affine)


def test_an_unknown_generator_is_named_with_the_known_ones(tmp_path):
    with pytest.raises(
        ConfigError, match=r'generator "ct-phantom/p99-1/image" is unknown; known: ct-phantom/p01-1'
    ):
        generate("ct-phantom/p99-1/image", tmp_path / "a.nii")
    assert not list(tmp_path.iterdir())
