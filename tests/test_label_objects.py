"""A label that several values or several files of a case stand for is still one label."""

from __future__ import annotations

import numpy as np
import pytest

from medcurate.config.recipe import Masks, Recipe, Slices
from medcurate.errors import CaseRejected, Reason
from medcurate.job.grid import Grid
from medcurate.job.labels import AxisMasks, masks_by_axis
from medcurate.job.refused import refused_rows
from medcurate.stages.orient import orientation
from medcurate.types import LabelLayer

OWNER = {"source": "s", "case": "c", "group": "g", "channel": ""}
SHAPE = (12, 10, 6)
GRID = Grid(SHAPE, np.eye(4), orientation(np.eye(4)), None)
# Two pieces of the liver in two planes each, 8 and 12 voxels; the spleen has 4.
LEFT, RIGHT, SPLEEN = np.zeros((3, *SHAPE), bool)
LEFT[2:4, 2:4, 1:3] = True
RIGHT[6:8, 2:5, 2:4] = True
SPLEEN[2:4, 7:9, 4] = True


def values_of_one_file() -> list[LabelLayer]:
    labels = LEFT * np.uint8(5) + RIGHT * np.uint8(1) + SPLEEN * np.uint8(7)
    return [LabelLayer(labels=labels, terms={5: "liver", 1: "liver", 7: "spleen"})]


def files_of_one_case() -> list[LabelLayer]:
    parts = ((LEFT, "liver"), (RIGHT, "liver"), (SPLEEN, "spleen"))
    return [LabelLayer(labels=part.astype(np.uint8), terms={1: term}) for part, term in parts]


def masks(layers: list[LabelLayer], **rules: object) -> AxisMasks:
    recipe = Recipe(
        name="r", title="r", sources=("s",), intensity={}, slices=Slices(axes=("z",)), masks=Masks(**rules)
    )
    (found,) = masks_by_axis(GRID, layers, recipe)
    return found


both_ways = pytest.mark.parametrize(
    "layers", [values_of_one_file(), files_of_one_case()], ids=["values", "files"]
)


@both_ways
@pytest.mark.parametrize("components", ["none", "2d"])
@pytest.mark.parametrize(("bound", "refused"), [(20, {"spleen"}), (21, {"liver", "spleen"}), (4, set())])
def test_the_volume_of_a_label_is_that_of_all_its_pieces(layers, components, bound, refused):
    found = masks(layers, components=components, min_voxels=bound)
    rows = [row for table in refused_rows(found, OWNER) for row in table.to_pylist()]
    mask_rejects = [row for row in rows if row["stage"] == "mask"]
    assert {row["reason"] for row in mask_rejects} <= {Reason.VOLUME}
    volumes = {row["label"]: row["measure"] for row in mask_rejects}
    assert volumes == {label: {"liver": 20, "spleen": 4}[label] for label in refused}


@both_ways
@pytest.mark.parametrize(("bound", "kept"), [(8, {8, 12}), (9, {12})])
def test_with_3d_components_every_piece_is_an_object_with_a_number_of_its_own(layers, bound, kept):
    found = masks(layers, components="3d", min_voxels=bound)
    livers = [row for row in np.flatnonzero(found.kept) if found.table.label[row] == "liver"]
    assert set(found.table.object_voxels[livers].tolist()) == kept
    objects = {(found.table.instance[row], found.table.object_voxels[row]) for row in livers}
    assert len(objects) == len({number for number, _ in objects}) == len(kept)


@both_ways
def test_2d_components_of_one_label_are_numbered_on(layers):
    found = masks(layers, components="2d")
    in_both = [row for row, plane in enumerate(found.table.plane) if plane == 2]
    assert [found.table.instance[row] for row in in_both] == [1, 2]


def test_more_masks_or_pixels_than_a_row_can_say_are_refused_by_name():
    """Columns of the manifest have 16 bits."""
    picture = Grid((513, 513), None, None, None)
    dots = np.zeros((513, 513), np.uint8)
    dots[::2, ::2] = 1
    recipe = Recipe(name="r", title="r", sources=("s",), intensity={}, masks=Masks(components="2d"))
    with pytest.raises(CaseRejected, match="a slice of 66049 masks; a dataset holds 65536 a slice"):
        list(masks_by_axis(picture, [LabelLayer(labels=dots, terms={1: "liver"})], recipe))
    dots[::2, 512] = dots[512] = 0
    (found,) = masks_by_axis(picture, [LabelLayer(labels=dots, terms={1: "liver"})], recipe)
    assert len(found.table) == 65_536
    wide = LabelLayer(labels=np.ones((1, 65_536), np.uint8), terms={1: "liver"})
    with pytest.raises(CaseRejected, match="planes of 1 x 65536 pixels; a dataset holds 65535 a side"):
        list(masks_by_axis(Grid((1, 65_536), None, None, None), [wide], recipe))
