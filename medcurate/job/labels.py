"""A case's labels as measured, judged masks, axis by axis; they are shared by all images of the case."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from medcurate.config.recipe import Recipe
from medcurate.config.source import Source
from medcurate.decoders import DECODERS
from medcurate.errors import CaseRejected, Reason, blamed_on
from medcurate.job.drawings import DrawnLabels, is_drawn, reference_of
from medcurate.job.grid import Grid, check_grid, grid_of, laid_like
from medcurate.job.placing import placed
from medcurate.job.reading import read_file
from medcurate.job.unions import agreed, with_regions
from medcurate.readers.files import CaseFiles
from medcurate.registry import load
from medcurate.stages.masks import (
    MOST_PIXELS_A_SIDE,
    MaskTable,
    Verdict,
    find_masks,
    joined,
    judge,
    renumbered,
    told_apart,
    whole_labels,
)
from medcurate.stages.planes import Axis, aspect, resolve_axes
from medcurate.types import Case, LabelFile, LabelLayer, Volume

AXES: tuple[Axis, Axis, Axis] = ("x", "y", "z")

# What the manifest's columns of 16 bits hold.
_MOST_MASKS_A_SLICE = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class AxisMasks:
    """All masks of a case along one axis, sorted by plane, then layer, term and instance.

    ``axis``: None for pictures. ``spacing_mm``: (row, column) of the planes, None where unknown. ``aspect``: the
    planes' aspect and its bound where it misses that; ``table`` is empty then. ``bare``: the annotated planes
    that keep no mask.
    """

    axis: Axis | None
    height: int
    width: int
    slice_count: int
    spacing_mm: tuple[float, float] | None
    table: MaskTable
    verdict: Verdict
    annotated_count: int
    bare: npt.NDArray[np.int32]
    aspect: tuple[float, float] | None = None

    @property
    def kept(self) -> npt.NDArray[np.bool_]:
        """Which masks of the table are kept, bool (len(table),)."""
        return self.verdict.kept

    def area_mm2(self, area_px: npt.NDArray[np.uint32]) -> npt.NDArray[np.floating[Any]] | None:
        """Areas in square millimetres, None where the spacing is unknown."""
        return area_px * self.spacing_mm[0] * self.spacing_mm[1] if self.spacing_mm else None


class LabelVolumes:
    """The label files of a case, each read when an iteration reaches it.

    A hundred one-class files are never in memory together. Every file must lie on the grid of the first;
    ``grid`` is known once an iteration has begun.
    """

    def __init__(self, case: Case, source: Source, files: CaseFiles) -> None:
        self._files = files
        self._entries = case.labels
        self._source = source
        # where the label's own geometry is not what counts
        self._image = None if source.label.geometry == "file" else reference_of(case, source, files)
        self.grid: Grid | None = None

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[tuple[LabelFile, Volume]]:
        for entry in self._entries:
            with blamed_on(f"label {entry.label}" if entry.label else "label"):
                volume = self._volume(entry)
                grid = grid_of(volume, self._source)
            if self.grid is None:
                self.grid = grid
            check_grid(self.grid, grid, "two label files of the case")
            yield entry, volume

    def _volume(self, entry: LabelFile) -> Volume:
        label = self._source.label
        volume = read_file(self._files, entry, label.reader, label.reader_options)
        if self._image is not None:
            return placed(volume, self._image, label)
        return volume if self.grid is None else laid_like(self.grid, volume, self._source)


def read_labels(case: Case, source: Source, files: CaseFiles) -> tuple[Grid, tuple[LabelLayer, ...]]:
    """Read and decode the label files of a case, of several raters what they agree on. Raises CaseRejected."""
    reading = _agreement if source.label.agreement else _reading
    grid, layers = reading(case, source, files)
    return grid, with_regions(layers, source.regions)


def _agreement(case: Case, source: Source, files: CaseFiles) -> tuple[Grid, tuple[LabelLayer, ...]]:
    raters, grids = source.label.raters, []

    def readings() -> Iterator[tuple[LabelLayer, ...]]:
        for rater in raters:
            labels = tuple(file for file in case.labels if file.rater == rater)
            grid, layers = _reading(replace(case, labels=labels), source, files)
            grids.append(grid)
            check_grid(grids[0], grid, "the labels of two raters")
            yield layers

    layers = agreed(readings(), source.labels.values(), len(raters), source.label.agreement)
    return grids[0], layers


def _reading(case: Case, source: Source, files: CaseFiles) -> tuple[Grid, tuple[LabelLayer, ...]]:
    decoder = load(DECODERS, source.label.decoder, "decoder")
    options = decoder.Options(**source.label.options)
    if is_drawn(source):
        drawn = DrawnLabels(case, source, files)
        with blamed_on("label"):  # structures are painted where the decoder wants them
            return drawn.grid, decoder.decode(drawn, source.labels, options)
    volumes = LabelVolumes(case, source, files)
    layers = decoder.decode(volumes, source.labels, options)
    if volumes.grid is None:
        raise CaseRejected(Reason.UNPAIRED, "the case has no label file")
    return volumes.grid, layers


def masks_by_axis(
    grid: Grid, layers: Sequence[LabelLayer], recipe: Recipe, frames: str = ""
) -> Iterator[AxisMasks]:
    """Cut the labels along the recipe's axes, find masks and judge them.

    Raises CaseRejected for planes that no row can describe (HEADER_SIZE: their sides, BAD_LABEL: their many masks).
    ``frames``: the stored axis along which pictures, and not planes of one body, follow each other.
    """
    if frames:
        recipe = _of_pictures(recipe)
    for axis in _axes(grid, recipe, frames):
        views = [grid.planes(layer.labels, axis) for layer in layers]
        count, height, width = views[0].shape[:3]
        _check_sides(height, width)
        ratio = aspect(height, width)
        narrow = ratio < recipe.slices.min_aspect
        rule = recipe.masks.model_copy(update={"components": "none"}) if narrow else recipe.masks
        tables = (
            find_masks(view, layer.terms, instances=layer.instances, rule=rule)
            for view, layer in zip(views, layers, strict=True)
        )
        table = _one_table(tables, layers, rule.components)
        annotated = table.annotated_planes
        if narrow:
            table = joined([])
        # A picture has no volume to be judged by.
        bounds = recipe.masks if axis else recipe.masks.model_copy(update={"min_voxels": 0})
        verdict = judge(table, bounds, height, width)
        planes_kept = table.plane[verdict.kept]
        _check_number(planes_kept)
        yield AxisMasks(
            axis=axis,
            height=height,
            width=width,
            slice_count=count,
            spacing_mm=grid.plane_spacing_mm(axis),
            table=table,
            verdict=verdict,
            annotated_count=len(annotated),
            bare=np.setdiff1d(annotated, planes_kept),
            aspect=(ratio, recipe.slices.min_aspect) if narrow else None,
        )


def _check_sides(height: int, width: int) -> None:
    if max(height, width) > MOST_PIXELS_A_SIDE:
        raise CaseRejected(
            Reason.HEADER_SIZE,
            f"planes of {height} x {width} pixels; a dataset holds {MOST_PIXELS_A_SIDE} a side",
            {"measure": max(height, width), "bound": MOST_PIXELS_A_SIDE},
        )


def _check_number(planes_kept: npt.NDArray[np.int32]) -> None:
    most = int(np.bincount(planes_kept).max(initial=0))
    if most > _MOST_MASKS_A_SLICE:
        raise CaseRejected(
            Reason.BAD_LABEL,
            f"a slice of {most} masks; a dataset holds {_MOST_MASKS_A_SLICE} a slice",
            {"measure": most, "bound": _MOST_MASKS_A_SLICE},
        )


def _one_table(tables: Iterator[MaskTable], layers: Sequence[LabelLayer], components: str) -> MaskTable:
    """The masks of all layers; of a label in several layers or values as if one layer and value held it."""
    terms = [term for layer in layers for term in layer.terms.values()]
    if any(layer.instances for layer in layers) or len(set(terms)) == len(terms):
        return joined(tables)
    if components == "3d":
        return joined(told_apart(tables))
    table = whole_labels(joined(tables))
    return renumbered(table) if components == "2d" else table


def _of_pictures(recipe: Recipe) -> Recipe:
    """What joins planes to bodies does not hold between frames."""
    rule = recipe.masks
    components = "2d" if rule.components == "3d" else rule.components
    return recipe.model_copy(
        update={"masks": rule.model_copy(update={"components": components, "min_voxels": 0})}
    )


def _axes(grid: Grid, recipe: Recipe, frames: str) -> tuple[Axis | None, ...]:
    spacing_mm = grid.spacing_mm()
    if spacing_mm is None:
        return (None,)
    if frames and grid.axes is not None:
        return (AXES[grid.axes.axes.index("ijk".index(frames))],)
    shape = grid.canonical(np.broadcast_to(np.False_, grid.shape)).shape
    single: list[Axis] = [axis for axis, size in zip(AXES, shape, strict=True) if size == 1]
    return tuple(single[-1:]) or resolve_axes(recipe.slices.axes, spacing_mm)
