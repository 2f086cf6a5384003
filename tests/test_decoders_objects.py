"""Decoders of objects against plain numpy: which voxels are which object of which term, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from medcurate.decoders import (
    bits,
    colour_instance,
    instance,
    instance_channels,
    instance_class,
    instance_table,
)
from medcurate.errors import CaseRejected, Reason
from medcurate.job.grid import Grid
from medcurate.job.labels import masks_by_axis
from medcurate.library import load_recipe
from medcurate.types import LabelFile, LabelLayer, Volume

Objects = dict[tuple[str, int], np.ndarray]


def picture(voxels) -> Volume:
    return Volume(voxels=np.asarray(voxels))


def files(*volumes: Volume, classes: tuple[tuple[int, str], ...] = ()) -> list[tuple[LabelFile, Volume]]:
    return [(LabelFile(paths=(), classes=classes), volume) for volume in volumes]


def objects(layers: tuple[LabelLayer, ...]) -> Objects:
    """(term, id) -> mask, as the mask stage would find them."""
    found: Objects = {}
    for layer in layers:
        assert layer.instances or not layer.labels.any()
        for value in np.unique(layer.labels[layer.labels != 0]).tolist():
            assert (layer.terms[0], value) not in found
            found[layer.terms[0], value] = layer.labels == value
    return found


def same(found: Objects, expected: Objects) -> bool:
    return found.keys() == expected.keys() and all((found[key] == expected[key]).all() for key in expected)


def refused(decode, *args) -> CaseRejected:
    with pytest.raises(CaseRejected) as caught:
        decode(*args)
    assert caught.value.reason is Reason.BAD_LABEL
    return caught.value


@pytest.mark.parametrize(
    ("decode", "options", "label"),
    [
        (bits.decode, bits.Options(), np.zeros((3, 4), np.uint8)),
        (instance_table.decode, instance_table.Options(), np.zeros((3, 4), np.uint8)),
        (instance_class.decode, instance_class.Options(), np.zeros((3, 4, 2), np.uint8)),
        (instance_class.decode, instance_class.Options(ignore=(7,)), np.full((3, 4, 2), 7, np.uint8)),
    ],
    ids=["bits", "table", "class", "ignored class"],
)
def test_a_label_without_objects_still_has_a_shape(decode, options, label):
    """A tile without nuclei is an empty case, not a build that stops: its axes are cut like any other's."""
    layers = decode(files(picture(label)), {"1": "nucleus"}, options)
    assert [layer.labels.shape for layer in layers] == [(3, 4)]
    assert not any(layer.labels.any() for layer in layers if layer.instances)
    grid = Grid((3, 4), None, None, None)
    (found,) = masks_by_axis(grid, layers, load_recipe("quickstart"))
    assert (found.height, found.width, len(found.table)) == (3, 4, 0)


IDS = hnp.arrays(st.sampled_from([np.uint8, np.int32, np.float64]), (6, 7), elements=st.integers(0, 30))


@settings(max_examples=60, deadline=None)
@given(IDS, st.booleans())
def test_ranges_of_ids_are_objects_of_their_terms(ids, flipped):
    ids = ids[::-1, ::-1].T if flipped else ids
    keys = {"1..10": "sacrum", "11..20": "left", "21": "right"}
    odd = ids[(ids > 21)]
    if odd.size:
        error = refused(instance.decode, files(picture(ids)), keys, instance.Options())
        assert error.measures == {"measure": odd.min(), "count": odd.size}
    layers = instance.decode(files(picture(ids)), keys, instance.Options(ignore=("22..30",)))
    term = {value: name for name, low, high in (("sacrum", 1, 10), ("left", 11, 20), ("right", 21, 21))
            for value in range(low, high + 1)}  # fmt: skip
    expected = {(term[v], v): ids == v for v in np.unique(ids).astype(int).tolist() if v in term}
    assert same(objects(layers), expected)


def test_ignored_ids_are_background_and_the_file_s_array_is_left_alone():
    ids = np.array([[0, 1, 2], [255, 255, 3]], np.uint8)
    layers = instance.decode(files(picture(ids)), {"*": "nucleus"}, instance.Options(ignore=("255",)))
    assert set(objects(layers)) == {("nucleus", 1), ("nucleus", 2), ("nucleus", 3)}
    assert ids.max() == 255


