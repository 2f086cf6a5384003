"""Label planes to measured masks, against numpy, OpenCV and pycocotools."""

from __future__ import annotations

from dataclasses import fields

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco
from scipy import ndimage

from medcurate.config.recipe import Masks, MinArea
from medcurate.errors import Reason
from medcurate.format import rle
from medcurate.stages.masks import MaskTable, Verdict, find_masks, joined, judge

TERMS = {3: "tumour", 1: "liver", 700: "kidney"}  # neither sorted nor 8 bits
VOLUMES = st.tuples(st.integers(1, 5), st.integers(1, 9), st.integers(1, 9)).flatmap(
    lambda shape: hnp.arrays(np.int16, shape, elements=st.sampled_from([0, 0, 1, 1, 3, 700, 5, -3]))
)
RULES = st.builds(
    Masks,
    components=st.sampled_from(["2d", "3d", "none"]),
    connectivity=st.sampled_from(["full", "face"]),
)


def find(planes, terms=TERMS, *, instances=False, rule=Masks(), **chunks) -> MaskTable:  # noqa: B008
    return find_masks(planes, terms, instances=instances, rule=rule, **chunks)


def assert_equal_tables(one: MaskTable, other: MaskTable) -> None:
    for field in fields(MaskTable):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name), field.name)


def objects(volume: np.ndarray, value: int, rule: Masks) -> list[np.ndarray]:
    """Bool volumes of the things of one value, in the order in which they are numbered."""
    if rule.components == "none":
        return [volume == value]
    structure = ndimage.generate_binary_structure(3, 3 if rule.connectivity == "full" else 1)
    if rule.components == "2d":
        structure[[0, 2]] = False
    labels, count = ndimage.label(volume == value, structure)
    found = [labels == number for number in range(1, count + 1)]
    return sorted(found, key=lambda thing: np.flatnonzero(thing)[0])


def rows_by_numpy(volume: np.ndarray, terms: dict[int, str], rule: Masks) -> list[tuple]:
    """(plane, label, value, instance, area, x0, y0, x1, y1, border, object voxels, RLE) of every mask."""
    rows = []
    for plane in range(len(volume)):
        for value, label in terms.items():
            number = 0
            for index, thing in enumerate(objects(volume, value, rule), 1):
                mask = thing[plane]
                if not mask.any():
                    continue
                number = {"none": 0, "2d": number + 1, "3d": index}[rule.components]
                ys, xs = np.nonzero(mask)
                box = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
                frame = np.pad(mask[1:-1, 1:-1], 1) if min(mask.shape) > 2 else np.zeros_like(mask)
                owner = thing if rule.components == "3d" else volume == value
                text = coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
                border = bool((mask & ~frame).any())
                rows.append((plane, label, value, number, mask.sum(), *box, border, owner.sum(), text))
    return rows


def rows_of(table: MaskTable) -> list[tuple]:
    names = ("plane", "label", "value", "instance", "area_px", "x0", "y0", "x1", "y1", "touches_border")
    return list(zip(*(getattr(table, n) for n in names), table.object_voxels, table.rle, strict=True))


@given(VOLUMES, RULES)
@settings(max_examples=250, deadline=None)
def test_tables_equal_numpy_scipy_and_pycocotools(volume, rule):
    assert rows_of(find(volume, rule=rule)) == rows_by_numpy(volume, TERMS, rule)


@given(VOLUMES, RULES, st.sampled_from([1, 40, 100, 200]))
@settings(max_examples=150, deadline=None)
def test_chunks_do_not_show(volume, rule, chunk_voxels):
    assert_equal_tables(find(volume, rule=rule, chunk_voxels=chunk_voxels), find(volume, rule=rule))


@given(VOLUMES, RULES, st.sampled_from([1, 5, 50]))
@settings(max_examples=100, deadline=None)
def test_planes_taken_apart_for_their_many_changes_do_not_show(volume, rule, most):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("medcurate.stages.runs._MOST_CHANGES", most)
        found = find(volume, rule=rule)
    assert_equal_tables(found, find(volume, rule=rule))


@given(VOLUMES, RULES, st.permutations([0, 1, 2]), st.tuples(*[st.sampled_from([1, -1, 2, -2])] * 3))
@settings(max_examples=200, deadline=None)
def test_views_equal_contiguous_copies(volume, rule, axes, steps):
    view = volume.transpose(axes)[tuple(slice(None, None, step) for step in steps)]
    assert_equal_tables(find(view, rule=rule), find(np.ascontiguousarray(view), rule=rule))


