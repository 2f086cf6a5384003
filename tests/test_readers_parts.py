"""Parts of files and unusual storage: halves, frames, files as planes, colours as a third axis, order of names."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from dicom_kit import series
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from medcurate.errors import CaseRejected, Reason
from medcurate.readers import dicom, metaimage, nifti, raster
from medcurate.readers.files import CaseFiles
from medcurate.types import Volume

LIMIT = 1 << 24


def read(reader: ModuleType, root: Path, *names: str, entry: str = "", **options: Any) -> Volume:
    files, paths = CaseFiles(root, LIMIT), [Path(name) for name in names]
    chosen = reader.Options(**options)
    return reader.read_entry(files, paths, entry, chosen) if entry else reader.read(files, paths, chosen)


def refusal(*args: Any, **options: Any) -> Reason:
    with pytest.raises(CaseRejected) as caught:
        read(*args, **options)
    return caught.value.reason


# -- raster --------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.booleans())
def test_halves_put_together_are_the_picture(tmp_path_factory, height, width, colour):
    root = tmp_path_factory.mktemp("halves")
    pixels = np.random.default_rng(0).integers(
        0, 255, (2 * height, 2 * width, 3)[: 3 if colour else 2], np.uint8
    )
    Image.fromarray(pixels).save(root / "a.png")
    parts = {
        name: read(raster, root, "a.png", entry=name).voxels for name in ("left", "right", "top", "bottom")
    }
    np.testing.assert_array_equal(np.concatenate([parts["left"], parts["right"]], 1), pixels)
    np.testing.assert_array_equal(np.concatenate([parts["top"], parts["bottom"]], 0), pixels)


def test_odd_sides_have_no_halves_and_other_parts_are_unknown(tmp_path):
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(tmp_path / "a.png")
    assert refusal(raster, tmp_path, "a.png", entry="left") is Reason.GEOMETRY
    assert read(raster, tmp_path, "a.png", entry="top").voxels.shape == (2, 5)
    assert refusal(raster, tmp_path, "a.png", entry="middle") is Reason.UNREADABLE
    with pytest.raises(ValueError, match="known: left"):
        raster.check_entry("middle")


def test_alpha_is_refused_or_ignored(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (4, 5, 4), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert refusal(raster, tmp_path, "a.png") is Reason.UNREADABLE
    np.testing.assert_array_equal(read(raster, tmp_path, "a.png", alpha="ignore").voxels, pixels[..., :3])


def test_files_are_planes_in_the_given_order(tmp_path):
    planes = np.random.default_rng(0).integers(0, 255, (3, 4, 5), np.uint8)
    for number, plane in enumerate(planes):
        Image.fromarray(plane).save(tmp_path / f"{number}.png")
    names = ["0.png", "1.png", "2.png"]
    found = read(raster, tmp_path, *names, stack=True, spacing_mm=[3, 2, 1])
    np.testing.assert_array_equal(found.voxels, planes.transpose(2, 1, 0))
    np.testing.assert_array_equal(np.abs(np.diag(found.affine)[:3]), [1, 2, 3])
    assert refusal(raster, tmp_path, *names) is Reason.UNREADABLE
    Image.fromarray(planes[0][:3]).save(tmp_path / "1.png")
    assert refusal(raster, tmp_path, *names, stack=True, spacing_mm=[1, 1, 1]) is Reason.GEOMETRY


# -- NIfTI and MetaImage -------------------------------------------------------------------------------


def test_frames_of_a_4d_file(tmp_path):
    array = np.random.default_rng(0).integers(0, 99, (3, 4, 2, 5)).astype(np.int16)
    nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / "a.nii.gz")
    for frame in range(5):
        found = read(nifti, tmp_path, "a.nii.gz", entry=str(frame))
        np.testing.assert_array_equal(found.voxels, array[..., frame])
    assert refusal(nifti, tmp_path, "a.nii.gz", entry="5") is Reason.GEOMETRY
    nib.save(nib.Nifti1Image(array[..., 0], np.eye(4)), tmp_path / "b.nii.gz")
    assert refusal(nifti, tmp_path, "b.nii.gz", entry="0") is Reason.GEOMETRY
    for entry in ("-1", "ED", ""):
        with pytest.raises(ValueError, match="frame"):
            nifti.check_entry(entry)


def test_a_third_axis_of_colours(tmp_path):
    sitk = pytest.importorskip("SimpleITK")
    array = np.random.default_rng(0).integers(0, 255, (3, 4, 5), np.uint8)  # channel, row, column
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((0.3, 0.4, 1.0))
    sitk.WriteImage(image, tmp_path / "a.mha")
    found = read(metaimage, tmp_path, "a.mha", channels="k")
    np.testing.assert_array_equal(found.voxels, array.transpose(1, 2, 0))
    assert found.affine is None
    assert found.spacing_mm == (0.4, 0.3)
    sitk.WriteImage(sitk.GetImageFromArray(array[:2]), tmp_path / "b.mha")
    assert refusal(metaimage, tmp_path, "b.mha", channels="k") is Reason.UNREADABLE


# -- DICOM ---------------------------------------------------------------------------------------------


def write_planes(root: Path, order: list[int]) -> tuple[np.ndarray, list[str]]:
    """Planes of a series, the n-th called by its place in ``order``; names in natural order."""
    voxels = np.random.default_rng(0).integers(0, 99, (4, 3, len(order)), np.int16)
    for dataset, number in zip(series(voxels), order, strict=True):
        dataset.save_as(root / f"IMG-{number}.dcm", enforce_file_format=True)
    return voxels, [f"IMG-{number}.dcm" for number in sorted(order)]


@pytest.mark.parametrize("backwards", [False, True])
def test_planes_count_as_names_do(tmp_path, backwards):
    order = list(range(1, 12))
    voxels, names = write_planes(tmp_path, order[::-1] if backwards else order)
    by_position, by_name = read(dicom, tmp_path, *names), read(dicom, tmp_path, *names, order="names")
    np.testing.assert_array_equal(by_position.voxels, voxels)
    np.testing.assert_array_equal(by_name.voxels, voxels[..., ::-1] if backwards else voxels)
    for k in (0, 10):  # the same place of the same plane
        named = by_name.affine @ [0, 0, 10 - k if backwards else k, 1]
        np.testing.assert_allclose(named, by_position.affine @ [0, 0, k, 1])
    reference = dicom.reference(
        CaseFiles(tmp_path, LIMIT), [Path(n) for n in names], dicom.Options(order="names")
    )
    np.testing.assert_allclose(reference.affine, by_name.affine)


def test_names_that_follow_no_direction_are_refused(tmp_path):
    _, names = write_planes(tmp_path, [2, 1, 3])
    assert read(dicom, tmp_path, *names).voxels.shape == (4, 3, 3)
    assert refusal(dicom, tmp_path, *names, order="names") is Reason.SERIES_GAP
