"""RT structure sets: regions on their planes, against skimage, a supersampled painter and a real treatment plan."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
import realdata
from dicom_kit import dicom_bytes, instance, series, written
from drawing_kit import decoded, draw, drawing, reference_of
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import RTStructureSetStorage, generate_uid
from readers_kit import refused
from skimage.draw import polygon

from medcurate.errors import CaseRejected, Reason
from medcurate.readers import rtstruct
from medcurate.types import Reference

SHAPE = (40, 30, 6)  # I, J, K
FRAME_OF_REFERENCE = generate_uid(entropy_srcs=["frame of reference"])
EXAMPLE = "dicompyler-core/"


def ct(folder: Path, **geometry: object) -> tuple[list[Dataset], Reference]:
    datasets = series(np.zeros(SHAPE, np.int16), FrameOfReferenceUID=FRAME_OF_REFERENCE, **geometry)
    folder.mkdir(exist_ok=True)
    return datasets, reference_of(*written(folder, datasets))


def contour(points_mm: np.ndarray, kind: str = "CLOSED_PLANAR", uid: str = "") -> Dataset:
    item = Dataset()
    item.ContourGeometricType = kind
    item.NumberOfContourPoints = len(points_mm)
    item.ContourData = [f"{value:.6f}" for value in np.ravel(points_mm)]
    if uid:
        image = Dataset()
        image.ReferencedSOPInstanceUID = uid
        item.ContourImageSequence = [image]
    return item


def on_plane(reference: Reference, points_ij: np.ndarray, k: float) -> np.ndarray:
    """Voxel indices to LPS millimetres, by the image's own affine."""
    voxels = np.column_stack([points_ij, np.full(len(points_ij), k), np.ones(len(points_ij))])
    return (voxels @ reference.affine.T)[:, :3] * (-1, -1, 1)


def structure_set(regions: dict[str, list[Dataset]], frame: str = FRAME_OF_REFERENCE) -> Dataset:
    dataset = instance(np.zeros((2, 2), np.uint8), SOPClassUID=RTStructureSetStorage)
    for name in ("PixelData", "Rows", "Columns"):
        delattr(dataset, name)
    dataset.StructureSetROISequence, dataset.ROIContourSequence = [], []
    for number, (name, contours) in enumerate(regions.items(), start=1):
        region, drawn = Dataset(), Dataset()
        region.ROINumber, region.ROIName, region.ReferencedFrameOfReferenceUID = number, name, frame
        drawn.ReferencedROINumber, drawn.ContourSequence = number, contours
        dataset.StructureSetROISequence.append(region)
        dataset.ROIContourSequence.append(drawn)
    return dataset


def store(folder: Path, dataset: Dataset) -> Path:
    path = folder / "rs.dcm"
    path.write_bytes(dicom_bytes(dataset))
    return path


def square(i: float, j: float, side: float) -> np.ndarray:
    return np.array([[i, j], [i + side, j], [i + side, j + side], [i, j + side]], float)


def distance_to_path(outline: np.ndarray, point: tuple[int, int]) -> float:
    start, side = outline, np.roll(outline, -1, axis=0) - outline
    along = np.clip(((point - start) * side).sum(axis=1) / (side**2).sum(axis=1), 0, 1)
    return float(np.linalg.norm(start + along[:, None] * side - point, axis=1).min())


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**16))
def test_random_outlines_on_an_oblique_image(tmp_path_factory, seed):
    """By the rule of pixel centres as skimage has it, and what lies on a path besides."""
    rng, folder = np.random.default_rng(seed), tmp_path_factory.mktemp("rt")
    row, column, _ = np.linalg.qr(rng.normal(size=(3, 3)))[0].T
    _, reference = ct(folder / "ct", row=row, column=column, step=tuple(3 * np.cross(row, column)))
    expected = np.zeros(SHAPE, bool)
    contours, outlines = [], {}
    for k in (1, 2, 4):
        outlines[k] = points = rng.uniform((-3, -3), (SHAPE[0] + 3, SHAPE[1] + 3), (rng.integers(3, 12), 2))
        columns, rows = polygon(points[:, 0], points[:, 1], SHAPE[:2])
        expected[columns, rows, k] = True
        contours.append(contour(on_plane(reference, points, k)))
    ((names, mask),) = draw(rtstruct, reference, store(folder, structure_set({"a region ": contours})))
    assert names == ("a region",)
    assert mask[expected].all()
    for i, j, k in np.argwhere(mask & ~expected):
        assert distance_to_path(outlines[k], (i, j)) <= 2e-3


