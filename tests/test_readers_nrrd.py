"""NRRD: pynrrd's values, ITK's geometry, nothing outside the folder, hostile headers refused."""

from __future__ import annotations

import bz2
import gzip
import tracemalloc
from contextlib import suppress

import nrrd as pynrrd
import numpy as np
import pytest
import realdata
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from readers_kit import itk_affine, itk_voxels, random_image, read, refused, write_and_read

from medcurate.errors import CaseRejected, Reason
from medcurate.readers import nrrd

VOXELS = (np.arange(5 * 6 * 7) % 120).astype(np.int16).reshape(5, 6, 7)
GEOMETRY = {
    "space": "left-posterior-superior",
    "space directions": np.diag([0.7, 0.8, 5]),
    "space origin": np.array([1.0, 2, 3]),
}


def nrrd_bytes(data: bytes | None = None, **fields: object) -> bytes:
    """A file by hand: ``fields`` replace the defaults, None removes one."""
    lines = {
        "type": "short", "dimension": 3, "space": "left-posterior-superior", "sizes": "5 6 7",
        "space directions": "(0.7,0,0) (0,0.8,0) (0,0,5)", "endian": "little", "encoding": "raw",
        "space origin": "(1,2,3)",
    }  # fmt: skip
    lines |= {name.replace("_", " "): value for name, value in fields.items()}
    header = "".join(f"{name}: {value}\n" for name, value in lines.items() if value is not None)
    return f"NRRD0004\n{header}\n".encode() + (VOXELS.tobytes(order="F") if data is None else data)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "case.nrrd"


@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2", "ascii"])
@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8", ">i2", ">f8"])
@pytest.mark.parametrize("detached", [False, True])
def test_every_encoding_and_type(tmp_path, encoding, dtype, detached):
    voxels = VOXELS.astype(dtype)
    path = tmp_path / ("case.nhdr" if detached else "case.nrrd")
    pynrrd.write(str(path), voxels, GEOMETRY | {"encoding": encoding}, detached_header=detached)
    volume = read(nrrd, path)
    assert np.array_equal(volume.voxels, VOXELS)
    assert volume.voxels.dtype == voxels.dtype.newbyteorder("=")
    assert np.array_equal(volume.affine @ [1, 1, 1, 1], [-1.7, -2.8, 8, 1])


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("compress", [False, True])
def test_geometry_is_itks(path, seed, compress):
    image = random_image(np.random.default_rng(seed), np.int16)
    SimpleITK.WriteImage(image, str(path), compress)
    volume = read(nrrd, path)
    assert np.array_equal(volume.voxels, itk_voxels(image))
    np.testing.assert_allclose(volume.affine, itk_affine(image), atol=1e-9)


@pytest.mark.parametrize(
    ("space", "signs"),
    [
        ("right-anterior-superior", [1, 1, 1]),
        ("RAS", [1, 1, 1]),
        ("left-anterior-superior", [-1, 1, 1]),
        ("LPS", [-1, -1, 1]),
    ],
)
def test_spaces(path, space, signs):
    volume = write_and_read(nrrd, path, nrrd_bytes(space=space))
    assert np.array_equal(volume.affine[:3, 3], np.multiply(signs, [1, 2, 3]))
    assert np.array_equal(np.diag(volume.affine)[:3], np.multiply(signs, [0.7, 0.8, 5]))


@pytest.mark.parametrize("first", [True, False])
def test_list_axis_of_one_element_is_dropped(path, first):
    steps = "(0.7,0,0) (0,0.8,0) (0,0,5)"
    content = nrrd_bytes(
        dimension=4, sizes="1 5 6 7" if first else "5 6 7 1",
        space_directions=f"none {steps}" if first else f"{steps} none",
    )  # fmt: skip
    assert np.array_equal(write_and_read(nrrd, path, content).voxels, VOXELS)


def test_list_axis_moves_to_the_end(path):
    data = np.arange(2 * 5 * 6 * 7, dtype=np.int16).reshape((2, 5, 6, 7), order="F")
    content = nrrd_bytes(
        data.tobytes(order="F"), dimension=4, sizes="2 5 6 7", kinds="list domain domain domain",
        space_directions="none (0.7,0,0) (0,0.8,0) (0,0,5)",
    )  # fmt: skip
    volume = write_and_read(nrrd, path, content)
    assert volume.voxels.shape == (5, 6, 7, 2)
    assert np.array_equal(volume.voxels[..., 1], data[1])


def test_spacings_in_other_units_are_not_taken_for_millimetres(path):
    fields = {"space": None, "space_directions": None, "space_origin": None, "spacings": "0.7 0.8 5"}
    space = "left-posterior-superior"
    volume = write_and_read(nrrd, path, nrrd_bytes(units='"mm" "mm" "mm"', **fields), space=space)
    assert np.array_equal(np.abs(np.diag(volume.affine)), [0.7, 0.8, 5, 1])
    with refused(Reason.GEOMETRY, detail="not mm"):
        write_and_read(nrrd, path, nrrd_bytes(units='"um" "um" "um"', **fields), space=space)


def test_file_without_space_needs_the_option(path):
    content = nrrd_bytes(space=None, space_directions=None, space_origin=None, spacings="0.7 0.8 5")
    with refused(Reason.GEOMETRY, detail='"space"'):
        write_and_read(nrrd, path, content)
    volume = write_and_read(nrrd, path, content, space="left-posterior-superior")
    assert np.array_equal(volume.affine, np.diag([-0.7, -0.8, 5, 1]))