@settings(max_examples=60, deadline=None)
@given(IDS, st.data())
def test_a_table_says_what_objects_are(ids, data):
    words = data.draw(st.lists(st.sampled_from(["2", "-1", "0"]), min_size=31, max_size=31))
    known = data.draw(st.integers(0, 31))
    classes = tuple((value, words[value]) for value in range(known))
    labels, options = {"2": "displaced", "-1": "other"}, instance_table.Options(background=("0",))
    values = np.unique(ids[ids > 0]).astype(int).tolist()
    unknown = [value for value in values if value >= known]
    if unknown:
        error = refused(instance_table.decode, files(picture(ids), classes=classes), labels, options)
        assert error.measures == {"measure": unknown[0], "count": int((ids == unknown[0]).sum())}
        return
    layers = instance_table.decode(files(picture(ids), classes=classes), labels, options)
    expected = {(labels[words[v]], v): ids == v for v in values if words[v] != "0"}
    assert same(objects(layers), expected)


def test_a_word_that_the_source_does_not_know_is_refused():
    error = refused(
        instance_table.decode,
        files(picture(np.ones((2, 2), np.uint8)), classes=((1, "7"),)),
        {"2": "displaced"},
        instance_table.Options(),
    )
    assert "value 1" in error.detail


@settings(max_examples=40, deadline=None)
@given(hnp.arrays(st.sampled_from([np.uint16, np.float64]), (5, 6, 4), elements=st.integers(0, 9)))
def test_channels_are_classes_that_may_overlap(label):
    keys, options = {"0": "neoplastic", "2": "dead"}, instance_channels.Options(ignore=(1, 3))
    layers = instance_channels.decode(files(picture(label)), keys, options)
    expected = {
        (term, value): label[..., int(key)] == value
        for key, term in keys.items()
        for value in np.unique(label[..., int(key)]).astype(int).tolist()
        if value
    }
    assert same(objects(layers), expected)
    refused(instance_channels.decode, files(picture(label)), keys, instance_channels.Options(ignore=(1,)))
    refused(instance_channels.decode, files(picture(label[..., 0])), keys, options)


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(np.int32, (6, 6), elements=st.integers(0, 8)),
    st.lists(st.integers(1, 3), min_size=9, max_size=9),
)
def test_one_channel_numbers_another_classifies(ids, class_of):
    classes = np.where(ids > 0, np.array(class_of, np.int32)[ids], 0)
    keys, options = {"1": "neutrophil", "2": "epithelial"}, instance_class.Options(ignore=(3,))
    layers = instance_class.decode(files(picture(np.stack([ids, classes], -1))), keys, options)
    expected = {
        (keys[str(class_of[v])], v): ids == v for v in np.unique(ids).tolist() if v and class_of[v] != 3
    }
    assert same(objects(layers), expected)
    swapped = instance_class.Options(instances=1, classes=0, ignore=(3,))
    turned = instance_class.decode(files(picture(np.stack([classes, ids], -1))), keys, swapped)
    assert same(objects(turned), expected)
    if (classes == 3).any():
        refused(
            instance_class.decode,
            files(picture(np.stack([ids, classes], -1))),
            keys,
            instance_class.Options(),
        )


@pytest.mark.parametrize(
    ("ids", "classes"), [([[5, 5]], [[1, 2]]), ([[5, 5]], [[1, 0]]), ([[5, 6]], [[1, 9]])]
)
def test_torn_and_unknown_objects_are_refused(ids, classes):
    label = np.stack([np.array(ids), np.array(classes)], -1)
    refused(instance_class.decode, files(picture(label)), {"1": "a", "2": "b"}, instance_class.Options())


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.uint8, (4, 5, 3), elements=st.sampled_from([0, 120, 255])))
def test_colours_are_objects(colours):
    layers = colour_instance.decode(
        files(picture(colours)), {"*": "tooth"}, colour_instance.Options(background=("#000000", "#ffffff"))
    )
    flat = {tuple(c) for c in colours.reshape(-1, 3).tolist()} - {(0, 0, 0), (255, 255, 255)}
    expected = {("tooth", n): (colours == colour).all(-1) for n, colour in enumerate(sorted(flat), start=1)}
    assert same(objects(layers), expected)


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.uint32, (4, 5), elements=st.integers(0, 2**32 - 1)))
def test_bits_are_objects_that_may_overlap(label):
    """Against the published encoding: a mask is shifted by its number."""
    keys = {"0": "a", "1..10": "sacrum", "11..20": "left", "21..31": "right"}
    terms = {n: next(t for k, t in keys.items() if n in range(int(k.split("..")[0]), int(k.split("..")[-1]) + 1))
             for n in range(32)}  # fmt: skip
    expected = {
        (terms[n], n + 1): mask for n in range(32) if (mask := (label.astype(object) // 2**n % 2 == 1)).any()
    }
    assert same(objects(bits.decode(files(picture(label)), keys, bits.Options())), expected)
    if any(n == 0 for _, n in [(t, n - 1) for t, n in expected]):
        refused(bits.decode, files(picture(label)), {"1..31": "x"}, bits.Options())
