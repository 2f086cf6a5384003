"""A manifest of any size with the shape of a large packed dataset, for measurements.

Rows follow SA-Med2D-20M: 19.7 M masks on 4.6 M images, 10 modalities, over a hundred sources. Samples are
in shuffled order, as ``pack`` writes them, which is the hard case for compression and for pruning.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from medcurate.commit import sha256_file
from medcurate.format import MANIFEST_FILE
from medcurate.format.columns import MANIFEST, REJECTS, schema
from medcurate.format.record import DatasetRecord, FileRecord
from medcurate.format.tables import first_in_sample, write_table
from medcurate.pack.database import database
from medcurate.pack.tables import TABLES, write_summary

MODALITIES = (
    "ct",
    "mr",
    "ultrasound",
    "xray",
    "fundus",
    "dermoscopy",
    "endoscopy",
    "microscopy",
    "pet",
    "oct",
)
MODALITY_SHARE = (0.55, 0.25, 0.05, 0.04, 0.03, 0.03, 0.02, 0.01, 0.01, 0.01)
LICENCES = (
    "CC-BY-4.0",
    "CC-BY-NC-SA-4.0",
    "CC0-1.0",
    "CC-BY-SA-4.0",
    "LicenseRef-research-only",
    "unresolved",
)
COMMERCIAL = (True, False, True, True, False, None)
REASONS = ("AREA", "ASPECT", "NO_MASK_LEFT", "CORRUPT", "GEOMETRY", "UNPAIRED")
STAGES = ("mask", "slice", "slice", "read", "label", "pair")
REGIONS = ("abdomen", "thorax", "head-neck", "pelvis", "other")
SIDES = (128, 256, 384, 512, 640, 1024)
SOURCES, ORGANS, LABELS_PER_ORGAN, SEQUENCES = 120, 60, 3, 4
MASKS_PER_SAMPLE, SAMPLES_PER_CASE, SAMPLES_PER_SHARD = 4.3, 15, 4000
CHUNK_SAMPLES = 120_000


def write_manifest(path: Path, rows: int, *, seed: int = 0) -> None:
    """Write ``rows`` masks to ``path`` in chunks; memory stays under about 1 GB whatever ``rows`` is."""
    write_table(path, MANIFEST, _manifest_chunks(rows, np.random.default_rng(seed)))


def write_rejects(path: Path, rows: int, *, seed: int = 0) -> None:
    """Write ``rows`` refusals to ``path``."""
    rng = np.random.default_rng(seed)
    kind = rng.choice(len(REASONS), rows, p=(0.7, 0.12, 0.1, 0.03, 0.03, 0.02)).astype(np.int32)
    columns: dict[str, pa.Array] = {
        "source": _dictionary(rng.integers(0, SOURCES, rows), [f"source-{i:03d}" for i in range(SOURCES)]),
        "reason": _dictionary(kind, REASONS),
        "stage": _dictionary(kind, STAGES),
    }
    target = schema(REJECTS)
    arrays = [columns.get(f.name, pa.nulls(rows, f.type)) for f in target]
    write_table(path, REJECTS, [pa.table(arrays, schema=target)])


def write_record(folder: Path) -> float:
    """Give the tables in ``folder`` their summary, by the product's own writer, and a record; seconds of the former."""
    with tempfile.TemporaryDirectory() as work, database(Path(work), [folder / MANIFEST_FILE]) as connection:
        start = time.perf_counter()
        write_summary(connection, folder, Path(work))
        seconds = time.perf_counter() - start
    files = {name: FileRecord((folder / name).stat().st_size, sha256_file(folder / name)) for name in TABLES}
    made_by = {"verb": "benchmark"}
    DatasetRecord(name=folder.name, made_by=made_by, sources={}, counts={}, files=files).write(folder)
    return seconds


def _manifest_chunks(rows: int, rng: np.random.Generator) -> Iterator[pa.Table]:
    cases = max(int(rows / MASKS_PER_SAMPLE / SAMPLES_PER_CASE), SOURCES)
    first_sample = 0
    while rows:
        masks_in_sample = 1 + rng.poisson(MASKS_PER_SAMPLE - 1, CHUNK_SAMPLES)
        table = _chunk(masks_in_sample, first_sample, cases, rng).slice(0, rows)
        yield table
        rows -= table.num_rows
        first_sample += CHUNK_SAMPLES


def _chunk(masks_in_sample: np.ndarray, first_sample: int, cases: int, rng: np.random.Generator) -> pa.Table:
    """One table of whole samples; per-sample columns are made once and repeated for their masks."""
    samples = len(masks_in_sample)
    shared = _sample_columns(first_sample, samples, cases, rng)
    of_sample = np.repeat(np.arange(samples), masks_in_sample)
    starts = np.repeat(np.cumsum(masks_in_sample) - masks_in_sample, masks_in_sample)
    source = shared.pop("_source")
    side = shared.pop("_side")
    columns = {name: array.take(pa.array(of_sample)) for name, array in shared.items()}
    columns |= _mask_columns(source[of_sample], side[of_sample], rng)
    organs = columns["organ"].indices.to_numpy().astype(np.int64)
    columns["organ_first"] = pa.array(first_in_sample(of_sample, organs))
    columns["annotation"] = pa.array((np.arange(len(of_sample)) - starts).astype(np.uint16))
    target = schema(MANIFEST)
    return pa.table([columns[f.name] for f in target], schema=target)


