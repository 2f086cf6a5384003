"""``medcurate preview``: what is chosen, where outlines lie, and that damaged samples are never drawn."""

from __future__ import annotations

import io
import shutil
from collections import Counter

import cv2
import numpy as np
import pytest
from http_kit import served
from hypothesis import given, settings
from hypothesis import strategies as st
from kit import Piece, pieces, write_dataset
from PIL import Image
from scipy import ndimage
from typer.testing import CliRunner

from medcurate.cli.main import app
from medcurate.errors import ConfigError
from medcurate.explore.preview import TILE_PX, choose, label_colours, outlined, sheet
from medcurate.explore.query import connect, run
from medcurate.format.sample import SampleError

cli = CliRunner()
RED = (255, 0, 0)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("preview") / "demo", pieces(40))


def _chosen(dataset, where="", count=12, seed=0):
    with connect(dataset) as connection:
        return choose(connection, where, count, seed)


def _size(data):
    return Image.open(io.BytesIO(data)).size


def test_the_sheet_repeats_and_another_seed_differs(dataset):
    first = sheet(dataset, count=6, columns=3)
    assert first == sheet(dataset, count=6, columns=3)
    assert first != sheet(dataset, count=6, columns=3, seed=1)


def test_the_layout_follows_count_and_columns(dataset):
    wide, tall = _size(sheet(dataset, count=6, columns=6)), _size(sheet(dataset, count=6, columns=2))
    assert wide[0] > 6 * TILE_PX
    assert wide[1] < 2 * TILE_PX
    assert tall[0] < 3 * TILE_PX
    assert tall[1] > 3 * TILE_PX
    assert _size(sheet(dataset, where="key = 'demo--case000--z0000'", columns=6))[0] < 2 * TILE_PX


def test_every_modality_and_organ_is_shown_before_any_is_shown_again(dataset):
    strata = {(r["modality"], r["organ"]) for r in run(dataset, "FROM manifest").to_pylist()}
    chosen = _chosen(dataset, count=len(strata))
    seen = {(one.row["modality"], label) for one in chosen for label in one.labels.values()}
    assert seen == strata
    assert len({one.row["key"] for one in chosen}) == len(chosen)


def test_a_sample_with_many_masks_takes_one_place(tmp_path):
    dots = np.zeros((30, 64, 64), bool)
    for number, mask in enumerate(dots):
        mask[2 * number, :10] = True
    crowded = Piece("demo--case000--z0000", np.zeros((64, 64), np.uint8), dots, "train")
    chosen = _chosen(write_dataset(tmp_path, [crowded, *pieces(12, seed=3)[4:]]), count=6)
    assert Counter(one.row["key"] for one in chosen).most_common(1)[0][1] == 1
    assert len(chosen) == 6


def test_only_masks_that_fulfil_the_condition_are_outlined(dataset):
    chosen = _chosen(dataset, "organ = 'kidney' AND split <> 'test' -- kidneys")
    assert chosen
    assert {label for one in chosen for label in one.labels.values()} == {"kidney"}
    assert "test" not in {one.row["split"] for one in chosen}


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("organ = 'nothing'", "no mask fulfils"),
        ("orgn = 'liver'", '"organ"'),
        ("organ = ", "syntax error"),
        ("true); DROP VIEW manifest; --", "syntax error|one statement"),
    ],
)
def test_a_wrong_condition_gives_one_line(dataset, where, words):
    with pytest.raises(ConfigError, match=words) as caught:
        sheet(dataset, where=where)
    assert "\n" not in str(caught.value)


def test_a_damaged_sample_is_named_and_nothing_is_written(dataset, tmp_path):
    copy = shutil.copytree(dataset, tmp_path / "copy")
    for shard in (copy / "shards").iterdir():
        data = bytearray(shard.read_bytes())
        data[700::512] = bytes(len(data[700::512]))
        shard.write_bytes(data)
    with pytest.raises(SampleError, match=r"shards/.*demo--case.*digest.*medcurate verify"):
        sheet(copy, count=3)
    result = cli.invoke(app, ["preview", str(copy), "-o", str(tmp_path / "sheet.png")])
    assert result.exit_code != 0
    assert not (tmp_path / "sheet.png").exists()


def test_a_table_in_the_place_of_a_dataset_gives_one_line(dataset):
    with pytest.raises(
        ConfigError, match=r"manifest\.parquet: is a table, .* name the folder of the dataset$"
    ):
        sheet(dataset / "manifest.parquet")
    with pytest.raises(ConfigError, match=r"^https://example.org/m.parquet: is a table"):
        sheet("https://me:hunter2@example.org/m.parquet")


def test_a_remote_dataset_gives_the_same_sheet(dataset):
    with served(dataset) as server:
        assert sheet(server.url, count=4) == sheet(dataset, count=4)


def test_a_remote_damaged_sample_is_named(dataset, tmp_path):
    copy = shutil.copytree(dataset, tmp_path / "copy")
    for shard in (copy / "shards").iterdir():
        shard.write_bytes(bytes(shard.stat().st_size))
    with served(copy) as server, pytest.raises(SampleError, match="digest"):
        sheet(server.url, count=3)


