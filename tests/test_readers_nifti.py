"""NIfTI: nibabel's values and geometry, damage found, hostile headers refused before allocation."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
from io import BytesIO

import nibabel as nib
import numpy as np
import pytest
import realdata
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from readers_kit import LIMIT_BYTES, itk_affine, read, refused, write_and_read

from medcurate.errors import CaseRejected, Reason
from medcurate.readers import nifti
from medcurate.readers.files import CaseFiles

IMAGES = {1: nib.Nifti1Image, 2: nib.Nifti2Image}
AFFINE = np.array([[-0.7, 0.1, 0, 90], [0.1, 0.7, 0, -126], [0, 0, 5, -72], [0, 0, 0, 1.0]])
VOXELS = (np.arange(5 * 6 * 7, dtype=np.int16) % 120).reshape(5, 6, 7)


def image_bytes(voxels=VOXELS, *, version=1, **fields) -> bytes:
    """A file by nibabel, whose header then states ``fields``, however wrong."""
    content = IMAGES[version](voxels, AFFINE).to_bytes()
    size = IMAGES[version].header_class.sizeof_hdr
    header = IMAGES[version].header_class(content[:size], check=False)
    for name, value in fields.items():
        header[name] = value
    return header.binaryblock + content[size:]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "case.nii"


def same_as_nibabel(path, volume):
    image = nib.load(path)
    stored = np.asanyarray(image.dataobj.get_unscaled())
    assert np.array_equal(np.squeeze(volume.voxels), np.squeeze(stored), equal_nan=True)
    assert np.array_equal(volume.affine, image.affine)
    scaled = volume.voxels * volume.slope + volume.intercept
    expected = image.get_fdata().reshape(scaled.shape)
    np.testing.assert_allclose(
        scaled, expected, rtol=1e-6, atol=1e-6 * np.nanmax(np.abs(expected), initial=1)
    )
    assert volume.voxels.dtype.isnative


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
def test_every_type_order_and_version(tmp_path, version, order, zipped, dtype):
    voxels = np.asfortranarray(VOXELS).astype(dtype)
    header = IMAGES[version](voxels, AFFINE, dtype=dtype).header.as_byteswapped(order)
    content = IMAGES[version](voxels, AFFINE, header, dtype=dtype).to_bytes()
    path = tmp_path / ("case.nii.gz" if zipped else "case.nii")
    volume = write_and_read(nifti, path, gzip.compress(content) if zipped else content)
    assert np.array_equal(volume.voxels, VOXELS)
    assert volume.voxels.dtype == np.dtype(dtype)
    same_as_nibabel(path, volume)


floats = st.floats(-300, 300, width=32)


@settings(max_examples=120, deadline=None)
@given(
    st.sampled_from([1, 2]),
    st.sampled_from(["<", ">"]),
    st.sampled_from([0, 1, 2, 4]),
    st.sampled_from([0, 1, 3]),
    st.lists(floats, min_size=12, max_size=12),
    st.lists(st.floats(-0.5625, 0.5625, width=32), min_size=3, max_size=3),
    st.lists(st.floats(-4, 4, width=32), min_size=4, max_size=4),
    st.sampled_from([0.0, 1.0, 0.5, -2.0, float("nan"), float("inf")]),
)
def test_any_geometry_is_nibabels(
    tmp_path_factory, version, order, sform, qform, matrix, quaternion, pixdim, slope
):
    raw = IMAGES[version](VOXELS, None).header.as_byteswapped(order)
    raw.set_data_dtype(np.int16)
    raw.set_data_shape(VOXELS.shape)
    raw["sform_code"], raw["qform_code"] = sform, qform
    raw["srow_x"], raw["srow_y"], raw["srow_z"] = np.reshape(matrix, (3, 4))
    raw["quatern_b"], raw["quatern_c"], raw["quatern_d"] = quaternion
    raw["qoffset_x"] = matrix[0]
    raw["pixdim"][:4] = pixdim
    raw["scl_slope"], raw["scl_inter"] = slope, 3.0
    raw["vox_offset"], raw["magic"] = raw.single_vox_offset, raw.single_magic
    content = raw.binaryblock + b"\0" * 4 + VOXELS.astype(f"{order}i2").tobytes(order="F")
    path = tmp_path_factory.mktemp("n") / "case.nii"
    try:
        volume = write_and_read(nifti, path, content)
    except CaseRejected as error:
        assert error.reason is Reason.GEOMETRY  # noqa: PT017
        linear = nib.load(path).affine[:3, :3]
        assert not abs(np.linalg.det(linear / np.maximum(np.linalg.norm(linear, axis=0), 1e-30))) > 1e-8
    else:
        same_as_nibabel(path, volume)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((5, 6), (5, 6, 1)),
        ((5, 6, 1), (5, 6, 1)),
        ((5, 6, 7, 1, 1), (5, 6, 7)),
        ((5, 6, 7, 1, 3), (5, 6, 7, 3)),
    ],
)
def test_dimensions_of_one_voxel(path, shape, expected):
    voxels = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    volume = write_and_read(nifti, path, image_bytes(voxels))
    assert volume.voxels.shape == expected
    assert np.array_equal(volume.voxels.reshape(-1, order="F"), voxels.reshape(-1, order="F"))


@pytest.mark.parametrize("unit", [0, 1, 2, 3])
def test_units_of_space_are_itks(path, unit):
    """Unknown, metre, millimetre, micron; the higher bits are of time."""
    volume = write_and_read(nifti, path, image_bytes(xyzt_units=unit + 8))
    np.testing.assert_allclose(
        volume.affine, itk_affine(SimpleITK.ReadImage(str(path))), rtol=1e-6, atol=1e-9
    )


def test_header_extensions_are_skipped(path):
    image = nib.Nifti1Image(VOXELS, AFFINE)
    image.header.extensions.append(nib.nifti1.Nifti1Extension(6, b"x" * 100))
    assert np.array_equal(write_and_read(nifti, path, image.to_bytes()).voxels, VOXELS)


def test_pair(tmp_path):
    pair = nib.Nifti1Pair(VOXELS, AFFINE)
    nib.save(pair, tmp_path / "case.img")
    volume = read(nifti, tmp_path / "case.hdr")
    assert np.array_equal(volume.voxels, VOXELS)
    assert np.array_equal(volume.affine, nib.load(tmp_path / "case.hdr").affine)
    (tmp_path / "case.img").unlink()
    with refused(Reason.MISSING_FILE):
        read(nifti, tmp_path / "case.hdr")


def test_pair_whose_data_link_leaves_the_folder(tmp_path):
    case = tmp_path / "case"
    case.mkdir()
    nib.save(nib.Nifti1Pair(VOXELS, AFFINE), tmp_path / "case.img")
    (tmp_path / "case.hdr").rename(case / "case.hdr")
    (case / "case.img").symlink_to(tmp_path / "case.img")
    with refused(Reason.OUTSIDE_REFERENCE):
        read(nifti, case / "case.hdr")


def test_what_was_read_is_noted(path):
    path.write_bytes(image_bytes())
    files = CaseFiles(path.parent, LIMIT_BYTES)
    nifti.read(files, [path.relative_to(path.parent)], nifti.Options())
    assert [digest.size_bytes for digest in files.inputs.values()] == [path.stat().st_size]


def test_peak_is_one_volume_and_the_compressed_file(tmp_path):
    voxels = np.random.default_rng(0).integers(0, 4, (128, 128, 128), np.int16)
    path = tmp_path / "case.nii.gz"
    path.write_bytes(gzip.compress(image_bytes(voxels), 1))
    tracemalloc.start()
    read(nifti, path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < voxels.nbytes + path.stat().st_size + (1 << 20)


# Damage


@pytest.fixture(scope="module")
def zipped() -> bytes:
    return gzip.compress(
        image_bytes(np.random.default_rng(0).integers(-99, 99, (12, 13, 14), np.int16)), mtime=0
    )


def test_1000_random_flips_and_cuts_are_all_found(tmp_path, zipped):
    path = tmp_path / "case.nii.gz"
    intact = write_and_read(nifti, path, zipped).voxels.copy()
    rng = np.random.default_rng(1)
    silent = []
    for trial in range(1000):
        damaged = bytearray(zipped)
        at = int(rng.integers(len(damaged)))
        if trial % 4 == 0:
            del damaged[at:]
        else:
            damaged[at] ^= 1 << rng.integers(8)
        try:
            voxels = write_and_read(nifti, path, bytes(damaged)).voxels
        except CaseRejected:
            continue
        assert np.array_equal(voxels, intact)
        silent.append(at)
    # gzip's time stamp and origin, and the bits that pad DEFLATE's last byte, decide nothing
    assert set(silent) <= {*range(3, 10), len(zipped) - 9}


def test_surplus_and_missing_bytes(path):
    for content in (image_bytes() + b"\0", image_bytes()[:-1]):
        for wrapped in (content, gzip.compress(content)):
            with refused(Reason.CORRUPT, Reason.HEADER_SIZE):
                write_and_read(nifti, path, wrapped)


# Hostile headers

TERABYTES = {
    1: image_bytes(dim=[3, 32767, 32767, 32767, 1, 1, 1, 1]),
    2: image_bytes(version=2, dim=[3, 2**20, 2**20, 2**20, 1, 1, 1, 1]),
}


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("wrap", [bytes, gzip.compress])
def test_claims_of_terabytes(path, version, wrap):
    with refused(Reason.HEADER_SIZE):
        write_and_read(nifti, path, wrap(TERABYTES[version]))


def test_claims_that_overflow_64_bits(path):
    content = image_bytes(version=2, dim=[7, *[2**40] * 7])
    with refused(Reason.UNREADABLE, Reason.HEADER_SIZE):
        write_and_read(nifti, path, content)


def test_claims_within_the_limit_but_beyond_the_file(path):
    content = image_bytes(dim=[3, 400, 400, 400, 1, 1, 1, 1])
    for wrapped in (content, gzip.compress(content)):
        with refused(Reason.HEADER_SIZE, detail="hold"):
            write_and_read(nifti, path, wrapped)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"dim": [3, -5, 6, 7, 1, 1, 1, 1]}, Reason.CORRUPT),
        ({"dim": [3, 0, 6, 7, 1, 1, 1, 1]}, Reason.CORRUPT),
        ({"dim": [0, 5, 6, 7, 1, 1, 1, 1]}, Reason.CORRUPT),
        ({"dim": [-3, 5, 6, 7, 1, 1, 1, 1]}, Reason.CORRUPT),
        ({"vox_offset": float("nan")}, Reason.CORRUPT),
        ({"vox_offset": -352.0}, Reason.UNREADABLE),
        ({"vox_offset": 0.0}, Reason.CORRUPT),
        ({"vox_offset": 1e30}, Reason.HEADER_SIZE),
        ({"datatype": 1}, Reason.UNREADABLE),
        ({"datatype": 12345}, Reason.UNREADABLE),
        ({"srow_x": [np.nan, 0, 0, 0]}, Reason.GEOMETRY),
        ({"srow_x": [0, 0, 0, 0]}, Reason.GEOMETRY),
        ({"srow_x": [0.1, 0.7, 0, 0], "srow_y": [0.1, 0.7, 0, 0]}, Reason.GEOMETRY),
        ({"scl_slope": 1.0, "scl_inter": np.inf}, Reason.UNREADABLE),
        ({"magic": b"nii"}, Reason.UNREADABLE),
    ],
    ids=str,
)
def test_impossible_headers(path, fields, reason):
    content = image_bytes(**fields)
    with refused(reason):
        write_and_read(nifti, path, content)


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128, [("R", "u1"), ("G", "u1"), ("B", "u1")]])
def test_voxels_that_are_not_plain_numbers(path, dtype):
    with refused(Reason.UNREADABLE, detail="not supported"):
        write_and_read(nifti, path, image_bytes(np.zeros((4, 4, 4), dtype)))


@pytest.mark.parametrize(
    "content", [b"", b"\x5c\x01", bytes(348), struct.pack("<i", 348) + bytes(400), b"<html>" * 99]
)
def test_other_files(path, content):
    with refused(Reason.UNREADABLE):
        write_and_read(nifti, path, content)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 351), st.binary(min_size=1, max_size=4)), min_size=1, max_size=4))
def test_any_damaged_header_is_read_or_refused(tmp_path_factory, edits):
    content = BytesIO(image_bytes())
    for at, patch in edits:
        content.seek(at)
        content.write(patch)
    path = tmp_path_factory.mktemp("n") / "case.nii"
    path.write_bytes(content.getvalue())
    tracemalloc.start()
    try:
        volume = read(nifti, path)
    except CaseRejected:
        pass
    else:
        assert volume.voxels.nbytes <= len(content.getvalue())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


# Real images


@pytest.mark.parametrize(
    "name",
    [
        "anatomical.nii",
        "example4d.nii.gz",
        "example_nifti2.nii.gz",
        "functional.nii",
        "reoriented_anat_moved.nii",
        "resampled_anat_moved.nii",
        "standard.nii.gz",
    ],
)
def test_nibabels_own_images(name):
    path = realdata.path(f"nibabel/tests/data/{name}")
    same_as_nibabel(path, read(nifti, path))


def test_atlas_of_116_labels():
    image = realdata.path("mricron/templates/ch2.nii.gz")
    labels = read(nifti, realdata.path("mricron/templates/aal.nii.gz"))
    assert len(np.unique(labels.voxels)) == 1 + 116
    assert np.count_nonzero(labels.voxels) == 1_479_969
    assert np.array_equal(labels.affine, read(nifti, image).affine)


def test_labels_beyond_255():
    path = realdata.path("mricron/templates/inia19-NeuroMaps.nii.gz")
    volume = read(nifti, path)
    assert volume.voxels.max() > 255
    same_as_nibabel(path, volume)