def _sample_columns(first: int, count: int, cases: int, rng: np.random.Generator) -> dict[str, object]:
    case = rng.integers(0, cases, count)
    traits = np.random.default_rng(1)  # of sources and cases: the same in every chunk
    share = 1 / (np.arange(SOURCES) + 4.0)
    case_source = traits.choice(SOURCES, cases, p=share / share.sum()).astype(np.int32)
    source_modality = traits.choice(len(MODALITIES), SOURCES, p=MODALITY_SHARE).astype(np.int32)
    source_licence = traits.choice(len(LICENCES), SOURCES, p=(0.4, 0.2, 0.1, 0.1, 0.15, 0.05)).astype(
        np.int32
    )
    source_side = traits.choice(SIDES, SOURCES, p=(0.1, 0.25, 0.05, 0.45, 0.05, 0.1)).astype(np.uint16)
    source = case_source[case]
    licence, side = source_licence[source], source_side[source]
    number = first + np.arange(count)
    spacing = 0.4 + (case % 64) / 64
    split = np.searchsorted((0.8, 0.9), (case * 2654435761 % 2**32) / 2**32).astype(np.int32)
    case_text = pc.binary_join_element_wise("case", pc.utf8_lpad(_text(case), 6, "0"), "")
    plane = rng.integers(0, 200, count)
    source_names = pa.array([f"source-{i:03d}" for i in range(SOURCES)])
    source_text = source_names.take(pa.array(source))
    plane_text = pc.binary_join_element_wise("z", pc.utf8_lpad(_text(plane), 4, "0"), "")
    shards = [
        f"shards/train-{i:06d}.tar"
        for i in range(first // SAMPLES_PER_SHARD, (first + count) // SAMPLES_PER_SHARD + 1)
    ]
    commercial = pa.array(COMMERCIAL, pa.bool_())
    return {
        "_source": source,
        "_side": side,
        "key": pc.binary_join_element_wise(source_text, case_text, plane_text, "--"),
        "shard": _dictionary(number // SAMPLES_PER_SHARD - first // SAMPLES_PER_SHARD, shards),
        "offset": pa.array(number % SAMPLES_PER_SHARD * 65536 + rng.integers(0, 60, count) * 512),
        "size": pa.array(rng.integers(40, 128, count) * 512),
        "digest": pa.array(rng.integers(0, 2**64, count, dtype=np.uint64)),
        "source": _dictionary(source, source_names),
        "case": case_text,
        "group": pc.binary_join_element_wise(source_text, case_text, ":"),
        "split": _dictionary(split, ("train", "val", "test")),
        "modality": _dictionary(source_modality[source], MODALITIES),
        "sequence": _dictionary(case % SEQUENCES, [f"sequence-{i}" for i in range(SEQUENCES)]),
        "channel": _dictionary(np.zeros(count), ("",)),
        "synthetic": pa.repeat(pa.scalar(False), count),
        "height": pa.array(side),
        "width": pa.array(side),
        "row_spacing_mm": pa.array(spacing),
        "col_spacing_mm": pa.array(spacing),
        "axis": _dictionary(np.zeros(count), ("z",)),
        "slice_index": pa.array(plane.astype(np.uint32)),
        "slice_count": pa.array(np.full(count, 200, np.uint32)),
        "intensity_low": pa.array(np.full(count, -500.0)),
        "intensity_high": pa.array(np.full(count, 1000.0)),
        "licence": _dictionary(licence, LICENCES),
        "commercial": commercial.take(pa.array(licence)),
        "source_file": pc.binary_join_element_wise(case_text, ".nii.gz", ""),
        "source_sha256": pc.utf8_lpad(case_text, 64, "a"),
    }


def _mask_columns(source: np.ndarray, side: np.ndarray, rng: np.random.Generator) -> dict[str, object]:
    count = len(source)
    organ = (source * 7 + np.minimum(rng.geometric(0.25, count) - 1, 11)) % ORGANS
    label = organ * LABELS_PER_ORGAN + np.minimum(rng.geometric(0.6, count) - 1, LABELS_PER_ORGAN - 1)
    fraction = np.clip(rng.lognormal(-4.2, 1.4, count), 2e-5, 0.9)
    area = np.maximum((fraction * side.astype(np.float64) ** 2).astype(np.uint32), 4)
    extent = np.minimum(np.sqrt(area * 1.6).astype(np.int64) + 1, side)
    x0, y0 = ((rng.random(count) * (side - extent)).astype(np.int64) for _ in range(2))
    organs = [f"organ-{i:02d}" for i in range(ORGANS)]
    labels = [
        f"organ-{i // LABELS_PER_ORGAN:02d}-part-{i % LABELS_PER_ORGAN}"
        for i in range(ORGANS * LABELS_PER_ORGAN)
    ]
    return {
        "region": _dictionary(organ % len(REGIONS), REGIONS),
        "organ": _dictionary(organ, organs),
        "label": _dictionary(label, labels),
        "laterality": _dictionary(label % 3, ("", "left", "right")),
        "lesion": pa.array(label % LABELS_PER_ORGAN == LABELS_PER_ORGAN - 1),
        "snomed": _dictionary(organ, [str(10_200_000 + i) for i in range(ORGANS)]),
        "instance": pa.array((1 + rng.poisson(0.3, count)).astype(np.uint32)),
        "area_px": pa.array(area),
        "area_mm2": pa.array(area * 0.5),
        "area_fraction": pa.array(area / side.astype(np.float64) ** 2),
        "x0": pa.array(x0.astype(np.uint16)),
        "y0": pa.array(y0.astype(np.uint16)),
        "x1": pa.array((x0 + extent).astype(np.uint16)),
        "y1": pa.array((y0 + extent).astype(np.uint16)),
        "touches_border": pa.array((x0 == 0) | (y0 == 0)),
    }


def _dictionary(codes: np.ndarray, values: object) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), pa.array(values, pa.string()))


def _text(numbers: np.ndarray) -> pa.Array:
    return pa.array(numbers).cast(pa.string())