@pytest.mark.parametrize(
    "dtype", ["u1", "i1", "<i2", ">i2", "<u2", ">u2", "<i4", ">i4", "<i8", ">i8", "<u8", ">u4"]
)
def test_integer_dtypes_and_byte_orders_are_alike(dtype):
    volume = np.random.default_rng(0).integers(0, 5, (4, 12, 13))
    terms = {1: "liver", 4: "kidney"}
    assert_equal_tables(find(volume.astype(dtype), terms), find(volume, terms))


def test_bool_labels():
    volume = np.random.default_rng(0).random((3, 12, 13)) < 0.4
    assert_equal_tables(find(volume, {1: "liver"}), find(volume.astype(np.uint8), {1: "liver"}))


@pytest.mark.parametrize(("dtype", "value"), [("u2", 65535), ("i4", 70_000), ("i8", 2**40), ("i2", -2)])
def test_values_that_do_not_fit_8_bits_keep_their_identity(dtype, value):
    volume = np.zeros((2, 6, 6), dtype)
    volume[1, 2:4, 3] = value
    volume[1, 0, 0] = value % 256 or 1  # what is left of it in 8 bits
    table = find(volume, {value: "liver"})
    assert (table.plane.tolist(), table.value.tolist(), table.area_px.tolist()) == ([1], [value], [2])


def test_zero_may_be_a_declared_label():
    volume = np.full((2, 5, 4), 255, np.uint8)
    volume[0, 1:3, 1:3] = 0
    volume[1] = 0
    table = find(volume, {0: "optic-disc"})
    assert table.area_px.tolist() == [4, 20]
    assert rows_of(table) == rows_by_numpy(volume, {0: "optic-disc"}, Masks())


@given(hnp.arrays(np.int32, (3, 6, 7), elements=st.sampled_from([0, 1, 2, 300, 70_000])), RULES)
@settings(max_examples=50, deadline=None)
def test_every_value_of_an_instance_layer_is_one_whole_mask(volume, rule):
    table = find(volume, {0: "cell"}, instances=True, rule=rule)
    expected = [(p, v) for p in range(3) for v in np.unique(volume[p]).tolist() if v]
    assert list(zip(table.plane.tolist(), table.instance.tolist(), strict=True)) == expected
    assert set(table.label) <= {"cell"}
    for row, (plane, value) in enumerate(expected):
        np.testing.assert_array_equal(rle.decode(table.rle[row], 6, 7), volume[plane] == value)
        assert table.value[row] == value
        assert table.object_voxels[row] == (volume == value).sum()


@pytest.mark.parametrize("components", ["2d", "3d", "none"])
@pytest.mark.parametrize(("shape", "terms"), [((3, 8, 9), TERMS), ((0, 8, 9), TERMS), ((3, 8, 9), {})])
def test_planes_without_labels_have_no_masks(shape, terms, components):
    table = find(np.zeros(shape, np.uint8), terms, rule=Masks(components=components))
    assert len(table) == 0
    assert len(table.annotated_planes) == 0
    assert judge(table, Masks(min_voxels=5), 8, 9).kept.tolist() == []


def test_annotated_planes_hold_declared_labels():
    volume = np.zeros((9, 4, 4), np.int16)
    volume[[2, 3, 7], 1, 1] = 1
    volume[5] = 99
    assert find(volume).annotated_planes.tolist() == [2, 3, 7]


@pytest.mark.parametrize("connectivity", ["full", "face"])
def test_organ_sized_components_equal_opencv(connectivity):
    noise = ndimage.gaussian_filter(np.random.default_rng(5).standard_normal((3, 256, 200)), (1, 9, 9))
    volume = (noise > np.quantile(noise, 0.7)).astype(np.uint8)
    table = find(volume, {1: "liver"}, rule=Masks(connectivity=connectivity))
    for plane in range(3):
        labels, stats = cv2.connectedComponentsWithStats(
            volume[plane], connectivity=8 if connectivity == "full" else 4
        )[1:3]
        rows = np.flatnonzero(table.plane == plane)
        boxes = np.stack([table.x0, table.y0, table.x1 - table.x0, table.y1 - table.y0, table.area_px], 1)[
            rows
        ]
        assert sorted(boxes.tolist()) == sorted(stats[1:].tolist())
        for mask in rle.decode_many([table.rle[row] for row in rows], 256, 200):
            assert len(np.unique(labels[mask])) == 1


