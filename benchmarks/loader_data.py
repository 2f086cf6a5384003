"""The same samples for all loaders: a medcurate pack, one PNG a mask, and litdata's chunks."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from medcurate.commit import sha256_file
from medcurate.format import MANIFEST_FILE, REJECTS_FILE, png, rle, sample
from medcurate.format.columns import MANIFEST, REJECTS
from medcurate.format.record import DatasetRecord, FileRecord
from medcurate.format.shards import shard_writer
from medcurate.format.tables import table, write_table

SIDE_PX, MASKS, SAMPLES_PER_SHARD = 256, 5, 500


def write_all(folder: Path, samples: int) -> None:
    """``folder/pack``, ``folder/files`` and ``folder/lit``."""
    made = [_sample(np.random.default_rng([7, number])) for number in range(samples)]
    blobs = _write_pack(folder / "pack", made)
    _write_files(folder / "files", made)
    _write_lit(folder / "lit", blobs)


def _sample(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A grey image with the grain of a scan, and five overlapping wobbly regions of 0.2 to 15 % of it."""
    side = SIDE_PX
    smooth = cv2.GaussianBlur(rng.normal(0, 1, (side, side)).astype(np.float32), (0, 0), 9)
    image = 110 + 70 * smooth / np.abs(smooth).max() + rng.normal(0, 4, (side, side))
    y, x = np.mgrid[:side, :side]
    centres, radii = rng.uniform(0.2, 0.8, (MASKS, 2)) * side, rng.uniform(0.03, 0.22, (MASKS, 2)) * side
    angle = np.arctan2(y[None] - centres[:, :1, None], x[None] - centres[:, 1:, None])
    wobble = 1 + 0.15 * np.sin(angle * rng.integers(3, 9, (MASKS, 1, 1)))
    distance = ((y - centres[:, :1, None]) / radii[:, :1, None]) ** 2
    distance = distance + ((x - centres[:, 1:, None]) / radii[:, 1:, None]) ** 2
    return image.clip(0, 255).astype(np.uint8), distance <= wobble


def _write_pack(folder: Path, made: list[tuple[np.ndarray, np.ndarray]]) -> list[bytes]:
    rows: dict[str, list[object]] = {column.name: [] for column in MANIFEST}
    blobs = []
    for first in range(0, len(made), SAMPLES_PER_SHARD):
        shard = f"shards/train-{first // SAMPLES_PER_SHARD:06d}.tar"
        with shard_writer(folder / shard) as writer:
            for number, (image, masks) in enumerate(made[first : first + SAMPLES_PER_SHARD], first):
                key = f"bench--{number:06d}"
                info = _info(key, masks)
                blobs.append(sample.encode(key, png.encode(image), info))
                place = {"shard": shard, "offset": writer.append(blobs[-1]), "size": len(blobs[-1])}
                place |= {"key": key, "digest": sample.digest(blobs[-1])}
                _append(rows, place, masks)
    write_table(folder / MANIFEST_FILE, MANIFEST, [table(MANIFEST, rows)])
    write_table(folder / REJECTS_FILE, REJECTS, [table(REJECTS, {column.name: [] for column in REJECTS})])
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    files = {
        path.relative_to(folder).as_posix(): FileRecord(path.stat().st_size, sha256_file(path))
        for path in paths
    }
    record = DatasetRecord(name="bench", made_by={}, sources={}, counts={}, files=files)
    record.write(folder)
    return blobs


def _info(key: str, masks: np.ndarray) -> dict[str, object]:
    annotations = []
    for number, (mask, counts) in enumerate(zip(masks, rle.encode_many(masks), strict=True)):
        segmentation = {"size": [SIDE_PX, SIDE_PX], "counts": counts.decode()}
        x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
        annotations.append({
            "id": number, "label": "organ", "instance": 1, "area": int(mask.sum()),
            "bbox": [x, y, width, height], "segmentation": segmentation,
        })  # fmt: skip
    image = {
        "image_id": key,
        "file_name": f"{key}.png",
        "width": SIDE_PX,
        "height": SIDE_PX,
        "modality": "ct",
    }
    return {"image": image, "annotations": annotations}


def _append(rows: dict[str, list[object]], place: dict[str, object], masks: np.ndarray) -> None:
    blank: dict[str, object] = {"string": "", "dictionary": "", "bool": False, "float64": 0.0}
    for number in range(len(masks)):
        facts = place | {"annotation": number, "split": "train", "height": SIDE_PX, "width": SIDE_PX}
        for column in MANIFEST:
            rows[column.name].append(facts.get(column.name, blank.get(column.type, 0)))


def _write_files(folder: Path, made: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """``images/<n>.png``, ``masks/<n>_<k>.png`` (0 and 255) and a JSON of which belongs to which."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    pairs = {}
    for number, (image, masks) in enumerate(made):
        name = str(folder / "images" / f"{number}.png")
        cv2.imwrite(name, image)
        pairs[name] = [str(folder / "masks" / f"{number}_{place}.png") for place in range(len(masks))]
        for path, mask in zip(pairs[name], masks, strict=True):
            cv2.imwrite(path, mask.astype(np.uint8) * 255)
    (folder / "image2label_train.json").write_text(json.dumps(pairs))


def _write_lit(folder: Path, blobs: list[bytes]) -> None:
    """litdata's own chunks of 64 MB: the same PNG and JSON bytes."""
    from litdata.streaming import Cache

    folder.mkdir()
    cache = Cache(str(folder), chunk_bytes="64MB")
    for number, blob in enumerate(blobs):
        _, image, info = sample.split_members(blob)
        cache[number] = {"png": bytes(image), "json": json.dumps(info).encode()}
    cache.done()
    cache.merge()
