"""Decoders: what values mean, what is refused with which measures, and what is not copied."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from medcurate.decoders import DECODERS, colour_map, index, instance, mask_per_class, threshold, value_map
from medcurate.decoders.values import BLOCK_VOXELS, blocks, distinct, refuse_undeclared, stored
from medcurate.errors import CaseRejected, Reason
from medcurate.readers import nifti
from medcurate.readers.files import CaseFiles
from medcurate.registry import load
from medcurate.types import LabelFile, Volume

AFFINE = np.eye(4)


def volume(voxels, *, slope=1.0, intercept=0.0, affine=AFFINE) -> Volume:
    return Volume(voxels=np.asarray(voxels), affine=affine, slope=slope, intercept=intercept)


def picture(voxels) -> Volume:
    return volume(voxels, affine=None)


def files(*volumes: Volume, labels: tuple[str, ...] = ()) -> list[tuple[LabelFile, Volume]]:
    names = labels or ("",) * len(volumes)
    return [(LabelFile(paths=(), label=name), found) for name, found in zip(names, volumes, strict=True)]


def named(layer) -> np.ndarray:
    """Per voxel the ontology id, "" for background: independent of the layer's own numbers."""
    return np.vectorize(lambda value: layer.terms.get(int(value), ""), otypes=["U20"])(layer.labels)


def refusal(decode, *args) -> CaseRejected:
    with pytest.raises(CaseRejected) as caught:
        decode(*args)
    assert caught.value.reason is Reason.BAD_LABEL
    return caught.value


# -- index ---------------------------------------------------------------------------------------------

BRATS = {"1": "necrosis", "2": "oedema", "4": "enhancing"}


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.int64])
def test_index_does_not_copy_integers(dtype):
    voxels = np.asfortranarray(np.array([[[0, 1], [2, 4]]], dtype))
    (layer,) = index.decode(files(volume(voxels)), BRATS, index.Options())
    assert layer.labels is voxels
    assert layer.terms == {1: "necrosis", 2: "oedema", 4: "enhancing"}
    assert not layer.instances


def test_index_counts_undeclared_values():
    voxels = np.zeros((20, 30, 4), np.int16)
    voxels[3:5, 3:5, 1] = 3
    voxels[0, 0, 0] = 7
    found = refusal(index.decode, files(volume(voxels)), BRATS, index.Options())
    assert found.measures == {"measure": 3.0, "count": 5}
    ignored = index.decode(files(volume(voxels)), BRATS, index.Options(ignore=(3, 7)))
    assert set(np.unique(named(ignored[0]))) == {""}


def test_index_zero_is_background_unless_mapped():
    voxels = np.array([[0, 1]], np.uint8)
    (layer,) = index.decode(files(picture(voxels)), {"0": "cup", "1": "rim"}, index.Options())
    assert named(layer).tolist() == [["cup", "rim"]]


@pytest.mark.parametrize(
    ("values", "measures"),
    [
        ([0.0, 0.9999], {"measure": 0.9999, "count": 1}),
        ([0.0, np.nan, np.inf, 1.0], {"count": 2}),
        ([0.0, -np.inf], {"count": 1}),
        ([0.0, 3.0], {"measure": 3.0, "count": 1}),
        ([0.0, 1e300], {"measure": 1e300, "count": 1}),
    ],
)
def test_index_refuses_floats_that_are_no_declared_integers(values, measures):
    found = refusal(index.decode, files(volume(np.array([[values]]))), BRATS, index.Options())
    assert found.measures == measures


def test_index_casts_whole_floats_to_the_smallest_integers():
    voxels = np.array([[[0.0, 1.0, 4.0]]], np.float32)
    (layer,) = index.decode(files(volume(voxels)), BRATS, index.Options())
    assert layer.labels.dtype == np.uint8
    assert layer.labels.tolist() == [[[0, 1, 4]]]
    (layer,) = index.decode(files(volume(-voxels)), {"-1": "a", "-4": "b"}, index.Options())
    assert named(layer).tolist() == [[["", "a", "b"]]]
    (layer,) = index.decode(files(volume(voxels * 500)), {"500": "a", "2000": "b"}, index.Options())
    assert (layer.labels.dtype, layer.labels.tolist()) == (np.uint16, [[[0, 500, 2000]]])