def test_the_command_writes_a_picture(dataset, tmp_path):
    out = tmp_path / "sheet.png"
    result = cli.invoke(app, ["preview", str(dataset), "-o", str(out), "--count", "4", "--columns", "2"])
    assert result.exit_code == 0
    assert _size(out.read_bytes())[0] < 3 * TILE_PX


def _red(tile):
    return (tile[..., 0].astype(int) - tile[..., 1] > 110) & (tile[..., 0] > 140)


SIDE, SPACING = st.integers(40, 200), st.floats(0.5, 2)
PLACE = st.floats(0.35, 0.65)


@settings(max_examples=25, deadline=None)
@given(SIDE, SIDE, SPACING, SPACING, PLACE, PLACE)
def test_outlines_lie_on_the_mask_border_in_millimetres(height, width, row_mm, col_mm, down, across):
    y, x = np.mgrid[:height, :width]
    mask = ((y / height - down) / 0.3) ** 2 + ((x / width - across) / 0.25) ** 2 <= 1
    red = _red(outlined(np.full((height, width), 90, np.uint8), [(mask, RED)], (row_mm, col_mm)))
    border = _border(mask, row_mm, col_mm)
    tolerance = 3 + 0.5 * TILE_PX / min(height, width)
    assert (ndimage.distance_transform_edt(~border)[red] <= tolerance).all()
    assert (ndimage.distance_transform_edt(~red)[border] <= tolerance).all()


def _border(mask, row_mm, col_mm):
    """Inner border of the mask, scaled by Pillow to its place in a tile."""
    height_mm, width_mm = mask.shape[0] * row_mm, mask.shape[1] * col_mm
    scale = TILE_PX / max(height_mm, width_mm)
    height, width = round(height_mm * scale), round(width_mm * scale)
    placed = np.zeros((TILE_PX, TILE_PX), bool)
    top, left = (TILE_PX - height) // 2, (TILE_PX - width) // 2
    scaled = Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST)
    placed[top : top + height, left : left + width] = np.asarray(scaled)
    return placed & ~ndimage.binary_erosion(placed)


def test_grey_and_colour_images_keep_their_colours():
    grey = outlined(np.full((20, 20), 77, np.uint8), [], (1, 1))
    assert (grey == 77).all()
    rgb = np.zeros((20, 20, 3), np.uint8)
    rgb[..., 0] = 200
    assert (outlined(rgb, [], (1, 1)) == (200, 0, 0)).all()


def test_the_pixel_aspect_is_honoured():
    tile = outlined(np.full((50, 50), 255, np.uint8), [], (1.0, 2.0))
    assert (tile[:, :, 0] == 255).sum() == TILE_PX * TILE_PX // 2
    assert tile[TILE_PX // 2, 0, 0] == 255
    assert tile[0, TILE_PX // 2, 0] == 0


def test_a_mask_of_one_pixel_in_a_large_image_is_visible():
    mask = np.zeros((1500, 1500), bool)
    mask[700, 300] = True
    red = _red(outlined(np.zeros((1500, 1500), np.uint8), [(mask, RED)], (1, 1)))
    ys, xs = np.nonzero(red)
    assert len(ys) > 10
    assert abs(ys.mean() - 700 * TILE_PX / 1500) < 2
    assert abs(xs.mean() - 300 * TILE_PX / 1500) < 2


def test_every_speck_of_a_mask_is_outlined_in_a_large_image():
    mask = np.zeros((3000, 3000), bool)
    for y in range(100, 3000, 400):
        mask[y : y + 3, y : y + 3] = mask[y : y + 3, 3000 - y : 3003 - y] = True
    tile = outlined(np.zeros(mask.shape, np.uint8), [(mask, RED)], (1, 1))
    red = tile[..., 0] > 100
    for y, x in np.argwhere(mask)[4::9] * TILE_PX // 3000:
        assert red[y - 2 : y + 3, x - 2 : x + 3].any()


def test_holes_are_outlined_and_an_empty_mask_is_nothing():
    mask = np.zeros((100, 100), bool)
    mask[20:80, 20:80] = True
    mask[40:60, 40:60] = False
    tile = outlined(np.zeros((100, 100), np.uint8), [(mask, RED)], (1, 1))
    assert cv2.connectedComponents(_red(tile).astype(np.uint8))[0] - 1 == 2
    empty = outlined(np.zeros((100, 100), np.uint8), [(np.zeros((100, 100), bool), RED)], (1, 1))
    assert not empty.any()


@given(st.integers(0, 40))
def test_labels_have_different_colours(count):
    colours = label_colours(count)
    assert len(set(colours)) == len(colours) == count
    assert all(max(colour) > 150 for colour in colours)


def test_a_picture_of_another_format_is_refused_before_anything_is_read(tmp_path):
    for arguments in (["preview", "nowhere", "-o"], ["stats", "nowhere", "--png"]):
        result = CliRunner().invoke(app, [*arguments, str(tmp_path / "sheet.jpg")])
        assert isinstance(result.exception, ConfigError)
        assert "end the name in .png" in str(result.exception)
    assert not list(tmp_path.iterdir())
