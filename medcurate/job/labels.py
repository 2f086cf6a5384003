"""A case's labels as measured, judged masks, axis by axis; they are shared by all images of the case."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

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
    MaskTable,
    Refusal,
    find_masks,
    joined,
    judge,
    renumbered,
    told_apart,
    whole_labels,
)
from medcurate.stages.planes import Axis, aspect, resolve_axes
from medcurate.types import Case, LabelFile, LabelLayer, Reject, Volume

AXES: tuple[Axis, Axis, Axis] = ("x", "y", "z")

# What the manifest's columns of 16 bits hold.
_MOST_PIXELS_A_SIDE = 65_535
_MOST_MASKS_A_SLICE = 65_536


@dataclass(slots=True, kw_only=True)
class AxisMasks:
    """All masks of a case along one axis, sorted by plane, then layer, term and instance.

    ``axis``: None for pictures. ``spacing_mm``: (row, column) of the planes, None where unknown.
    ``kept`` bool (len(table),). ``rejects``: refused masks and planes without a kept mask; below the aspect
    bound all annotated planes, and then ``table`` is empty.
    """

    axis: Axis | None
    height: int
    width: int
    slice_count: int
    spacing_mm: tuple[float, float] | None
    table: MaskTable
    kept: npt.NDArray[np.bool_]
    annotated_count: int
    rejects: list[Reject]

    def area_mm2(self, area_px: float) -> float | None:
        """Area in square millimetres, None where the spacing is unknown."""
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
        refused = ratio < recipe.slices.min_aspect
        rule = recipe.masks.model_copy(update={"components": "none"}) if refused else recipe.masks
        tables = (
            find_masks(view, layer.terms, instances=layer.instances, rule=rule)
            for view, layer in zip(views, layers, strict=True)
        )
        table = _one_table(tables, rule.components, instances=any(layer.instances for layer in layers))
        found = AxisMasks(
            axis=axis,
            height=height,
            width=width,
            slice_count=count,
            spacing_mm=grid.plane_spacing_mm(axis),
            table=table,
            kept=np.ones(len(table), np.bool_),
            annotated_count=len(table.annotated_planes),
            rejects=[],
        )
        if refused:
            _refuse_planes(found, ratio, recipe.slices.min_aspect)
        else:
            _judge(found, recipe)
        yield found


def _check_sides(height: int, width: int) -> None:
    if max(height, width) > _MOST_PIXELS_A_SIDE:
        raise CaseRejected(
            Reason.HEADER_SIZE,
            f"planes of {height} x {width} pixels; a dataset holds {_MOST_PIXELS_A_SIDE} a side",
            {"measure": max(height, width), "bound": _MOST_PIXELS_A_SIDE},
        )


def _check_number(found: AxisMasks) -> None:
    most = int(np.bincount(found.table.plane[found.kept]).max(initial=0))
    if most > _MOST_MASKS_A_SLICE:
        raise CaseRejected(
            Reason.BAD_LABEL,
            f"a slice of {most} masks; a dataset holds {_MOST_MASKS_A_SLICE} a slice",
            {"measure": most, "bound": _MOST_MASKS_A_SLICE},
        )


def _one_table(tables: Iterator[MaskTable], components: str, *, instances: bool) -> MaskTable:
    """The masks of all layers; of a label in several layers or values as if one layer and value held it."""
    if instances:
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


def _refuse_planes(found: AxisMasks, ratio: float, bound: float) -> None:
    measures = {"measure": ratio, "bound": bound}
    found.rejects = [
        Reject(
            stage="slice", reason=Reason.ASPECT, axis=found.axis or "", slice_index=plane, measures=measures
        )
        for plane in found.table.annotated_planes.tolist()
    ]
    found.table, found.kept = joined([]), np.array([], np.bool_)


def _judge(found: AxisMasks, recipe: Recipe) -> None:
    # A picture has no volume to be judged by.
    rule = recipe.masks if found.axis else recipe.masks.model_copy(update={"min_voxels": 0})
    found.kept, refusals = judge(found.table, rule, found.height, found.width)
    _check_number(found)
    found.rejects = [_mask_reject(found, refusal) for refusal in refusals]
    bare = np.setdiff1d(found.table.plane, found.table.plane[found.kept])
    found.rejects += [
        Reject(stage="slice", reason=Reason.NO_MASK_LEFT, axis=found.axis or "", slice_index=plane)
        for plane in bare.tolist()
    ]


def _mask_reject(found: AxisMasks, refusal: Refusal) -> Reject:
    table, row = found.table, refusal.row
    area_px = int(table.area_px[row])
    measures = {name: int(getattr(table, name)[row]) for name in ("x0", "y0", "x1", "y1")}
    area_mm2 = found.area_mm2(area_px)
    known = {} if area_mm2 is None else {"area_mm2": area_mm2}
    fraction = area_px / (found.height * found.width)
    return Reject(
        stage="mask",
        reason=refusal.reason,
        axis=found.axis or "",
        slice_index=int(table.plane[row]),
        label=table.label[row],
        instance=int(table.instance[row]),
        measures={"area_px": area_px, "area_fraction": fraction, **measures, **known, **refusal.measures},
    )
