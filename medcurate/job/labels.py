"""A case's labels as measured, judged masks, axis by axis; they are shared by all images of the case."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from medcurate.config.recipe import Recipe
from medcurate.config.source import Source
from medcurate.decoders import DECODERS
from medcurate.errors import Reason
from medcurate.job.grid import Grid, check_grid, grid_of
from medcurate.readers import READERS
from medcurate.readers.files import CaseFiles
from medcurate.registry import load
from medcurate.stages.masks import MaskTable, annotated, find_masks, join, judge
from medcurate.stages.planes import aspect, resolve_axes
from medcurate.types import Array, Case, LabelLayer, Reject


@dataclass(slots=True, kw_only=True)
class AxisMasks:
    """All masks of a case along one axis, sorted by plane, then layer, term and instance.

    ``spacing_mm``: (row, column) of the planes, None where unknown. ``rejects``: refused masks, planes
    without a kept mask, or, below the aspect bound, all annotated planes (then ``table`` is empty).
    """

    axis: str
    height: int
    width: int
    slice_count: int
    spacing_mm: tuple[float | None, float | None]
    annotated_count: int = 0
    table: MaskTable = field(default_factory=lambda: join([]))
    labels: npt.NDArray[np.str_] = field(default_factory=lambda: np.array([], np.str_))  # (N,) ontology ids
    kept: npt.NDArray[np.bool_] = field(default_factory=lambda: np.array([], np.bool_))  # (N,)
    rejects: list[Reject] = field(default_factory=list)


def read_labels(case: Case, source: Source, files: CaseFiles) -> tuple[Grid, tuple[LabelLayer, ...]]:
    """Read and decode the label files of a case. Raises CaseRejected."""
    reader = load(READERS, source.label.reader, "reader")
    decoder = load(DECODERS, source.label.decoder, "decoder")
    volumes = [(entry, reader.read(files, entry.paths, reader.Options(**source.label.reader_options))) for entry in case.labels]
    grid = grid_of(volumes[0][1], source)
    for _, volume in volumes[1:]:
        check_grid(grid, grid_of(volume, source), "two label files of the case")
    return grid, decoder.decode(volumes, source.labels, decoder.Options(**source.label.options))


def masks_by_axis(grid: Grid, layers: Sequence[LabelLayer], recipe: Recipe) -> Iterator[AxisMasks]:
    """Cut the labels along the recipe's axes, find masks and judge them."""
    for axis in _axes(grid, recipe):
        views = [grid.planes(layer.labels, axis) for layer in layers]
        count, height, width = views[0].shape[:3]
        found = AxisMasks(
            axis=axis, height=height, width=width, slice_count=count, spacing_mm=grid.plane_spacing_mm(axis)
        )
        if aspect(height, width) < recipe.slices.min_aspect:
            _refuse_axis(found, views, layers, recipe.slices.min_aspect)
        else:
            _find(found, views, layers, recipe)
        yield found


def _axes(grid: Grid, recipe: Recipe) -> tuple[str, ...]:
    spacing_mm = grid.spacing_mm()
    if spacing_mm is None:
        return ("",)
    shape = grid.canonical(np.broadcast_to(np.False_, grid.shape)).shape
    single = [axis for axis, size in zip("xyz", shape, strict=True) if size == 1]
    return tuple(single[-1:]) or resolve_axes(recipe.slices.axes, spacing_mm)


def _refuse_axis(found: AxisMasks, views: Sequence[Array], layers: Sequence[LabelLayer], bound: float) -> None:
    planes = set[int]()
    for view, layer in zip(views, layers, strict=True):
        planes.update(annotated(view, layer.terms, instances=layer.instances).tolist())
    found.annotated_count = len(planes)
    measures = {"measure": aspect(found.height, found.width), "bound": bound}
    found.rejects = [
        Reject(stage="slice", reason=Reason.ASPECT, axis=found.axis, slice_index=plane, measures=measures)
        for plane in sorted(planes)
    ]


def _find(found: AxisMasks, views: Sequence[Array], layers: Sequence[LabelLayer], recipe: Recipe) -> None:
    tables = [
        find_masks(view, layer.terms, instances=layer.instances, rule=recipe.masks)
        for view, layer in zip(views, layers, strict=True)
    ]
    joined = join(tables)
    order = np.argsort(joined.plane, kind="stable")
    found.table = joined.take(order)
    found.labels = np.concatenate([_label_ids(t, layer) for t, layer in zip(tables, layers, strict=True)])[order]
    verdict = judge(found.table, recipe.masks, found.height, found.width)
    found.kept = verdict.kept
    planes = np.unique(found.table.plane)
    found.annotated_count = len(planes)
    found.rejects = [_mask_reject(found, index, verdict) for index in np.flatnonzero(~verdict.kept)]
    for plane in np.setdiff1d(planes, found.table.plane[verdict.kept]).tolist():
        found.rejects.append(Reject(stage="slice", reason=Reason.NO_MASK_LEFT, axis=found.axis, slice_index=plane))


def _label_ids(table: MaskTable, layer: LabelLayer) -> npt.NDArray[np.str_]:
    if layer.instances:
        return np.full(len(table.plane), layer.terms[0], np.str_)
    return _translate(table.value, layer.terms)


def _translate(values: npt.NDArray[np.int64], terms: Mapping[int, str]) -> npt.NDArray[np.str_]:
    known = np.array(sorted(terms))
    names = np.array([terms[int(value)] for value in known], np.str_)
    translated: npt.NDArray[np.str_] = names[np.searchsorted(known, values)]
    return translated
