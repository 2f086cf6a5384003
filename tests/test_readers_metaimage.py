"""MetaImage: ITK's values and geometry, nothing outside the folder, hostile headers refused."""

from __future__ import annotations

import tracemalloc
import zlib
from contextlib import suppress

import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from readers_kit import itk_affine, itk_voxels, random_image, read, refused, write_and_read

from medcurate.errors import CaseRejected, Reason
from medcurate.readers import metaimage

VOXELS = (np.arange(5 * 6 * 7) % 120).astype(np.int16).reshape(5, 6, 7)


def meta_bytes(data: bytes | None = None, **tags: object) -> bytes:
    """A file by hand: ``tags`` replace the defaults, None removes one; ElementDataFile stays last."""
    lines = {
        "ObjectType": "Image", "NDims": 3, "BinaryData": "True", "BinaryDataByteOrderMSB": "False",
        "CompressedData": "False", "TransformMatrix": "1 0 0 0 1 0 0 0 1", "Offset": "1 2 3",
        "ElementSpacing": "0.7 0.8 5", "DimSize": "5 6 7", "ElementType": "MET_SHORT",
    }  # fmt: skip
    lines |= tags
    lines["ElementDataFile"] = lines.pop("ElementDataFile", "LOCAL")
    header = "".join(f"{name} = {value}\n" for name, value in lines.items() if value is not None)
    return header.encode() + (VOXELS.tobytes(order="F") if data is None else data)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "case.mha"


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("suffix", [".mha", ".mhd"])
def test_geometry_is_itks(tmp_path, seed, compress, suffix):
    path = tmp_path / f"case{suffix}"
    image = random_image(np.random.default_rng(seed), np.int16)
    SimpleITK.WriteImage(image, str(path), compress)
    volume = read(metaimage, path)
    assert np.array_equal(volume.voxels, itk_voxels(image))
    np.testing.assert_allclose(volume.affine, itk_affine(image), atol=1e-9)


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("compress", [False, True])
def test_every_type(path, dtype, channels, compress):
    image = random_image(np.random.default_rng(0), np.dtype(dtype), channels)
    SimpleITK.WriteImage(image, str(path), compress)
    volume = read(metaimage, path)
    assert np.array_equal(volume.voxels, itk_voxels(image))
    assert volume.voxels.dtype == np.dtype(dtype)


@pytest.mark.parametrize("tag", ["ElementByteOrderMSB", "BinaryDataByteOrderMSB"])
def test_big_endian(path, tag):
    content = meta_bytes(
        VOXELS.astype(">i2").tobytes(order="F"), **{"BinaryDataByteOrderMSB": None, tag: "True"}
    )
    volume = write_and_read(metaimage, path, content)
    assert np.array_equal(volume.voxels, VOXELS)
    assert volume.voxels.dtype.isnative
    assert np.array_equal(volume.voxels, itk_voxels(SimpleITK.ReadImage(str(path))))


@pytest.mark.parametrize("matrix", ["TransformMatrix", "Rotation", "Orientation"])
@pytest.mark.parametrize("origin", ["Offset", "Position", "Origin"])
def test_aliases_are_itks(path, matrix, origin):
    turned = {"TransformMatrix": None, "Offset": None, matrix: "0 1 0 0 0 1 1 0 0", origin: "4 5 6"}
    volume = write_and_read(metaimage, path, meta_bytes(**turned))
    np.testing.assert_allclose(volume.affine, itk_affine(SimpleITK.ReadImage(str(path))))


def test_element_size_stands_in_for_spacing(path):
    volume = write_and_read(metaimage, path, meta_bytes(ElementSpacing=None, ElementSize="0.7 0.8 5"))
    assert np.array_equal(volume.affine, [[-0.7, 0, 0, -1], [0, -0.8, 0, -2], [0, 0, 5, 3], [0, 0, 0, 1]])


@pytest.mark.parametrize("channels", [1, 3])
def test_flat_image(path, channels):
    pixels = np.random.default_rng(0).integers(0, 255, (4, 6, channels), np.uint8).squeeze()
    image = SimpleITK.GetImageFromArray(pixels, isVector=channels > 1)
    image.SetSpacing((0.2, 0.3))
    SimpleITK.WriteImage(image, str(path))
    volume = read(metaimage, path)
    assert np.array_equal(volume.voxels, pixels)
    assert volume.affine is None
    assert volume.spacing_mm == (0.3, 0.2)


@pytest.mark.parametrize(("skip", "prefix"), [(7, b"1234567"), (-1, b"whatever")])
def test_header_size(tmp_path, skip, prefix):
    (tmp_path / "case.raw").write_bytes(prefix + VOXELS.tobytes(order="F"))
    content = meta_bytes(b"", ElementDataFile="case.raw", HeaderSize=skip)
    assert np.array_equal(write_and_read(metaimage, tmp_path / "case.mhd", content).voxels, VOXELS)


@pytest.mark.parametrize("change", [bytes.rstrip, lambda header: b"\n" + header.replace(b"\n", b"\n\r\n")])
def test_headers_by_hand(tmp_path, change):
    """As ITK reads them: no newline at the end, blank lines."""
    (tmp_path / "voxels.raw").write_bytes(VOXELS.tobytes(order="F"))
    path = tmp_path / "case.mhd"
    volume = write_and_read(metaimage, path, change(meta_bytes(b"", ElementDataFile="voxels.raw")))
    image = SimpleITK.ReadImage(str(path))
    assert np.array_equal(volume.voxels, itk_voxels(image))
    np.testing.assert_allclose(volume.affine, itk_affine(image))