@pytest.mark.parametrize(
    ("voxels", "slope", "intercept", "expected"),
    [
        (np.array([[[1024, 1025, 1028]]], np.int16), 1.0, -1024.0, ["", "necrosis", "enhancing"]),
        (np.array([[[0, 2, 8]]], np.uint8), 0.5, 0.0, ["", "necrosis", "enhancing"]),
        (np.array([[[4, 3, 0]]], np.uint8), -1.0, 4.0, ["", "necrosis", "enhancing"]),
        (np.array([[[0.0, 0.5, 2.0]]], np.float32), 2.0, 0.0, ["", "necrosis", "enhancing"]),
    ],
)
def test_index_applies_slope_and_intercept_exactly(voxels, slope, intercept, expected):
    (layer,) = index.decode(files(volume(voxels, slope=slope, intercept=intercept)), BRATS, index.Options())
    assert named(layer)[0, 0].tolist() == expected


def test_index_refuses_fractions_made_by_a_slope():
    found = refusal(
        index.decode, files(volume(np.array([[[0, 1]]], np.uint8), slope=0.5)), BRATS, index.Options()
    )
    assert found.measures == {"measure": 0.5, "count": 1}
    refusal(index.decode, files(volume(np.zeros((1, 1, 1), np.uint8), slope=np.nan)), BRATS, index.Options())


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16])
@pytest.mark.parametrize("most", [1, 3, 4, 20])
def test_index_reads_floats_that_nibabel_saved_as_integers(tmp_path, dtype, most):
    drawn = np.random.default_rng(0).integers(0, most + 1, (5, 6, 7))
    image = nibabel.Nifti1Image(drawn.astype(np.float64), np.eye(4))
    image.header.set_data_dtype(dtype)
    nibabel.save(image, tmp_path / "label.nii")
    read = nifti.read(CaseFiles(tmp_path, 1 << 20), [Path("label.nii")], nifti.Options())
    assert read.slope != 1
    labels = {str(value): f"term-{value}" for value in range(1, most + 1)}
    (layer,) = index.decode(files(read), labels, index.Options())
    assert np.array_equal(named(layer) == "", drawn == 0)
    assert all(
        np.array_equal(named(layer) == f"term-{value}", drawn == value) for value in range(1, most + 1)
    )
    (mapped,) = value_map.decode(files(read), labels, value_map.Options())
    assert np.array_equal(named(mapped), named(layer))


def test_index_refuses_a_probability_map():
    found = np.arange(256, dtype=np.uint8).reshape(8, 8, 4)
    refusal(index.decode, files(volume(found, slope=1 / 255)), BRATS, index.Options())


def test_index_reads_other_byte_orders_grey_pictures_and_booleans():
    (layer,) = index.decode(files(volume(np.array([[[0, 4]]], ">i2"))), BRATS, index.Options())
    assert layer.labels.dtype.isnative
    assert layer.labels.tolist() == [[[0, 4]]]
    grey = np.repeat(np.array([[0, 1], [2, 4]], np.uint8)[..., None], 3, axis=2)
    (layer,) = index.decode(files(picture(grey)), BRATS, index.Options())
    assert layer.labels.tolist() == [[0, 1], [2, 4]]
    (layer,) = index.decode(files(volume(np.array([[[True, False]]]))), BRATS, index.Options())
    assert named(layer)[0, 0].tolist() == ["necrosis", ""]
    grey[0, 0, 1] = 1
    refusal(index.decode, files(picture(grey)), BRATS, index.Options())


VALUES = st.sampled_from([0, 1, 2, 3, 4, 9, 200])
LAYOUT = st.sampled_from(["C", "F", "transposed", "strided", "flipped"])


def laid_out(array: np.ndarray, layout: str) -> np.ndarray:
    if layout == "transposed":
        return np.ascontiguousarray(array.transpose(1, 2, 0)).transpose(2, 0, 1)
    if layout == "strided":
        wide = np.zeros((*array.shape[:2], array.shape[2] * 2), array.dtype)
        wide[..., ::2] = array
        return wide[..., ::2]
    return np.ascontiguousarray(array[::-1])[::-1] if layout == "flipped" else np.array(array, order=layout)


