"""Names, types and meanings of the columns of ``manifest.parquet``, ``rejects.parquet`` and
``summary.parquet``.

This table is the single source: the Parquet schemas, the documentation and the tests are made from it.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import pyarrow as pa


class Column(NamedTuple):
    """One column: Arrow type name ("dictionary" is a dictionary-encoded string) and meaning with unit."""

    name: str
    type: str
    meaning: str


MANIFEST = (
    Column("key", "string", "sample key: member name without extension; unique in a dataset, holds no dot"),
    Column("shard", "dictionary", "shard file, relative to the dataset's folder"),
    Column("offset", "int64", "byte offset of the sample's first tar header in its shard"),
    Column("size", "int64", "bytes of the sample's two tar members, headers and padding included"),
    Column("digest", "uint64", "xxh3-64 of those bytes"),
    Column("annotation", "uint16", "index of the mask in the sample's JSON `annotations`"),
    Column("source", "dictionary", "source id"),
    Column("case", "string", "case id inside the source; a pseudonym unless the source keeps its ids"),
    Column("group", "string", "patient across sources: never in two splits"),
    Column("split", "dictionary", "train, val or test"),
    Column("modality", "dictionary", "ontology modality id"),
    Column("sequence", "dictionary", "ontology sequence id, or empty"),
    Column("channel", "dictionary", "image channel of a case with several images, or empty"),
    Column("region", "dictionary", "body region id"),
    Column("organ", "dictionary", "organ id"),
    Column("label", "dictionary", "ontology label id"),
    Column("laterality", "dictionary", "left, right or empty"),
    Column("lesion", "bool", "whether the label is a lesion"),
    Column("snomed", "dictionary", "SNOMED CT concept id, or empty where not verified"),
    Column(
        "organ_first",
        "bool",
        "whether it is its image's first mask of the organ: these rows count images by organ",
    ),
    Column("synthetic", "bool", "whether the image is generated, not measured"),
    Column(
        "instance",
        "uint32",
        "1-based number of the component or instance inside its label and slice (2D)"
        " or volume (3D); 0 for a whole label",
    ),
    Column("area_px", "uint32", "mask area, pixels"),
    Column("area_mm2", "float64", "mask area, square millimetres; null where the spacing is unknown"),
    Column("area_fraction", "float64", "mask area / image area, 0..1"),
    Column("x0", "uint16", "bounding box: first column"),
    Column("y0", "uint16", "bounding box: first row"),
    Column("x1", "uint16", "bounding box: last column + 1"),
    Column("y1", "uint16", "bounding box: last row + 1"),
    Column("touches_border", "bool", "whether the mask touches the image's border"),
    Column("height", "uint16", "image rows"),
    Column("width", "uint16", "image columns"),
    Column("row_spacing_mm", "float64", "distance of neighbouring rows, mm; null where unknown"),
    Column("col_spacing_mm", "float64", "distance of neighbouring columns, mm; null where unknown"),
    Column(
        "axis",
        "dictionary",
        "canonical axis that the slice is perpendicular to: x, y or z; empty for 2D sources",
    ),
    Column("slice_index", "uint32", "0-based index along the canonical (RAS+) axis"),
    Column("slice_count", "uint32", "planes of the volume along that axis"),
    Column("intensity_low", "float64", "source value that became 0; null for RGB"),
    Column("intensity_high", "float64", "source value that became 255; null for RGB"),
    Column("licence", "dictionary", "SPDX id or LicenseRef-… of the source"),
    Column("commercial", "bool", "whether commercial use is allowed; null where unknown"),
    Column("source_file", "string", "image file relative to the source's folder; a pseudonym like `case`"),
    Column(
        "source_sha256", "string", "SHA-256 of that file (of a DICOM series: of its files' digests in order)"
    ),
)

REJECTS = (
    Column("source", "dictionary", "source id"),
    Column("case", "string", "case id, as in the manifest"),
    Column("group", "string", "patient across sources"),
    Column("channel", "dictionary", "image channel, or empty"),
    Column("stage", "dictionary", "pair, read, label, slice, mask or pack"),
    Column("reason", "dictionary", "stable reason code"),
    Column("detail", "string", "what was found and expected, in words"),
    Column("axis", "dictionary", "x, y, z or empty"),
    Column("slice_index", "uint32", "null unless a slice or a mask"),
    Column("label", "dictionary", "ontology label id, or empty"),
    Column("instance", "uint32", "null unless a mask"),
    Column("area_px", "uint32", "null unless a mask"),
    Column("area_mm2", "float64", "null unless a mask with known spacing"),
    Column("area_fraction", "float64", "null unless a mask"),
    Column("x0", "uint16", "null unless a mask"),
    Column("y0", "uint16", "null unless a mask"),
    Column("x1", "uint16", "null unless a mask"),
    Column("y1", "uint16", "null unless a mask"),
    Column("measure", "float64", "the measured value that was judged"),
    Column("bound", "float64", "the bound that it missed"),
)

SUMMARY = (
    Column("source", "dictionary", "source id"),
    Column("split", "dictionary", "train, val or test"),
    Column("modality", "dictionary", "ontology modality id"),
    Column("label", "dictionary", "ontology label id"),
    Column("organ", "dictionary", "organ id, of the label"),
    Column("lesion", "bool", "whether the label is a lesion"),
    Column("licence", "dictionary", "SPDX id or LicenseRef-… of the source"),
    Column("commercial", "bool", "whether commercial use is allowed; null where unknown"),
    Column(
        "area_bin",
        "int8",
        "half-decade b of the masks' `area_fraction`: from 10^(b/2) to below 10^((b+1)/2); null where it is 0 or null",
    ),
    Column("masks", "int64", "masks of these"),
    Column("first_masks", "int64", "those that are their image's first: added up, they count images"),
    Column(
        "organ_images",
        "int64",
        "those that are their image's first of the organ: added up, they count images by organ",
    ),
)


@cache
def schema(columns: tuple[Column, ...]) -> pa.Schema:
    """The Arrow schema of ``MANIFEST``, ``REJECTS`` or ``SUMMARY``."""
    import pyarrow as pa

    types = {"dictionary": pa.dictionary(pa.int32(), pa.string()), "bool": pa.bool_()}
    return pa.schema([(c.name, types.get(c.type) or pa.type_for_alias(c.type)) for c in columns])