def test_intensity_function(path):
    content = meta_bytes(ElementToIntensityFunctionSlope=2, ElementToIntensityFunctionOffset=-1024)
    volume = write_and_read(metaimage, path, content)
    assert (volume.slope, volume.intercept) == (2, -1024)


# Refusals


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../case.raw", "sub/../../case.raw", "link.raw", "..\\case.raw"]
)
def test_data_outside_the_folder_is_never_opened(tmp_path, name):
    case = tmp_path / "case"
    case.mkdir()
    (tmp_path / "case.raw").write_bytes(VOXELS.tobytes())
    (case / "link.raw").symlink_to(tmp_path / "case.raw")
    with refused(Reason.OUTSIDE_REFERENCE):
        write_and_read(metaimage, case / "case.mhd", meta_bytes(b"", ElementDataFile=name))


@pytest.mark.parametrize("compressed", ["True", "False"])
@pytest.mark.parametrize("sides", ["30000 30000 30000", f"{2**31} {2**31} {2**31}", "500 500 500"])
def test_claims_beyond_the_file(path, compressed, sides):
    data = zlib.compress(VOXELS.tobytes()) if compressed == "True" else None
    with refused(Reason.HEADER_SIZE):
        write_and_read(metaimage, path, meta_bytes(data, DimSize=sides, CompressedData=compressed))


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"DimSize": "5 6 -7"}, Reason.CORRUPT),
        ({"DimSize": "5 6 0"}, Reason.CORRUPT),
        ({"DimSize": "5 6"}, Reason.UNREADABLE),
        ({"DimSize": "5 6 nan"}, Reason.UNREADABLE),
        ({"DimSize": None}, Reason.UNREADABLE),
        ({"NDims": 4, "DimSize": "5 6 7 1"}, Reason.UNREADABLE),
        ({"NDims": None}, Reason.UNREADABLE),
        ({"ElementType": "MET_STRING"}, Reason.UNREADABLE),
        ({"ElementType": None}, Reason.UNREADABLE),
        ({"BinaryData": "False"}, Reason.UNREADABLE),
        ({"HeaderSize": -7}, Reason.UNREADABLE),
        ({"ElementNumberOfChannels": 0}, Reason.CORRUPT),
        ({"ElementSpacing": None}, Reason.GEOMETRY),
        ({"ElementSpacing": "1 1 0"}, Reason.GEOMETRY),
        ({"ElementSpacing": "1 1 -1"}, Reason.GEOMETRY),
        ({"TransformMatrix": "1 0 0 1 0 0 0 0 1"}, Reason.GEOMETRY),
        ({"TransformMatrix": "1 0 0 0 1 0 0 0 nan"}, Reason.UNREADABLE),
        ({"Offset": "1 2"}, Reason.UNREADABLE),
        ({"ElementDataFile": "LIST"}, Reason.UNREADABLE),
        ({"ElementDataFile": "slice%03d.raw 1 7 1"}, Reason.UNREADABLE),
        ({"ElementDataFile": "gone.raw"}, Reason.MISSING_FILE),
    ],
    ids=str,
)
def test_impossible_headers(path, tags, reason):
    with refused(reason):
        write_and_read(metaimage, path, meta_bytes(**tags))


@pytest.mark.parametrize("content", [b"", b"\n", b"x" * 200_000, b"NDims = 3\n", b"=\n" * 9])
def test_other_files(path, content):
    with refused(Reason.UNREADABLE):
        write_and_read(metaimage, path, content)


def test_every_cut_and_flip_of_compressed_data(path):
    voxels = np.random.default_rng(0).integers(0, 120, VOXELS.shape, np.int16)
    stored = zlib.compress(voxels.tobytes(order="F"))
    for at in range(len(stored)):
        flipped = stored[:at] + bytes([stored[at] ^ 4]) + stored[at + 1 :]
        for data in (stored[:at], flipped, stored + b"\0"):
            try:
                volume = write_and_read(metaimage, path, meta_bytes(data, CompressedData="True"))
            except CaseRejected:
                continue
            assert data is flipped
            assert at == len(stored) - 5  # bits that pad DEFLATE's last byte
            assert np.array_equal(volume.voxels, voxels)


@pytest.mark.parametrize("data", [VOXELS.tobytes()[:-1], VOXELS.tobytes() + b"\0"], ids=["cut", "surplus"])
def test_surplus_and_cut_data(path, data):
    with refused(Reason.CORRUPT, Reason.HEADER_SIZE):
        write_and_read(metaimage, path, meta_bytes(data))


@settings(max_examples=250, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 320), st.binary(min_size=1, max_size=3)), min_size=1, max_size=4))
def test_any_damaged_header_is_read_or_refused(tmp_path_factory, edits):
    content = bytearray(meta_bytes())
    for at, patch in edits:
        content[at : at + len(patch)] = patch
    tracemalloc.start()
    with suppress(CaseRejected):
        write_and_read(metaimage, tmp_path_factory.mktemp("m") / "case.mha", bytes(content))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20