@settings(max_examples=150, deadline=None)
@given(
    array=hnp.arrays(
        st.sampled_from([np.uint8, np.int16, np.int32, np.float32, np.float64]),
        hnp.array_shapes(min_dims=3, max_dims=3, max_side=6),
        elements=VALUES,
    ),
    declared=st.sets(VALUES, max_size=5),
    layout=LAYOUT,
)
def test_refused_exactly_when_a_value_is_undeclared(array, declared, layout):
    content = stored(volume(laid_out(array, layout)))
    odd = array[~np.isin(array, sorted(declared))]
    if odd.size:
        found = refusal(refuse_undeclared, content, sorted(declared))
        assert found.measures == {"measure": odd.min(), "count": odd.size}
    else:
        refuse_undeclared(content, sorted(declared))


@settings(max_examples=100, deadline=None)
@given(
    hnp.arrays(
        st.sampled_from([np.uint8, np.int16, np.float64]),
        st.integers(1, 70),
        elements=st.sampled_from([0, 1, 7]),
    )
)
def test_distinct_is_unique(flat):
    assert distinct(flat).tolist() == np.unique(flat).tolist()


def test_blocks_cover_large_arrays_once_and_find_one_odd_voxel():
    voxels = np.zeros((130, 90, 70), np.int16, order="F")
    assert sum(block.size for block in blocks(voxels)) == voxels.size
    assert max(block.size for block in blocks(voxels)) <= BLOCK_VOXELS
    for place in ((0, 0, 0), (129, 89, 69), (64, 45, 35)):
        voxels[place] = 3
        assert refusal(index.decode, files(volume(voxels)), BRATS, index.Options()).measures["count"] == 1
        voxels[place] = 0


# -- threshold and mask per class ----------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(
    array=hnp.arrays(
        st.sampled_from([np.uint8, np.int16, np.float32]),
        (3, 4),
        elements=st.integers(0, 127),
    ),
    above=st.sampled_from([-1.0, 0.0, 0.5, 63.0, 127.0, 300.0]),
    slope=st.sampled_from([1.0, 0.5, -1.0, 4.0]),
    intercept=st.sampled_from([0.0, -3.0, 10.5]),
    inverted=st.booleans(),
)
def test_threshold_is_strictly_above_in_physical_units(array, above, slope, intercept, inverted):
    found = Volume(voxels=array, slope=slope, intercept=intercept)
    (layer,) = threshold.decode(
        files(found), {"*": "lesion"}, threshold.Options(above=above, inverted=inverted)
    )
    expected = (array.astype(np.float64) * slope + intercept > above) != inverted
    assert np.array_equal(named(layer) == "lesion", expected)


def test_threshold_refuses_nan_and_names_it():
    found = refusal(
        threshold.decode,
        files(volume(np.array([[[0.0, np.nan]]]))),
        {"*": "lesion"},
        threshold.Options(above=0.5),
    )
    assert found.measures == {"count": 1}


def masks(*rows: str) -> list[Volume]:
    """One (1, n) mask per row of digits, 0/255 as public sets store them."""
    return [picture(np.array([[255 * (digit == "1") for digit in row]], np.uint8)) for row in rows]


def test_busi_masks_of_one_image_are_objects_or_one():
    found = files(*masks("1100", "0001"))
    (layer,) = threshold.decode(found, {"*": "lesion"}, threshold.Options(above=127))
    assert layer.labels.tolist() == [[1, 1, 0, 2]]
    assert layer.terms == {1: "lesion", 2: "lesion"}
    (layer,) = threshold.decode(found, {"*": "lesion"}, threshold.Options(above=127, several="union"))
    assert layer.labels.tolist() == [[1, 1, 0, 1]]