def test_area_is_that_of_a_supersampled_painter(tmp_path):
    """A rotated ellipse: OpenCV fills it 64 times finer; the sums differ by what centres round away."""
    _, reference = ct(tmp_path / "ct")
    angle = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    points = np.column_stack([20 + 12 * np.cos(angle) + 3 * np.sin(angle), 14 + 8 * np.sin(angle)])
    path = store(tmp_path, structure_set({"a": [contour(on_plane(reference, points, 3))]}))
    ((_, mask),) = draw(rtstruct, reference, path)
    fine = np.zeros((SHAPE[1] * 64, SHAPE[0] * 64), np.uint8)
    cv2.fillPoly(fine, [np.rint((points + 0.5) * 64 - 0.5).astype(np.int32)], 1)
    assert abs(mask.sum() - fine.sum() / 64**2) < 8
    coverage = fine.reshape(SHAPE[1], 64, SHAPE[0], 64).mean(axis=(1, 3)).T
    assert mask[:, :, 3][coverage == 1].all()
    assert not mask[:, :, 3][coverage == 0].any()
    assert not mask[:, :, [0, 1, 2, 4, 5]].any()


def test_a_mask_outlined_through_its_border_pixels_comes_back(tmp_path):
    """What rt-utils writes: OpenCV's contours, whose points are centres; those on the path belong to the region."""
    _, reference = ct(tmp_path / "ct")
    mask = np.zeros((SHAPE[1], SHAPE[0]), np.uint8)
    cv2.ellipse(mask, (16, 14), (13, 9), 20, 0, 360, 1, -1)
    cv2.circle(mask, (18, 13), 4, 0, -1)
    cv2.rectangle(mask, (33, 20), (37, 26), 1, -1)
    found, tree = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    assert (tree[0, :, 3] >= 0).any()  # there is a hole
    contours = [
        contour(on_plane(reference, points[:, 0].astype(float), 2), "CLOSEDPLANAR_XOR")
        for points in found
        if len(points) > 2
    ]
    ((_, drawn),) = draw(rtstruct, reference, store(tmp_path, structure_set({"a": contours})))
    assert np.array_equal(drawn[:, :, 2].T, mask > 0)


@pytest.mark.parametrize("kind", ["CLOSED_PLANAR", "CLOSEDPLANAR_XOR"])
def test_holes_islands_and_keyholes(tmp_path, kind):
    _, reference = ct(tmp_path / "ct")
    nested = [square(2.5, 2.5, 20), square(6.5, 6.5, 12), square(10.5, 10.5, 4)]
    outer, inner = nested[0], nested[1]
    # one outline: in through a channel without width, around the hole, out again
    keyhole = np.vstack([outer, outer[:1], inner[[0, 3, 2, 1, 0]], outer[:1]])
    path = store(
        tmp_path,
        structure_set({
            "nested": [contour(on_plane(reference, points, 1), kind) for points in nested],
            "keyhole": [contour(on_plane(reference, keyhole, 1), kind)],
        }),
    )
    (_, rings), (_, hole) = draw(rtstruct, reference, path)
    expected = np.zeros(SHAPE[:2], bool)
    expected[3:23, 3:23] = True
    expected[7:19, 7:19] = False
    on_channel = hole[:, :, 1] & ~expected
    assert np.array_equal(hole[:, :, 1] & ~on_channel, expected)
    assert not on_channel.any()
    expected[11:15, 11:15] = True
    assert np.array_equal(rings[:, :, 1], expected)


