"""Arrays of numpy: values, axes and geometry as numpy gives them; packs read by rows; damage and claims refused."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from medcurate.errors import CaseRejected, Reason
from medcurate.readers import array, packs
from medcurate.readers.files import CaseFiles
from medcurate.types import Volume

LIMIT = 1 << 26


def read(root: Path, name: str, entry: str = "", **options: Any) -> Volume:
    files = CaseFiles(root, options.pop("limit", LIMIT))
    chosen = array.Options(**options)
    if entry:
        return array.read_entry(files, [Path(name)], entry, chosen)
    return array.read(files, [Path(name)], chosen)


def refusal(reason: Reason, root: Path, name: str, entry: str = "", **options: Any) -> CaseRejected:
    with pytest.raises(CaseRejected) as caught:
        read(root, name, entry, **options)
    assert caught.value.reason is reason
    return caught.value


DTYPES = st.sampled_from(["u1", "<i2", ">u2", "<i4", ">f4", "<f8"])


@settings(max_examples=40, deadline=None)
@given(
    hnp.arrays(DTYPES.map(np.dtype), hnp.array_shapes(min_dims=3, max_dims=4, max_side=5)),
    st.sampled_from(["npy", "stored", "deflated"]),
    st.data(),
)
def test_rows_are_numpy_s(tmp_path_factory, pack, kind, data):
    root = tmp_path_factory.mktemp("pack")
    key = "" if kind == "npy" else "x"
    if kind == "npy":
        np.save(root / "p", pack)
    else:
        (np.savez if kind == "stored" else np.savez_compressed)(root / "p", x=pack, y=pack[::-1])
    name = "p.npy" if kind == "npy" else "p.npz"
    axes = "hw" if pack.ndim == 3 else "hwc"
    rows = data.draw(st.lists(st.integers(0, len(pack) - 1), min_size=1, max_size=6))  # in any order, twice
    for row in rows:
        found = read(root, name, f"{key}[{row}]", axes=axes)
        np.testing.assert_array_equal(found.voxels, pack[row])
        assert found.voxels.dtype.isnative
        assert found.affine is None
    whole = read(root, name, key, key=key, axes="kji" if pack.ndim == 3 else "kjic", spacing_mm=(1, 1, 1))
    np.testing.assert_array_equal(np.swapaxes(whole.voxels, 0, 2), pack)


def test_a_volume_as_simpleitk_gives_it(tmp_path):
    """Axes z, y, x and GetSpacing's x, y, z: the affine that ITK has for such an image, in RAS."""
    sitk = pytest.importorskip("SimpleITK")
    image = sitk.Image(5, 4, 3, sitk.sitkInt16)
    image.SetSpacing((0.7, 0.8, 5.0))
    image[4, 3, 2] = 9
    np.savez(tmp_path / "c", imgs=sitk.GetArrayFromImage(image), spacing=image.GetSpacing())
    found = read(tmp_path, "c.npz", "imgs", axes="kji", spacing_key="spacing")
    assert found.voxels.shape == (5, 4, 3)
    assert found.voxels[4, 3, 2] == 9
    place = image.TransformIndexToPhysicalPoint((4, 3, 2))
    np.testing.assert_allclose((found.affine @ [4, 3, 2, 1])[:3], np.array(place) * [-1, -1, 1])


@pytest.mark.parametrize(
    ("directions", "moved"), [("RAS", (1, 2, 3)), ("LPS", (-1, -2, 3)), ("SLA", (-2, 3, 1))]
)
def test_directions_place_axes(tmp_path, directions, moved):
    np.save(tmp_path / "v", np.zeros((2, 2, 2), np.uint8))
    found = read(tmp_path, "v.npy", axes="ijk", spacing_mm=(1, 2, 3), directions=directions)
    np.testing.assert_allclose((found.affine @ [1, 1, 1, 1])[:3], moved)


def test_floats_of_whole_numbers_become_the_stated_type(tmp_path):
    np.save(tmp_path / "f", np.arange(48, dtype=np.float64).reshape(1, 4, 4, 3))
    found = read(tmp_path, "f.npy", "[0]", axes="hwc", dtype="uint8")
    assert found.voxels.dtype == np.uint8
    assert found.voxels[0, 0].tolist() == [0, 1, 2]
    for value in (0.5, -1.0, 256.0, np.nan):
        np.save(tmp_path / "g", np.full((1, 2, 2), value))
        refusal(Reason.UNREADABLE, tmp_path, "g.npy", "[0]", dtype="uint8")


@pytest.mark.parametrize(
    ("entry", "options", "reason"),
    [
        ("[3]", {}, Reason.UNREADABLE),  # no such row
        ("x[0]", {}, Reason.UNREADABLE),  # a .npy has no keys
        ("[0]", {"axes": "hwc"}, Reason.GEOMETRY),
        ("[0", {}, Reason.UNREADABLE),
        ("", {}, Reason.GEOMETRY),  # three axes are no picture
    ],
)
def test_what_is_not_there(tmp_path, entry, options, reason):
    np.save(tmp_path / "a", np.zeros((3, 2, 2), np.uint8))
    refusal(reason, tmp_path, "a.npy", entry, **options)


def test_an_absent_key_and_a_broken_spacing(tmp_path):
    np.savez(
        tmp_path / "a", imgs=np.zeros((2, 2, 2)), spacing=np.array([1.0, 0.0, 1.0]), text=np.array(["a"])
    )
    refusal(Reason.UNREADABLE, tmp_path, "a.npz", "gts[0]")
    refusal(Reason.GEOMETRY, tmp_path, "a.npz", "imgs", axes="kji", spacing_key="spacing")
    refusal(Reason.UNREADABLE, tmp_path, "a.npz", "text", axes="hw")


