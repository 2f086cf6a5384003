"""A contact sheet: samples of a dataset with the outlines of their masks, spread over modalities and organs.

Tiles have one size; an image keeps its proportions in millimetres where the row states its spacing.
"""

from __future__ import annotations

import colorsys
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import xxhash
from duckdb import DuckDBPyConnection
from PIL import Image, ImageDraw

from medcurate.errors import ConfigError
from medcurate.explore.marks import font, shortened
from medcurate.explore.query import connect, stream
from medcurate.format import sample
from medcurate.format.shards import read_sample
from medcurate.storage import Location, locate

TILE_PX = 320
_FINE = 2  # outlines are drawn at this multiple and scaled down
_OUTLINE_PX, _HALO_PX = 1.6, 3.6
_GAP_PX, _CAPTION_PX, _TEXT_PX, _LINE_PX = 18, 64, 14, 19
_MARKED_BELOW_PX = 6  # a mask smaller than this in the tile gets a ring around it, or nobody would see it
_GROUND, _MATTE, _INK, _MUTED = (24, 29, 35), (0, 0, 0), (232, 236, 240), (150, 161, 173)
_COLOURS = (
    (255, 82, 82), (64, 196, 255), (255, 214, 64), (105, 225, 130), (255, 140, 220), (178, 140, 255),
    (255, 160, 70), (45, 226, 214), (200, 240, 80), (255, 120, 130), (120, 160, 255), (235, 190, 160),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Chosen:
    """One sample of the sheet: its place in a shard, its facts, and the masks to outline."""

    row: Mapping[str, Any]
    labels: Mapping[int, str]  # index in the sample's annotations -> label


def sheet(dataset: str | Path, *, where: str = "", count: int = 24, columns: int = 6, seed: int = 0) -> bytes:
    """The contact sheet of up to ``count`` samples as PNG bytes; equal arguments give equal bytes.

    ``where``: SQL condition on the manifest; only masks that fulfil it are outlined. ``seed`` chooses other
    samples. Raises ConfigError for a table in a dataset's place, a wrong condition or when nothing fulfils it,
    SampleError for a damaged sample, StorageError when a shard cannot be read.
    """
    folder = locate(dataset)
    if folder.url.endswith(".parquet"):
        raise ConfigError(f"{folder}: is a table, and pictures are in shards; name the folder of the dataset")
    with connect(dataset) as connection:
        chosen = choose(connection, where, count, seed)
    if not chosen:
        raise ConfigError(
            f"preview: no mask fulfils --where {where}" if where else "preview: the dataset is empty"
        )
    names = sorted({label for one in chosen for label in one.labels.values()})
    colours = dict(zip(names, label_colours(len(names)), strict=True))
    tiles = [_tile(folder, one, colours) for one in chosen]
    stream_out = io.BytesIO()
    _arranged(tiles, columns).save(stream_out, "PNG")
    return stream_out.getvalue()


def choose(connection: DuckDBPyConnection, where: str, count: int, seed: int) -> list[Chosen]:
    """Up to ``count`` samples, in turn from every pair of modality and organ that fulfils ``where``.

    The draw of a sample is its digest (uniform over 64 bits) combined with a hash of the seed, so it depends
    on the seed and the sample alone.
    """
    condition = f"(\n{where}\n)" if where else "true"
    mask = xxhash.xxh3_64_intdigest(str(seed).encode())
    strata = stream(
        connection,
        f"""SELECT min_by(digest, xor(digest, {mask}::UBIGINT), {count}) AS digests
            FROM (SELECT DISTINCT modality, organ, digest FROM manifest WHERE {condition})
            GROUP BY modality, organ ORDER BY modality, organ""",
    ).read_all()
    digests = _in_turn(strata.column("digests").to_pylist(), count)
    if not digests:
        return []
    rows = stream(
        connection,
        f"""SELECT key, shard, "offset", size, digest, source, split, modality, axis, slice_index,
                   row_spacing_mm, col_spacing_mm, annotation, label
            FROM manifest WHERE {condition} AND digest IN ({", ".join(map(str, digests))})
            ORDER BY key, annotation""",
    ).read_all()
    found: dict[int, list[dict[str, Any]]] = {}
    for row in rows.to_pylist():
        found.setdefault(row["digest"], []).append(row)
    return [
        Chosen(found[digest][0], {row["annotation"]: row["label"] for row in found[digest]})
        for digest in digests
    ]


def label_colours(count: int) -> list[tuple[int, int, int]]:
    """``count`` distinct bright RGB colours; beyond the hand-picked ones, hues at the golden angle."""
    more = (colorsys.hsv_to_rgb(0.08 + number * 0.618034 % 1, 0.6, 1.0) for number in range(count))
    extra = [(round(r * 255), round(g * 255), round(b * 255)) for r, g, b in more]
    return [*_COLOURS, *extra][:count]


def outlined(
    image: npt.NDArray[np.uint8],
    masks: Iterable[tuple[npt.NDArray[np.bool_], tuple[int, int, int]]],
    spacing_mm: tuple[float, float],
) -> npt.NDArray[np.uint8]:
    """uint8 (TILE_PX, TILE_PX, 3) RGB: the image letterboxed, each mask outlined in its colour.

    ``image``: uint8 (H, W) or (H, W, 3) RGB. ``masks``: bool (H, W) with RGB colours.
    ``spacing_mm``: distance of rows and of columns; only their ratio matters.
    """
    height, width = _fitted(image.shape[0] * spacing_mm[0], image.shape[1] * spacing_mm[1])
    rgb = np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image
    fine_hw = (height * _FINE, width * _FINE)
    smaller = fine_hw[0] * fine_hw[1] < rgb.shape[0] * rgb.shape[1]
    method = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
    canvas = cv2.resize(rgb, fine_hw[::-1], interpolation=method)
    outlines = [(_contours(mask, fine_hw), colour) for mask, colour in masks]
    for paths, _ in outlines:
        cv2.polylines(canvas, paths, True, (0, 0, 0), round(_HALO_PX * _FINE), cv2.LINE_AA)
    for paths, colour in outlines:
        cv2.polylines(canvas, paths, True, colour, round(_OUTLINE_PX * _FINE), cv2.LINE_AA)
    tile = np.full((TILE_PX, TILE_PX, 3), _MATTE, np.uint8)
    top, left = (TILE_PX - height) // 2, (TILE_PX - width) // 2
    tile[top : top + height, left : left + width] = cv2.resize(
        canvas, (width, height), interpolation=cv2.INTER_AREA
    )
    return tile


def _contours(mask: npt.NDArray[np.bool_], size_hw: tuple[int, int]) -> list[npt.NDArray[np.int32]]:
    """Closed outlines (N, 1, 2) as (x, y), of the mask scaled to ``size_hw``; a ring around a tiny mask."""
    ys, xs = np.nonzero(mask)
    if not len(ys):
        return []
    scale_y, scale_x = size_hw[0] / mask.shape[0], size_hw[1] / mask.shape[1]
    extent = max((np.ptp(ys) + 1) * scale_y, (np.ptp(xs) + 1) * scale_x)
    if extent < _MARKED_BELOW_PX * _FINE:
        centre = (round((xs.mean() + 0.5) * scale_x), round((ys.mean() + 0.5) * scale_y))
        ring = np.asarray(cv2.ellipse2Poly(centre, (_MARKED_BELOW_PX * _FINE,) * 2, 0, 0, 360, 10), np.int32)
        return [ring.reshape(-1, 1, 2)]
    if max(scale_y, scale_x) < 1:  # what is thin or small there would fall between the pixels here
        paths = _outer_and_inner(mask.astype(np.uint8))
        return [np.rint((path + 0.5) * (scale_x, scale_y) - 0.5).astype(np.int32) for path in paths]
    scaled = cv2.resize(mask.astype(np.float32), size_hw[::-1], interpolation=cv2.INTER_LINEAR)
    return _outer_and_inner((scaled >= 0.5).astype(np.uint8))


def _outer_and_inner(mask: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.int32]]:
    paths, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    return [np.asarray(path, np.int32) for path in paths]