@pytest.mark.parametrize(
    ("fields", "prefix"),
    [
        ({"byte_skip": 10}, b"0123456789"),
        ({"byte_skip": -1}, b"any"),
        ({"line_skip": 2, "byte_skip": 1}, b"a\nb\n."),
    ],
)
def test_skips(tmp_path, fields, prefix):
    (tmp_path / "case.raw").write_bytes(prefix + VOXELS.tobytes(order="F"))
    volume = write_and_read(nrrd, tmp_path / "case.nhdr", nrrd_bytes(b"", data_file="case.raw", **fields))
    assert np.array_equal(volume.voxels, VOXELS)


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
        write_and_read(nrrd, case / "case.nhdr", nrrd_bytes(b"", data_file=name))


@pytest.mark.parametrize("name", ["LIST", "slice%03d.raw 1 7 1"])
def test_data_in_several_files(tmp_path, name):
    with refused(Reason.UNREADABLE):
        write_and_read(nrrd, tmp_path / "case.nhdr", nrrd_bytes(b"", data_file=name))


@pytest.mark.parametrize("sizes", ["30000 30000 30000", f"{2**31} {2**31} {2**31}"])
@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2", "ascii"])
def test_claims_of_terabytes(path, encoding, sizes):
    with refused(Reason.HEADER_SIZE):
        write_and_read(
            nrrd, path, nrrd_bytes(_wrapped(encoding, b"1 2 3 4 5"), encoding=encoding, sizes=sizes)
        )


@pytest.mark.parametrize("encoding", ["raw", "gzip", "ascii"])  # bzip2 has no bound on its ratio
def test_claims_within_the_limit_but_beyond_the_file(path, encoding):
    content = nrrd_bytes(_wrapped(encoding, b"1 2 3 4 5"), encoding=encoding, sizes="400 400 400")
    with refused(Reason.HEADER_SIZE, detail="hold"):
        write_and_read(nrrd, path, content)


def _wrapped(encoding, data):
    return {"gzip": gzip.compress, "bzip2": bz2.compress}.get(encoding, bytes)(data)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"sizes": "5 6 -7"}, Reason.CORRUPT),
        ({"sizes": "5 6 0"}, Reason.CORRUPT),
        ({"sizes": "5 6"}, Reason.UNREADABLE),
        ({"sizes": None}, Reason.UNREADABLE),
        ({"sizes": "five 6 7"}, Reason.UNREADABLE),
        ({"type": "block"}, Reason.UNREADABLE),
        ({"endian": None}, Reason.UNREADABLE),
        ({"encoding": "hex"}, Reason.UNREADABLE),
        ({"dimension": 2, "sizes": "5 6", "space_directions": "(1,0,0) (0,1,0)"}, Reason.UNREADABLE),
        ({"space": None, "space_dimension": 3}, Reason.GEOMETRY),
        ({"space": "scanner-xyz"}, Reason.GEOMETRY),
        ({"space_directions": "(1,0,0) (1,0,0) (0,0,1)"}, Reason.GEOMETRY),
        ({"space_directions": "(1,0,0) (0,1,0) (0,0,0)"}, Reason.GEOMETRY),
        ({"space_directions": "(1,0,0) (0,1,0) (0,0,inf)"}, Reason.GEOMETRY),
        ({"space_directions": None}, Reason.GEOMETRY),
        ({"space_origin": "(1,2)"}, Reason.GEOMETRY),
        ({"space_units": '"cm" "cm" "cm"'}, Reason.GEOMETRY),
        ({"byte_skip": -2}, Reason.UNREADABLE),
        ({"line_skip": 9999}, Reason.CORRUPT),
    ],
    ids=str,
)
def test_impossible_headers(path, fields, reason):
    with refused(reason):
        write_and_read(nrrd, path, nrrd_bytes(**fields))


@pytest.mark.parametrize("change", [lambda b: b + b"\0", lambda b: b[:-1]], ids=["surplus", "cut"])
@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2"])
def test_surplus_and_cut_data(path, change, encoding):
    wrap = {"raw": bytes, "gzip": gzip.compress, "bzip2": bz2.compress}[encoding]
    raw = VOXELS.tobytes(order="F")
    for data in (change(wrap(raw)), wrap(change(raw))):
        with refused(Reason.CORRUPT, Reason.HEADER_SIZE):
            write_and_read(nrrd, path, nrrd_bytes(data, encoding=encoding))


def test_ascii_words_and_overflow(path):
    for words in (b"1 " * 209 + b"x", b"1 " * 209 + b"99999999999999999999"):
        with refused(Reason.CORRUPT):
            write_and_read(nrrd, path, nrrd_bytes(words, encoding="ascii"))


@settings(max_examples=250, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 230), st.binary(min_size=1, max_size=3)), min_size=1, max_size=4))
def test_any_damaged_header_is_read_or_refused(tmp_path_factory, edits):
    content = bytearray(nrrd_bytes())
    for at, patch in edits:
        content[at : at + len(patch)] = patch
    tracemalloc.start()
    with suppress(CaseRejected):
        write_and_read(nrrd, tmp_path_factory.mktemp("n") / "case.nrrd", bytes(content))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


@pytest.mark.parametrize("case", ["breast1", "brain1", "lung1"])
def test_real_pairs(case):
    image, label = (
        read(nrrd, realdata.path(f"pyradiomics/data/{case}_{part}.nrrd")) for part in ("image", "label")
    )
    assert image.voxels.shape == label.voxels.shape
    assert np.array_equal(image.affine, label.affine)
    oracle = SimpleITK.ReadImage(str(realdata.path(f"pyradiomics/data/{case}_image.nrrd")))
    assert np.array_equal(image.voxels, itk_voxels(oracle))
    np.testing.assert_allclose(image.affine, itk_affine(oracle), atol=1e-9)
    voxels = {"breast1": 143, "brain1": 4137, "lung1": 837}
    assert np.count_nonzero(label.voxels) == voxels[case]