def test_overlap_of_bbox_and_area_with_pycocotools():
    """Boxes of one-column masks aside, pycocotools measures the same."""
    y, x = np.mgrid[:40, :60]
    volume = (((y - 20) / 12) ** 2 + ((x - 30) / 17) ** 2 <= 1).astype(np.uint8)[np.newaxis]
    table = find(volume, {1: "liver"})
    coded = {"size": [40, 60], "counts": table.rle[0]}
    assert coco.area(coded) == table.area_px[0]
    assert coco.toBbox(coded).tolist() == [
        table.x0[0],
        table.y0[0],
        *(table.x1 - table.x0),
        *(table.y1 - table.y0),
    ]


@given(st.lists(VOLUMES, max_size=3))
@settings(max_examples=50, deadline=None)
def test_layers_are_joined_plane_by_plane(volumes):
    tables = [find(volume) for volume in volumes]
    both = joined(tables)
    expected = [row for table in tables for row in rows_of(table)]
    assert rows_of(both) == sorted(expected, key=lambda row: row[0])  # stable: layers stay in order
    assert both.touches_border.dtype == np.bool_


def squares() -> np.ndarray:
    """Squares of 1, 4, 9 and 16 pixels in plane 0; the last one goes on in planes 1 to 3."""
    volume = np.zeros((4, 20, 40), np.uint8)
    for side in (1, 2, 3, 4):
        volume[0, 2 : 2 + side, 8 * side : 9 * side] = 1
    volume[1:, 2:6, 32:36] = 1
    return volume


def refusals(table: MaskTable, verdict: Verdict) -> list[tuple]:
    """(row, reason, measure, bound) of every mask that is not kept."""
    rows = np.flatnonzero(~verdict.kept)
    return [(int(row), *why) for row, *why in zip(rows, *verdict.reasons(table, rows), strict=True)]


def test_bounds_are_kept_by_masks_at_or_above_them():
    table = find(squares(), {1: "liver"})
    assert table.area_px.tolist() == [1, 4, 9, 16, 16, 16, 16]
    verdict = judge(table, Masks(min_area=MinArea(pixels=4)), 20, 40)
    assert verdict.kept.tolist() == [False] + [True] * 6
    assert refusals(table, verdict) == [(0, Reason.AREA, 1, 4)]


def test_area_bound_grows_with_the_image():
    rule = Masks(min_area=MinArea(pixels=4, at=10))
    table = find(squares(), {1: "liver"})
    assert judge(table, rule, 10, 10).kept.sum() == 6
    verdict = judge(table, rule, 20, 20)  # 4 pixels of 10 x 10 are 16 of 20 x 20
    assert verdict.kept.sum() == 4
    assert refusals(table, verdict)[-1] == (2, Reason.AREA, 9, 16)


def test_volume_bound_looks_at_the_object_and_area_comes_first():
    rule = Masks(components="3d", min_area=MinArea(pixels=2), min_voxels=9)
    table = find(squares(), {1: "liver"}, rule=rule)
    verdict = judge(table, rule, 20, 40)
    assert verdict.kept.tolist() == [False, False, True, True, True, True, True]
    assert refusals(table, verdict) == [(0, Reason.AREA, 1, 2), (1, Reason.VOLUME, 4, 9)]
    whole = Masks(components="2d", min_voxels=10)  # the label as a whole has 78 voxels
    assert judge(find(squares(), {1: "liver"}, rule=whole), whole, 20, 40).kept.all()


@given(VOLUMES, RULES, st.integers(2, 6))
@settings(max_examples=100, deadline=None)
def test_masks_below_the_bound_of_area_are_measured_and_not_encoded(volume, rule, pixels):
    bound = rule.model_copy(update={"min_area": MinArea(pixels=pixels)})
    wanted = [(*row[:-1], row[-1] if row[4] >= pixels else b"") for row in rows_of(find(volume, rule=rule))]
    assert rows_of(find(volume, rule=bound)) == wanted


def test_planes_that_no_row_can_describe_are_not_measured_wrongly():
    with pytest.raises(ValueError, match="65535"):
        find(np.zeros((1, 1, 65_536), np.uint8))