def _tile(dataset: Location, one: Chosen, colours: Mapping[str, tuple[int, int, int]]) -> Image.Image:
    row = one.row
    decoded = sample.decode(_blob(dataset, row))
    spacing = (row["row_spacing_mm"] or 1.0, row["col_spacing_mm"] or 1.0)
    pairs = [(decoded.masks[index], colours[label]) for index, label in sorted(one.labels.items())]
    picture = Image.new("RGB", (TILE_PX, TILE_PX + _CAPTION_PX), _GROUND)
    picture.paste(Image.fromarray(outlined(decoded.image, pairs, spacing)))
    canvas = ImageDraw.Draw(picture)
    plane = f"{row['axis']} {row['slice_index']}" if row["axis"] else "2D"
    _write(canvas, 0, [(row["source"], _INK)])
    _write(canvas, 1, [(f"{row['modality']}   {plane}   {row['split']}", _MUTED)])
    _write(canvas, 2, [(name, colours[name]) for name in sorted(set(one.labels.values()))])
    return picture


def _write(canvas: ImageDraw.ImageDraw, line: int, parts: Sequence[tuple[str, tuple[int, int, int]]]) -> None:
    """One caption line of coloured parts; what does not fit is counted."""
    x, y, text_font = 2.0, TILE_PX + 8 + line * _LINE_PX, font(_TEXT_PX)
    for number, (text, colour) in enumerate(parts):
        left = len(parts) - number
        room = TILE_PX - x - (30 if left > 1 else 0)
        if number and text_font.getlength(text) > room:
            canvas.text((x, y), f"+{left}", fill=_MUTED, font=text_font)
            return
        shown = shortened(text, TILE_PX - x, _TEXT_PX)
        canvas.text((x, y), shown, fill=colour, font=text_font)
        x += text_font.getlength(shown) + 10