def test_regions_that_overlap_are_kept_whole(tmp_path):
    _, reference = ct(tmp_path / "ct")
    path = store(
        tmp_path,
        structure_set({
            "BODY": [contour(on_plane(reference, square(1.5, 1.5, 25), 2))],
            "Lung_L": [contour(on_plane(reference, square(5.5, 5.5, 5), 2))],
            "couch": [contour(on_plane(reference, square(5.5, 5.5, 5), 2.5))],  # never painted
        }),
    )
    found = drawing(rtstruct, reference, path)
    layers = decoded(found, {"body": "body", "lung_l": "lung-left"}, ignore=["Cou*"], fold_case=True)
    sums = {term: int((layer.labels == v).sum()) for layer in layers for v, term in layer.terms.items()}
    assert sums == {"body": 625, "lung-left": 25}


# What does not fit


@pytest.mark.parametrize(
    ("k", "detail"), [(2.5, "on a plane"), (-1, "beyond"), (6, "beyond"), (-0.45, "on a plane")]
)
def test_contours_off_the_planes(tmp_path, k, detail):
    _, reference = ct(tmp_path / "ct")
    path = store(tmp_path, structure_set({"a": [contour(on_plane(reference, square(3, 3, 5), k))]}))
    with refused(Reason.GEOMETRY, detail=detail):
        draw(rtstruct, reference, path)
    if detail == "beyond":
        ((_, mask),) = draw(rtstruct, reference, path, outside="omit")
        assert not mask.any()


def test_a_tilted_contour(tmp_path):
    _, reference = ct(tmp_path / "ct")
    points = on_plane(reference, square(3, 3, 5), 2)
    points[0, 2] += 1
    with refused(Reason.GEOMETRY, detail="on a plane"):
        draw(rtstruct, reference, store(tmp_path, structure_set({"a": [contour(points)]})))


def test_planes_are_named_as_they_lie(tmp_path):
    datasets, reference = ct(tmp_path / "ct")
    points = on_plane(reference, square(3.5, 3.5, 5), 2)
    for named, fits in ((2, True), (3, False)):
        drawn = contour(points, uid=datasets[named].SOPInstanceUID)
        path = store(tmp_path, structure_set({"a": [drawn]}))
        if fits:
            assert draw(rtstruct, reference, path)[0][1][:, :, 2].sum() == 25
        else:
            with refused(Reason.GEOMETRY, detail="names another plane"):
                draw(rtstruct, reference, path)


def test_regions_drawn_on_every_other_plane(tmp_path):
    _, reference = ct(tmp_path / "ct")
    contours = [contour(on_plane(reference, square(3.5, 3.5, 5), k)) for k in (0, 2, 4)]
    path = store(tmp_path, structure_set({"a": contours}))
    with refused(Reason.GEOMETRY, detail="every n-th plane"):
        draw(rtstruct, reference, path)
    assert draw(rtstruct, reference, path, sparse="keep")[0][1].sum() == 75
    contours.append(contour(on_plane(reference, square(3.5, 3.5, 5), 1)))
    assert draw(rtstruct, reference, store(tmp_path, structure_set({"a": contours})))[0][1].sum() == 100


def test_points_are_passed_over_and_open_contours_refused(tmp_path):
    _, reference = ct(tmp_path / "ct")
    closed = contour(on_plane(reference, square(3.5, 3.5, 5), 2))
    point = contour(on_plane(reference, np.array([[1.0, 1.0]]), 2.4), "POINT")
    path = store(tmp_path, structure_set({"a": [closed, point]}))
    assert draw(rtstruct, reference, path)[0][1].sum() == 25
    line = contour(on_plane(reference, square(3.5, 3.5, 5), 2), "OPEN_PLANAR")
    with refused(Reason.BAD_LABEL, detail="open contour"):
        draw(rtstruct, reference, store(tmp_path, structure_set({"a": [closed, line]})))


