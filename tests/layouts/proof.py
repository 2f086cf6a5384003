"""A tree built and compared with what it must give: what every source of the catalogue is put through."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from build_kit import Dataset, check_counts, write_toml

import layouts
from layouts import Expected, ExpectedCase
from layouts.release_shapes import with_classes
from medcurate.build.run import BuildOptions, build
from medcurate.checks import modalities
from medcurate.config.source import Source


def built(sources: Sequence[Source], folder: Path) -> tuple[dict[str, Expected], Dataset]:
    """Trees of ``sources``, what is expected of each, and one dataset of all of them."""
    expected, recipe = trees(sources, folder)
    return expected, built_here(str(recipe), folder, accepted=("all",))


def built_here(recipe: str, folder: Path, **options: Any) -> Dataset:
    """``folder``/out, made of ``folder``/data by a build in this process."""
    places = {"data": folder / "data", "out": folder / "out", "work": folder / "work"}
    build(recipe, BuildOptions(**places, engine="serial", workers=1, memory_bytes=1 << 30, **options))
    return Dataset(folder / "out")


def trees(sources: Sequence[Source], folder: Path) -> tuple[dict[str, Expected], Path]:
    """Trees of ``sources`` below ``folder``/data, what is expected of each, and a recipe of all of them.

    Their ``files`` and ``folders`` are left out: a tree is what they unpack to.
    """
    expected = {
        source.id: layouts.make(with_classes(source), folder / "data" / source.id) for source in sources
    }
    for source in sources:
        facts = source.model_dump(mode="json", exclude_defaults=True, exclude={"files", "folders"})
        write_toml(folder / f"{source.id}.toml", _without_none(facts))
    recipe = {
        "name": "layout",
        "title": "True layouts",
        "sources": [f"{source.id}.toml" for source in sources],
        "slices": {"axes": ["z"]},
        "intensity": {
            modality: {"rule": rule(source)} for source in sources for modality in modalities(source)
        },
        "masks": {"components": "2d"},
        "shards": {"size_bytes": 1 << 20},
    }
    return expected, write_toml(folder / "recipe.toml", recipe)


def rule(source: Source) -> str:
    """The intensity rule that fits what the kit writes for ``source``."""
    options = source.image.options
    raster = source.image.reader == "raster" and not options.get("stack")
    pictures = source.image.reader == "array" and "k" not in options.get("axes", "hw")
    return "rgb" if raster or pictures or options.get("channels") == "k" else "minmax"


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(inside) for key, inside in value.items() if inside is not None}
    return [_without_none(inside) for inside in value] if isinstance(value, list) else value


def check(source: Source, expected: Expected, dataset: Dataset) -> None:
    """Cases, patients, splits, labels, areas and counts of ``dataset`` are those of the tree."""
    source = with_classes(source)
    check_counts(dataset)
    assert not dataset.refused(source.id)
    rows = dataset.of(source.id)
    assert {row["case"] for row in rows} == set(expected.cases)
    assert {row["label"] for row in rows} == {*source.labels.values(), *source.regions}
    assert {row["modality"] for row in rows} == modalities(source)
    found: dict[tuple[str, str], Counter[tuple[str, int]]] = {}
    for row in rows:
        case = expected.cases[row["case"]]
        assert row["group"] == case.group
        assert row["split"] == case.split or not case.split or _shared(expected, case)
        found.setdefault((row["case"], row["channel"]), Counter())[row["label"], row["area_px"]] += 1
    assert found == {
        (name, channel): case.masks for name, case in expected.cases.items() for channel in expected.channels
    }
    slices = sum(case.slices for case in expected.cases.values()) * len(expected.channels)
    assert len({row["key"] for row in rows}) == slices


def _shared(expected: Expected, case: ExpectedCase) -> bool:
    """Whether a patient has cases in several official splits: one split wins for all."""
    return len({each.split for each in expected.cases.values() if each.group == case.group}) > 1