def test_overlapping_objects_keep_all_their_voxels():
    found = files(*masks("1110", "0111", "0001", "1000"), labels=("disc", "cup", "vessel", "fovea"))
    labels = {"disc": "optic-disc", "cup": "optic-cup", "vessel": "vessel", "fovea": "fovea"}
    layers = mask_per_class.decode(found, labels, mask_per_class.Options())
    assert [named(layer)[0].tolist() for layer in layers] == [
        ["optic-disc", "optic-disc", "optic-disc", "vessel"],
        ["fovea", "optic-cup", "optic-cup", "optic-cup"],
    ]


def test_class_files_may_be_empty_inverted_and_must_agree_in_shape():
    labels = {"a": "liver", "b": "spleen"}
    (layer,) = mask_per_class.decode(files(*masks("000"), labels=("a",)), labels, mask_per_class.Options())
    assert (layer.labels.shape, layer.labels.any()) == ((1, 3), False)
    (layer,) = mask_per_class.decode(
        files(*masks("110"), labels=("a",)), labels, mask_per_class.Options(inverted=True)
    )
    assert named(layer)[0].tolist() == ["", "", "liver"]
    with pytest.raises(CaseRejected) as caught:
        mask_per_class.decode(files(*masks("11", "111"), labels=("a", "b")), labels, mask_per_class.Options())
    assert caught.value.reason is Reason.GEOMETRY


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_a_file_of_one_class_holds_one_value_unless_a_bound_is_stated(dtype):
    """Labels 1 and 2 of a label map never become one class in silence."""
    found = files(picture(np.array([[0, 1, 1, 2]], dtype)), labels=("lab",))
    refused = refusal(mask_per_class.decode, found, {"lab": "liver"}, mask_per_class.Options())
    assert refused.measures == {"measure": 1.0, "count": 2}
    assert "values 1, 2 in a file of one class" in refused.detail
    assert "above" in refused.detail
    (layer,) = mask_per_class.decode(found, {"lab": "liver"}, mask_per_class.Options(above=0))
    assert named(layer).tolist() == [["", "liver", "liver", "liver"]]


@pytest.mark.parametrize(
    ("voxels", "said"),
    [
        (
            np.arange(256, dtype=np.uint8)[None],
            "values 1, 2, 3, 4, 5, 6, 7, 8 and 247 more in",
        ),  # a soft edge
        (np.array([[0, -1]], np.int8), "values -1 in"),  # 255 as a signed byte
        (np.array([[-1, -1]], np.int8), "values -1 in"),
        (np.array([[0, 1, np.nan]]), "NaN or infinity in 1 voxels"),
        (np.array([[0, 1, np.inf]]), "NaN or infinity in 1 voxels"),
    ],
)
def test_what_is_no_mask_of_one_value(voxels, said):
    found = refusal(
        mask_per_class.decode, files(picture(voxels), labels=("a",)), {"a": "liver"}, mask_per_class.Options()
    )
    assert found.detail.startswith(said)


@pytest.mark.parametrize("high", [1, 7, 255])
@pytest.mark.parametrize(("slope", "intercept"), [(1.0, 0.0), (0.5, 0.0), (-1.0, 255.0), (1 / 255, 0.004)])
def test_whichever_one_value_a_mask_holds(high, slope, intercept):
    """Also where a slope moved the value that stands for 0 a little above it."""
    drawn = np.array([[False, True, True], [False, False, True]])
    low = round(-intercept / slope)
    voxels = np.where(drawn, low + (high if slope > 0 else -high), low).astype(np.int16)
    found = files(volume(voxels[..., None], slope=slope, intercept=intercept), labels=("a",))
    for inverted in (False, True):
        (layer,) = mask_per_class.decode(found, {"a": "liver"}, mask_per_class.Options(inverted=inverted))
        assert np.array_equal(named(layer)[..., 0] == "liver", drawn != inverted)


@settings(max_examples=80, deadline=None)
@given(
    bits=hnp.arrays(np.bool_, st.tuples(st.integers(1, 6), st.just(2), st.just(3), st.just(4))),
    layouts=st.lists(LAYOUT, min_size=6, max_size=6),
)
def test_every_class_comes_back_whole_whatever_overlaps(bits, layouts):
    names = tuple("abcdef"[: len(bits)])
    volumes = [
        volume(laid_out(mask.astype(np.uint8), layout)) for mask, layout in zip(bits, layouts, strict=False)
    ]
    layers = mask_per_class.decode(
        files(*volumes, labels=names), {name: name for name in names}, mask_per_class.Options()
    )
    for name, mask in zip(names, bits, strict=True):
        holding = [named(layer) == name for layer in layers if name in layer.terms.values()]
        assert len(holding) == 1
        assert np.array_equal(holding[0], mask)