def test_another_frame_of_reference(tmp_path):
    _, reference = ct(tmp_path / "ct")
    drawn = [contour(on_plane(reference, square(3.5, 3.5, 5), 2))]
    with refused(Reason.GEOMETRY, detail="frame of reference"):
        draw(rtstruct, reference, store(tmp_path, structure_set({"a": drawn}, generate_uid())))


@pytest.mark.parametrize("data", [["1", "2"], ["1", "2", "x"], ["1", "2", "nan"], [], ["1e30"] * 9], ids=str)
def test_malformed_contours(tmp_path, data):
    _, reference = ct(tmp_path / "ct")
    drawn = contour(on_plane(reference, square(3.5, 3.5, 5), 2))
    good = b"\\".join(
        f"{value:.6f}".encode() for value in np.ravel(on_plane(reference, square(3.5, 3.5, 5), 2))
    )
    content = dicom_bytes(structure_set({"a": [drawn]}))
    assert good in content
    bad = "\\".join(data).encode().ljust(len(good))
    path = tmp_path / "rs.dcm"
    path.write_bytes(content.replace(good, bad))
    with refused(Reason.CORRUPT, Reason.GEOMETRY, Reason.UNREADABLE):
        draw(rtstruct, reference, path)


def test_other_objects_are_no_structure_set(tmp_path):
    datasets, reference = ct(tmp_path / "ct")
    with refused(Reason.UNREADABLE, detail="no structure set"):
        draw(rtstruct, reference, store(tmp_path, datasets[0]))


def test_an_image_without_a_position(tmp_path):
    path = store(tmp_path, structure_set({}))
    with refused(Reason.GEOMETRY):
        draw(rtstruct, Reference(shape=(5, 5)), path)


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    folder = tmp_path_factory.mktemp("damaged")
    _, reference = ct(folder / "ct")
    dataset = structure_set({"a": [contour(on_plane(reference, square(3, 3, 9), 2))]})
    return dicom_bytes(dataset), reference, folder


@settings(max_examples=80, deadline=None)
@given(edits=st.lists(st.tuples(st.integers(132, 4000), st.integers(0, 255)), min_size=1, max_size=4))
def test_any_damage_is_read_or_refused(damaged, edits):
    content, reference, folder = damaged
    changed = bytearray(content)
    for at, value in edits:
        changed[at % len(changed)] = value
    path = folder / "damaged.dcm"
    path.write_bytes(changed)
    with suppress(CaseRejected):
        draw(rtstruct, reference, path)


# A real plan


def test_real_body_on_its_ct_slice():
    slice_path, path = realdata.path(f"{EXAMPLE}ct.0.dcm"), realdata.path(f"{EXAMPLE}rtss.dcm")
    reference = reference_of(slice_path)
    header, stored = pydicom.dcmread(slice_path, force=True), pydicom.dcmread(path, force=True)
    found = drawing(rtstruct, reference, path, outside="omit", sparse="keep")
    names = [structure.names[0] for structure in found.structures]
    assert names == [str(region.ROIName) for region in stored.StructureSetROISequence]
    body = draw(rtstruct, reference, path, outside="omit")[0][1][:, :, 0]
    z = float(header.ImagePositionPatient[2])
    between_rows, between_columns = map(float, header.PixelSpacing)
    left, top = map(float, header.ImagePositionPatient[:2])
    expected = np.zeros((512, 512), bool)
    for item in stored.ROIContourSequence[0].ContourSequence:
        points = np.reshape(np.array(item.ContourData, float), (-1, 3))
        if abs(points[0, 2] - z) < 0.01:
            inside = polygon((points[:, 0] - left) / between_columns, (points[:, 1] - top) / between_rows)
            expected[inside] ^= True
    assert expected.sum() > 40_000
    assert not (expected & ~body).any()
    assert (body & ~expected).sum() < 50  # centres on the path


def test_real_regions_beyond_the_only_slice_are_refused():
    reference = reference_of(realdata.path(f"{EXAMPLE}ct.0.dcm"))
    with refused(Reason.GEOMETRY, detail="beyond"):
        draw(rtstruct, reference, realdata.path(f"{EXAMPLE}rtss.dcm"))
