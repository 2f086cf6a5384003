"""One case: its labels are measured once, then every image is cut, encoded and appended."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from medcurate.format import png, sample
from medcurate.format.keys import sample_key
from medcurate.format.shards import TarWriter
from medcurate.format.tables import first_in_sample, of_codes
from medcurate.job.grid import Grid
from medcurate.job.labels import AxisMasks, masks_by_axis, read_labels
from medcurate.job.picture import Picture, read_picture
from medcurate.job.rows import manifest_table
from medcurate.job.spec import Job, tar_path
from medcurate.readers.files import CaseFiles
from medcurate.stages.contiguous import each_plane
from medcurate.types import Case

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(slots=True)
class CaseResult:
    """What a case gave. Discovered slices are the annotated ones, once an image and axis."""

    digests: list[str] = field(default_factory=list)
    tables: list[pa.Table] = field(default_factory=list)
    refused: list[tuple[str, AxisMasks]] = field(default_factory=list)  # by channel
    slices_discovered: int = 0
    slices_written: int = 0
    masks_discovered: int = 0
    masks_written: int = 0


@dataclass(frozen=True, slots=True)
class _Cut:
    """One image along one axis."""

    job: Job
    case: Case
    grid: Grid
    picture: Picture
    found: AxisMasks


def write_case(job: Job, case: Case, files: CaseFiles, writer: TarWriter) -> CaseResult:
    """Append all samples of ``case`` to ``writer``. Raises CaseRejected; the caller then rolls the shard back."""
    grid, layers = read_labels(case, job.source, files)
    axes = list(masks_by_axis(grid, layers, job.recipe, job.source.frames))
    del layers  # frees the label volume before the image is read
    result = CaseResult()
    for image in case.images:
        picture = read_picture(job, case, image, grid, files)
        result.digests.append(picture.digest)
        if len(axes) > 1:
            picture = picture.all_grey()
        for found in axes:
            spacing_mm = picture.image_spacing_mm or found.spacing_mm
            cut = _Cut(job, case, grid, picture, dataclasses.replace(found, spacing_mm=spacing_mm))
            _write(cut, writer, result)
            result.refused.append((picture.channel, cut.found))
        del picture, cut  # the next image is read when this one's voxels are gone
    return result


def _write(cut: _Cut, writer: TarWriter, result: CaseResult) -> None:
    found = cut.found
    kept = np.flatnonzero(found.kept)
    slices, first, sample_of = np.unique(found.table.plane[kept], return_index=True, return_inverse=True)
    samples: dict[str, list[Any]] = {name: [] for name in ("key", "offset", "size", "digest", "slice_index")}
    for key, plane, blob in _encoded(cut, slices, np.split(kept, first)[1:]):
        values = (key, writer.append(blob), len(blob), sample.digest(blob), plane)
        for name, value in zip(samples, values, strict=True):
            samples[name].append(value)
    masks = _mask_columns(cut, kept)
    masks["annotation"] = np.arange(len(kept)) - first[sample_of] if len(kept) else kept
    masks["organ_first"] = first_in_sample(sample_of, masks["organ"].indices)
    result.tables.append(manifest_table(_constants(cut), samples, masks, sample_of))
    result.slices_discovered += found.annotated_count
    result.slices_written += len(slices)
    result.masks_discovered += len(found.kept)
    result.masks_written += len(kept)


def _encoded(
    cut: _Cut, slices: npt.NDArray[np.int32], members: Sequence[npt.NDArray[np.int64]]
) -> Iterator[tuple[str, int, bytes]]:
    """(key, plane, sample bytes) of every slice that keeps a mask; ``members``: its rows of the mask table."""
    planes = cut.grid.planes(cut.picture.voxels, cut.found.axis)
    shared = _image_info(cut)
    for (plane, voxels), rows in zip(each_plane(planes, slices.tolist()), members, strict=True):
        key = sample_key(cut.job.source.id, cut.case.id, cut.picture.channel, cut.found.axis or "", plane)
        image = {"image_id": key, "file_name": f"{key}.png", "slice_index": plane, **shared}
        info = {"image": image, "annotations": _annotations(cut.found, rows)}
        yield key, plane, sample.encode(key, png.encode(cut.picture.grey(voxels)), info)


def _image_info(cut: _Cut) -> dict[str, Any]:
    """The part of the JSON's ``image`` that all slices share; absent facts are left out."""
    found, picture = cut.found, cut.picture
    info: dict[str, Any] = {
        "width": found.width,
        "height": found.height,
        "source": cut.job.source.id,
        "case": cut.case.id,
        "modality": picture.modality,
        "sequence": picture.sequence,
        "channel": picture.channel,
        "axis": found.axis or "",
        "slice_count": found.slice_count,
        "spacing_mm": found.spacing_mm,
        "slice_spacing_mm": cut.grid.slice_spacing_mm(found.axis),
        "intensity": None
        if picture.intensity_low is None
        else (picture.intensity_low, picture.intensity_high),
        "licence": cut.job.source.licence.id,
    }
    return {name: value for name, value in info.items() if value is not None and value != ""}


def _annotations(found: AxisMasks, rows: npt.NDArray[np.int64]) -> list[dict[str, Any]]:
    table, size = found.table, [found.height, found.width]
    return [
        {
            "id": number,
            "label": table.label[row],
            "instance": int(table.instance[row]),
            "area": int(table.area_px[row]),
            "bbox": [
                int(table.x0[row]),
                int(table.y0[row]),
                int(table.x1[row] - table.x0[row]),
                int(table.y1[row] - table.y0[row]),
            ],
            "segmentation": {"size": size, "counts": table.rle[row].decode()},
        }
        for number, row in enumerate(rows.tolist())
    ]


def _constants(cut: _Cut) -> dict[str, Any]:
    source, picture, found = cut.job.source, cut.picture, cut.found
    row_mm, col_mm = found.spacing_mm or (None, None)
    return {
        "shard": tar_path(cut.job.parts, cut.job.id).name,
        "source": source.id,
        "case": cut.case.id,
        "group": cut.case.group,
        "split": cut.case.split,
        "modality": picture.modality,
        "sequence": picture.sequence,
        "channel": picture.channel,
        "synthetic": source.synthetic,
        "height": found.height,
        "width": found.width,
        "row_spacing_mm": row_mm,
        "col_spacing_mm": col_mm,
        "axis": found.axis or "",
        "slice_count": found.slice_count,
        "intensity_low": picture.intensity_low,
        "intensity_high": picture.intensity_high,
        "licence": source.licence.id,
        "commercial": source.licence.commercial_allowed,
        "source_file": picture.source_file,
        "source_sha256": picture.source_sha256,
    }


def _mask_columns(cut: _Cut, kept: npt.NDArray[np.int64]) -> dict[str, Any]:
    found, table = cut.found, cut.found.table
    label, area_px = table.label.take(kept), table.area_px[kept]
    terms = [cut.job.terms[name] for name in label.names]
    columns: dict[str, Any] = {
        name: of_codes(label.code, [getattr(term, name) for term in terms])
        for name in ("region", "organ", "label", "laterality", "snomed")
    }
    columns["lesion"] = np.array([term.lesion for term in terms], np.bool_)[label.code]
    columns |= {
        name: getattr(table, name)[kept] for name in ("instance", "x0", "y0", "x1", "y1", "touches_border")
    }
    return columns | {
        "area_px": area_px,
        "area_mm2": found.area_mm2(area_px),
        "area_fraction": area_px / (found.height * found.width),
    }