def test_more_files_than_a_byte_counts():
    rows = [picture(np.eye(300, dtype=np.uint8)[i : i + 1]) for i in range(300)]
    (layer,) = threshold.decode(files(*rows), {"*": "nucleus"}, threshold.Options(above=0))
    assert layer.labels[0].tolist() == list(range(1, 301))


# -- value map, colour map, instance -------------------------------------------------------------------


def test_chaos_ranges_and_refuge_background():
    voxels = np.array([[0, 55, 63, 70, 110, 252]], np.uint8)
    labels = {"55..70": "liver", "110..135": "kidney", "240..255": "spleen"}
    (layer,) = value_map.decode(files(picture(voxels)), labels, value_map.Options())
    assert named(layer)[0].tolist() == ["", "liver", "liver", "liver", "kidney", "spleen"]
    voxels = np.array([[0, 128, 255]], np.uint8)
    (layer,) = value_map.decode(
        files(picture(voxels)), {"0": "cup", "128": "rim"}, value_map.Options(background=("255",))
    )
    assert named(layer)[0].tolist() == ["cup", "rim", ""]
    found = refusal(
        value_map.decode, files(picture(np.array([[71, 9, 71, 0]], np.uint8))), labels, value_map.Options()
    )
    assert found.measures == {"measure": 9.0, "count": 3}


@settings(max_examples=60, deadline=None)
@given(
    array=hnp.arrays(
        st.sampled_from([np.uint8, np.int16, np.uint16, np.int32, np.float32]),
        (2, 3, 4),
        elements=st.sampled_from([0, 85, 100, 120]),
    ),
    layout=LAYOUT,
)
def test_value_map_is_the_same_for_all_types_and_layouts(array, layout):
    found = volume(laid_out(array, layout))
    (layer,) = value_map.decode(files(found), {"85": "a", "100..120": "b"}, value_map.Options())
    assert np.array_equal(named(layer), np.select([array == 85, array >= 100], ["a", "b"], ""))


def test_value_map_takes_fractions_and_refuses_nan():
    (layer,) = value_map.decode(
        files(volume(np.array([[[0, 0.5, 1.5]]]))), {"0.5": "a", "1..2": "b"}, value_map.Options()
    )
    assert named(layer)[0, 0].tolist() == ["", "a", "b"]
    found = refusal(
        value_map.decode, files(volume(np.array([[[np.nan, 0]]]))), {"1": "a"}, value_map.Options()
    )
    assert found.measures == {"count": 1}


RGB = {"#FF0000": "artery", "#0000ff": "vein"}


def colours(*texts: str) -> Volume:
    return picture(np.array([[list(bytes.fromhex(text)) for text in texts]], np.uint8))


def test_colours_are_exact_unless_told():
    (layer,) = colour_map.decode(files(colours("ff0000", "0000ff", "000000")), RGB, colour_map.Options())
    assert named(layer)[0].tolist() == ["artery", "vein", ""]
    found = refusal(
        colour_map.decode, files(colours("fe0101", "fe0101", "00ff00")), RGB, colour_map.Options()
    )
    assert found.measures == {"measure": 0x00FF00, "count": 3}
    assert "#00ff00" in found.detail
    near = colour_map.Options(nearest_within=2)
    (layer,) = colour_map.decode(files(colours("fe0101", "010100", "0000ff")), RGB, near)
    assert named(layer)[0].tolist() == ["artery", "", "vein"]
    refusal(colour_map.decode, files(colours("fc0000")), RGB, near)