def _blob(dataset: Location, row: Mapping[str, Any]) -> bytes:
    shard = dataset.member(row["shard"])
    try:
        if not shard.is_local:
            blob = shard.read_range(row["offset"], row["size"])
            if sample.digest(blob) != row["digest"]:
                raise sample.SampleError("the bytes differ from the manifest's digest")
            return blob
        with shard.open() as file:
            return read_sample(file.fileno(), row["offset"], row["size"], row["digest"])
    except sample.SampleError as error:
        raise sample.SampleError(
            f"{row['shard']}: sample {row['key']}: {error}. Run medcurate verify on the dataset."
        ) from error


def _arranged(tiles: Sequence[Image.Image], columns: int) -> Image.Image:
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    width, height = tiles[0].size
    page = Image.new(
        "RGB", (columns * (width + _GAP_PX) + _GAP_PX, rows * (height + _GAP_PX) + _GAP_PX), _GROUND
    )
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        page.paste(tile, (_GAP_PX + column * (width + _GAP_PX), _GAP_PX + row * (height + _GAP_PX)))
    return page


def _fitted(height: float, width: float) -> tuple[int, int]:
    """Whole pixels of the largest rectangle of these proportions in a tile."""
    scale = TILE_PX / max(height, width)
    return max(round(height * scale), 1), max(round(width * scale), 1)


def _in_turn(strata: Sequence[Sequence[int]], count: int) -> list[int]:
    """Round after round one of each stratum, each at most once."""
    turns = (
        stratum[turn]
        for turn in range(max(map(len, strata), default=0))
        for stratum in strata
        if turn < len(stratum)
    )
    return list(dict.fromkeys(turns))[:count]
