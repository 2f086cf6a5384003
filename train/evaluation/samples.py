"""What is scored: selected samples of a dataset with their masks at original size, and the facts of every mask."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from medcurate.format import MANIFEST_FILE, png, rle
from medcurate.format.sample import SampleError, split_members
from medcurate.storage import Location
from medcurate.train.stream.index import Index
from medcurate.train.stream.reading import Reader

FACTS = (
    "key", "annotation", "source", "case", "group", "split", "modality", "sequence", "channel", "organ", "label",
    "lesion", "instance", "area_px", "height", "width", "row_spacing_mm", "col_spacing_mm", "axis", "slice_index",
)  # fmt: skip
"""Columns of the manifest that scores carry on."""

_PLACE = ("shard", "offset", "annotation")
_AHEAD = 32  # samples that are asked for together


@dataclass(frozen=True, slots=True)
class Scored:
    """One sample: ``image`` uint8 (H, W) or (H, W, 3), ``masks`` bool (n, H, W), ``annotations`` their indices.

    ``counts``: the masks as COCO compressed run lengths. ``first_row``: of its masks in ``mask_facts``.
    ``slice_spacing_mm``: None where the sample does not say.
    """

    key: str
    image: npt.NDArray[np.uint8]
    masks: npt.NDArray[np.bool_]
    annotations: tuple[int, ...]
    counts: tuple[bytes, ...]
    first_row: int
    slice_spacing_mm: float | None


def mask_facts(dataset: Location, index: Index, split: str) -> pa.Table:
    """One row for every selected mask with the columns ``FACTS``, in the order of the index."""
    columns = list(dict.fromkeys((*_PLACE, *FACTS)))
    with dataset.member(MANIFEST_FILE).open() as stream:
        rows = pq.read_table(stream, columns=columns, filters=[("split", "=", split)] if split else None)
    rows = _plain(rows)
    found = rows.join(_selected(index), keys=list(_PLACE), join_type="inner")
    return found.sort_by("row").select(FACTS).combine_chunks()


def samples(dataset: Location, index: Index, part: range) -> Iterator[Scored]:
    """Samples ``part`` of the index, in its order; rows count from its first. Raises BadSampleError, SampleError."""
    reader = Reader(dataset, index, threads=2)
    first_row = 0
    try:
        for start in range(part.start, part.stop, _AHEAD):
            numbers = np.arange(start, min(start + _AHEAD, part.stop))
            for number, wanted in zip(numbers.tolist(), reader.ask(numbers), strict=True):
                one = _decoded(bytes(wanted()), index.annotations(number), first_row)
                first_row += len(one.annotations)
                yield one
    finally:
        reader.close()


def read_one(dataset: Location, index: Index, number: int, first_row: int) -> Scored:
    """Sample ``number`` of the index alone."""
    reader = Reader(dataset, index, threads=0)
    (wanted,) = reader.ask(np.array([number]))
    return _decoded(bytes(wanted()), index.annotations(number), first_row)


def _decoded(blob: bytes, annotations: npt.NDArray[np.uint16], first_row: int) -> Scored:
    key, image_png, info = split_members(blob)
    wanted = tuple(annotations.tolist())
    try:
        image = png.decode(image_png)
        texts = [info["annotations"][at]["segmentation"]["counts"].encode() for at in wanted]
        masks = rle.decode_many(texts, image.shape[0], image.shape[1])
        spacing = info["image"].get("slice_spacing_mm")
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise SampleError(f"sample {key} is damaged: {error}") from error
    return Scored(
        key, image, masks, wanted, tuple(texts), first_row, None if spacing is None else float(spacing)
    )


def _plain(table: pa.Table) -> pa.Table:
    """Dictionary columns as strings: Arrow joins no others."""
    fields = [
        field.with_type(pa.string()) if pa.types.is_dictionary(field.type) else field
        for field in table.schema
    ]
    return table.cast(pa.schema(fields))


def _selected(index: Index) -> pa.Table:
    """Place of every selected mask: shard, offset and annotation; ``row``: its number in the index's order."""
    lists = [index.annotations(number) for number in range(len(index))]
    shards = pa.DictionaryArray.from_arrays(pa.array(index.shard), pa.array(index.shards, pa.string()))
    repeated = np.repeat(np.arange(len(index)), [len(one) for one in lists])
    return pa.table({
        "shard": pc.cast(shards.take(pa.array(repeated)), pa.string()),
        "offset": pa.array(index.offset[repeated]),
        "annotation": pa.array(np.concatenate(lists), pa.uint16()),
        "row": pa.array(np.arange(len(repeated))),
    })