def test_pickles_are_refused_and_not_run(tmp_path):
    marker = tmp_path / "ran"

    class Bomb:
        def __reduce__(self):
            return (open, (str(marker), "w"))

    np.save(tmp_path / "o", np.array([Bomb()], dtype=object), allow_pickle=True)
    (tmp_path / "p.npy").write_bytes(pickle.dumps(Bomb()))
    marker.unlink(missing_ok=True)
    np.savez(tmp_path / "q", x=np.array([Bomb()], dtype=object))
    marker.unlink(missing_ok=True)
    for name, entry in (("o.npy", "[0]"), ("p.npy", "[0]"), ("q.npz", "x[0]")):
        refusal(Reason.UNREADABLE, tmp_path, name, entry)
    assert not marker.exists()


def npy(shape: tuple[int, ...], body: bytes, descr: str = "|u1") -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": descr, "fortran_order": False, "shape": shape})
    return stream.getvalue() + body


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (npy((1 << 40, 4, 4), b"x" * 64), Reason.CORRUPT),  # claims terabytes
        (npy((2, 4, 4), b"x" * 31), Reason.CORRUPT),
        (npy((2, 4, 4), b"x" * 33), Reason.CORRUPT),
        (npy((2, 0, 4), b""), Reason.CORRUPT),
        (npy((2, 4, 4), b"x" * 32)[:20], Reason.UNREADABLE),
        (b"", Reason.UNREADABLE),
        (b"PK\x03\x04" + b"\0" * 40, Reason.CORRUPT),
        # Each damage is another error of Python's own, whose literal a header is.
        *(
            (npy((2, 4, 4), b"x" * 32).replace(b"(2, 4, 4), }", damage), Reason.UNREADABLE)
            for damage in (b"(2, 4, 4), #", b"2} \n  x\n y  ", b"{[]:1}, }   ")
        ),
    ],
)
def test_a_file_must_be_what_its_header_says(tmp_path, content, reason):
    (tmp_path / "a.npy").write_bytes(content)
    refusal(reason, tmp_path, "a.npy", "[0]")


def test_a_row_over_the_limit_is_refused_before_it_is_read(tmp_path):
    np.save(tmp_path / "a", np.zeros((2, 64, 64), np.uint8))
    assert refusal(Reason.HEADER_SIZE, tmp_path, "a.npy", "[0]", limit=4000).measures["measure"] == 4096
    assert read(tmp_path, "a.npy", "[0]", limit=4096).voxels.shape == (64, 64)


@pytest.mark.parametrize("saved", [np.savez, np.savez_compressed])
def test_every_flipped_byte_of_a_member_is_seen(tmp_path, saved):
    rng = np.random.default_rng(1)
    saved(tmp_path / "a", x=rng.integers(0, 4, (3, 16, 16), dtype=np.uint8))
    content = (tmp_path / "a.npz").read_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        (info,) = archive.infolist()
    start = info.header_offset + 30 + len(info.filename) + 20  # past the local header and numpy's extra field
    for place in rng.integers(start, start + info.compress_size - 20, 40).tolist():
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(rng.integers(8))
        (tmp_path / "b.npz").write_bytes(damaged)
        with pytest.raises(CaseRejected):
            read(tmp_path, "b.npz", "x[0]")


def test_rows_in_order_cost_one_pass_and_one_digest(tmp_path, monkeypatch):
    """A pack is hashed once a worker; rows of a deflated member are inflated once, not once a case."""
    pack = np.random.default_rng(0).integers(0, 255, (50, 32, 32), dtype=np.uint8)
    np.savez_compressed(tmp_path / "a", x=pack)
    digests, inflated = [], []
    original_digest, original_open = packs.hashlib.file_digest, packs.arrays.open_member
    monkeypatch.setattr(
        packs.hashlib, "file_digest", lambda *args: digests.append(1) or original_digest(*args)
    )
    monkeypatch.setattr(packs.arrays, "open_member", lambda *args: inflated.append(1) or original_open(*args))
    for row in range(50):
        files = CaseFiles(tmp_path, LIMIT)
        found = array.read_entry(files, [Path("a.npz")], f"x[{row}]", array.Options())
        np.testing.assert_array_equal(found.voxels, pack[row])
        assert files.inputs[Path("a.npz")].size_bytes == (tmp_path / "a.npz").stat().st_size
    assert (len(digests), len(inflated)) == (1, 2)  # one pass to verify, one to read


def test_a_pack_that_changed_is_opened_anew(tmp_path):
    np.save(tmp_path / "a", np.zeros((2, 3, 3), np.uint8))
    assert read(tmp_path, "a.npy", "[1]").voxels.max() == 0
    np.save(tmp_path / "b", np.ones((4, 3, 3), np.uint8))
    (tmp_path / "b.npy").replace(tmp_path / "a.npy")
    assert read(tmp_path, "a.npy", "[3]").voxels.min() == 1


@pytest.mark.parametrize(
    "options",
    [
        {"axes": "hh"}, {"axes": "ijkk"}, {"axes": "ijk"}, {"axes": "hw", "spacing_mm": (1, 1, 1)},
        {"axes": "ijk", "spacing_mm": (1, 1)}, {"axes": "ijk", "spacing_mm": (1, 1, 0)},
        {"spacing_mm": (1, 1), "spacing_key": "s"}, {"directions": "LPA"}, {"dtype": "float32"},
    ],
)  # fmt: skip
def test_options_that_mean_nothing(options):
    with pytest.raises(ValueError, match=r".+"):
        array.Options(**options)