def test_background_colours_are_declared():
    white = colour_map.Options(background=("#ffffff",))
    (layer,) = colour_map.decode(files(colours("ffffff", "ff0000")), RGB, white)
    assert named(layer)[0].tolist() == ["", "artery"]
    refusal(colour_map.decode, files(colours("000000")), RGB, white)
    (layer,) = colour_map.decode(
        files(picture(np.array([[0, 11]], np.uint8))), {"#0b0b0b": "wall"}, colour_map.Options()
    )
    assert named(layer)[0].tolist() == ["", "wall"]
    refusal(colour_map.decode, files(volume(np.zeros((2, 2, 2), np.uint8))), RGB, colour_map.Options())


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.uint8, (4, 5, 3), elements=st.sampled_from([0, 1, 40, 250, 255])))
def test_nearest_colour_against_a_direct_computation(array):
    (layer,) = colour_map.decode(files(picture(array)), RGB, colour_map.Options(nearest_within=442))
    palette = np.array([[255, 0, 0], [0, 0, 255], [0, 0, 0]], np.float64)
    distance = np.linalg.norm(array[:, :, None].astype(np.float64) - palette, axis=3)
    assert np.array_equal(named(layer), np.array(["artery", "vein", ""])[distance.argmin(axis=2)])


def test_instances_beyond_sixteen_bits_are_kept():
    voxels = np.array([[0, 1, 70_000, 4_000_000_000]], np.uint32)
    (layer,) = instance.decode(files(picture(voxels)), {"*": "nucleus"}, instance.Options())
    assert layer.labels is voxels
    assert (layer.terms, layer.instances) == ({0: "nucleus"}, True)
    (layer,) = instance.decode(
        files(picture(voxels[:, :3].astype(np.float64))), {"*": "nucleus"}, instance.Options()
    )
    assert (layer.labels.dtype, layer.labels.tolist()) == (np.uint32, [[0, 1, 70_000]])


@pytest.mark.parametrize("value", [-1.0, 0.5, np.nan, np.inf, 1e17])
def test_what_is_no_instance_id(value):
    refusal(instance.decode, files(picture(np.array([[0, value]]))), {"*": "nucleus"}, instance.Options())


# -- keys of [labels] ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("index", {"1": "a", "-1": "b"}, [{"01": "a"}, {"1.0": "a"}, {"liver": "a"}, {"9" * 20: "a"}]),
        ("threshold", {"255": "a"}, [{"1": "a", "2": "b"}, {}]),
        (
            "mask-per-class",
            {"Lesion Masks/Atrophy": "a"},
            [{"": "a"}, {"/x": "a"}, {"../x": "a"}, {"*": "a"}],
        ),
        ("instance", {"*": "a"}, [{"*": "a", "1": "b"}, {"x": "a"}, {"-1": "a"}]),
        ("instance", {"1..10": "a", "11": "b"}, [{"1..10": "a", "10": "b"}, {"3..1": "a"}, {"1..": "a"}]),
        ("instance-channels", {"0": "a", "4": "b"}, [{"a": "a"}, {"-1": "a"}, {"01": "a"}]),
        ("instance-class", {"1": "a", "6": "b"}, [{"a": "a"}, {"1.0": "a"}]),
        ("colour-instance", {"*": "a"}, [{"#ff0000": "a"}, {"*": "a", "#ff0000": "b"}]),
        ("bits", {"0": "a", "11..20": "b", "31": "c"}, [{"32": "a"}, {"0..31": "a", "4": "b"}, {"x": "a"}]),
        (
            "value-map",
            {"85": "a", "100..120": "b"},
            [{"a": "a"}, {"9..1": "a"}, {"1..5": "a", "5": "b"}, {"nan": "a"}],
        ),
        ("colour-map", {"#00ff00": "a"}, [{"green": "a"}, {"#0f0": "a"}, {"#00FF00": "a", "#00ff00": "b"}]),
    ],
)
def test_keys_are_checked(kind, good, bad):
    module = load(DECODERS, kind, "decoder")
    module.check(good)
    for labels in bad:
        with pytest.raises(ValueError, match=r"[a-z]"):
            module.check(labels)


def test_every_registered_decoder_keeps_the_contract():
    for kind in DECODERS:
        module = load(DECODERS, kind, "decoder")
        assert all(hasattr(module, name) for name in ("Options", "check", "decode"))
