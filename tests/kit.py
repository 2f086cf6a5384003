"""Builders of small datasets and volumes, shared by the tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pycocotools import mask as coco

from medcurate.commit import sha256_file
from medcurate.format import MANIFEST_FILE, REJECTS_FILE, png, sample
from medcurate.format.columns import MANIFEST, REJECTS
from medcurate.format.record import DatasetRecord, FileRecord
from medcurate.format.shards import shard_writer
from medcurate.format.tables import table, write_table

ORGANS = (("liver", "abdomen", False), ("kidney", "abdomen", False), ("lung", "thorax", True))


@dataclass(frozen=True)
class Piece:
    """One sample of a dataset made by ``write_dataset``."""

    key: str
    image: np.ndarray
    masks: np.ndarray
    split: str


def pieces(count: int, *, seed: int = 0, size: int = 64) -> list[Piece]:
    """``count`` random samples with one to three elliptic masks each, spread over the three splits."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    found = []
    for number in range(count):
        image = rng.integers(0, 256, (size, size), dtype=np.uint8)
        centres = rng.uniform(size * 0.25, size * 0.75, (rng.integers(1, 4), 2))
        radii = rng.uniform(size * 0.06, size * 0.2, (len(centres), 2))
        masks = np.stack([
            ((y - c[0]) / r[0]) ** 2 + ((x - c[1]) / r[1]) ** 2 <= 1
            for c, r in zip(centres, radii, strict=True)
        ])
        found.append(
            Piece(
                f"demo--case{number // 4:03d}--z{number % 4:04d}",
                image,
                masks,
                ("train", "train", "val", "test")[number // 4 % 4],
            )
        )
    return found


def write_dataset(folder: Path, samples: Sequence[Piece], *, per_shard: int = 8) -> Path:
    """Write ``samples`` as a dataset by the contract's own functions, with pycocotools' RLE."""
    rows: list[dict[str, object]] = []
    for split in ("train", "val", "test"):
        chosen = [piece for piece in samples if piece.split == split]
        for number, start in enumerate(range(0, len(chosen), per_shard)):
            name = f"shards/{split}-{number:06d}.tar"
            with shard_writer(folder / name) as writer:
                for piece in chosen[start : start + per_shard]:
                    rows.extend(_append(writer, name, piece))
    _write_tables(folder, rows)
    files = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    DatasetRecord(
        name="demo",
        made_by={"verb": "test"},
        sources={
            "demo": {
                "title": "Demo",
                "licence": "CC0-1.0",
                "commercial": "yes",
                "citation": "none",
                "homepage": "https://example.org",
            }
        },
        counts={
            "cases": {"written": len({p.key.split("--")[1] for p in samples}), "rejected": 1},
            "slices": {"written": len(samples), "rejected": 0},
            "masks": {"written": len(rows), "rejected": 0},
        },
        files={
            name: FileRecord((folder / name).stat().st_size, sha256_file(folder / name)) for name in files
        },
    ).write(folder)
    return folder


def _write_tables(folder: Path, rows: Sequence[dict[str, object]]) -> None:
    """The manifest, and a ledger of one refused case."""
    names = [column.name for column in MANIFEST]
    write_table(
        folder / MANIFEST_FILE, MANIFEST, [table(MANIFEST, {n: [row[n] for row in rows] for n in names})]
    )
    reject = dict.fromkeys((c.name for c in REJECTS), None) | {
        "source": "demo",
        "case": "case999",
        "group": "demo:case999",
        "channel": "",
        "stage": "read",
        "reason": "CORRUPT",
        "detail": "CRC differs",
        "axis": "",
        "label": "",
    }
    write_table(folder / REJECTS_FILE, REJECTS, [table(REJECTS, {n: [v] for n, v in reject.items()})])


def _append(writer, shard: str, piece: Piece) -> list[dict[str, object]]:
    """Write one sample; its manifest rows."""
    annotations, rows = _masks(piece)
    height, width = piece.image.shape[:2]
    info = {
        "image": {"image_id": piece.key, "file_name": f"{piece.key}.png", "height": height, "width": width},
        "annotations": annotations,
    }
    blob = sample.encode(piece.key, png.encode(piece.image), info)
    place = {"shard": shard, "offset": writer.append(blob), "size": len(blob), "digest": sample.digest(blob)}
    return [_image_facts(piece) | place | row for row in rows]


def _masks(piece: Piece) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """The annotations of a sample, and what its rows say of each mask."""
    height, width = piece.image.shape[:2]
    annotations, rows = [], []
    for number, mask in enumerate(piece.masks):
        organ, region, lesion = ORGANS[number % len(ORGANS)]
        text = coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
        ys, xs = np.nonzero(mask)
        x0, x1, y0, y1 = int(xs.min()), int(xs.max()) + 1, int(ys.min()), int(ys.max()) + 1
        area = int(mask.sum())
        annotations.append({
            "id": number,
            "label": organ,
            "area": area,
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "segmentation": {"size": [height, width], "counts": text},
        })
        rows.append({
            "annotation": number,
            "organ": organ,
            "region": region,
            "label": organ,
            "lesion": lesion,
            "organ_first": organ not in {row["organ"] for row in rows},
            "instance": number + 1,
            "area_px": area,
            "area_mm2": area * 0.5,
            "area_fraction": area / (height * width),
            "x0": x0,
            "y0": y0,
            "x1": x1,
            "y1": y1,
            "touches_border": x0 == 0 or y0 == 0 or x1 == width or y1 == height,
        })
    return annotations, rows


def _image_facts(piece: Piece) -> dict[str, object]:
    """What all rows of a sample share."""
    source, case, plane = piece.key.split("--")
    height, width = piece.image.shape[:2]
    return {
        "key": piece.key,
        "source": source,
        "case": case,
        "group": f"{source}:{case}",
        "split": piece.split,
        "modality": "ct" if int(case[4:]) % 2 == 0 else "mr",
        "sequence": "",
        "channel": "",
        "laterality": "",
        "snomed": "",
        "synthetic": True,
        "height": height,
        "width": width,
        "row_spacing_mm": 0.5,
        "col_spacing_mm": 1.0,
        "axis": plane[0],
        "slice_index": int(plane[1:]),
        "slice_count": 4,
        "intensity_low": -500.0,
        "intensity_high": 1000.0,
        "licence": "CC0-1.0",
        "commercial": True,
        "source_file": f"{case}.nii.gz",
        "source_sha256": "0" * 64,
    }
