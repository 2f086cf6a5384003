"""discovered = written + rejected, for cases, slices and masks: drawn volumes and rules against counts by scipy."""

from __future__ import annotations

import tarfile
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from build_kit import CASE_STAGES, shown
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from medcurate.build.jobs import terms_of
from medcurate.config.recipe import Masks, MinArea, MinMax, Recipe, Slices
from medcurate.config.source import Source
from medcurate.job.part import run_job
from medcurate.job.spec import Job, PartRecord, rejects_path, rows_path, tar_path
from medcurate.library import ontology
from medcurate.types import Case, ImageFile, LabelFile, Reject

LABELS = {"a": "liver", "b": "spleen", "c": "liver"}  # files that may overlap; two show the same structure
CHANNELS = ("t1", "t2")
ARRAY = {"reader": "array", "options": {"axes": "ijk", "spacing_mm": (1, 1, 1), "directions": "RAS"}}
SOURCE = Source.model_validate({
    "id": "drawn",
    "title": "",
    "homepage": "https://example.org",
    "citation": "",
    "modality": "mr",
    "dimensions": 3,
    "licence": {"id": "CC0-1.0", "commercial": "yes"},
    "channels": [{"name": name} for name in CHANNELS],
    "pairings": [{"kind": "case-folder", "options": {"image": "{channel}.npy", "label": "{label}.npy"}}],
    "image": ARRAY,
    "label": {"reader": "array", "decoder": "mask-per-class", "reader_options": ARRAY["options"]},
    "labels": LABELS,
})
TERMS = terms_of(SOURCE, ontology())
# What becomes of a case as a whole: nothing, or one of what can refuse it before, at and after its first image.
FATES = ("sound", "condemned", "bad label", "no second image")

Mask = tuple[str, str, str, int, str, int, int, int, int, int]  # case, channel, axis, slice, label, area, box


@dataclass
class Drawn:
    """A case: bool (3, X, Y, Z), the voxels of each label file, on axes that grow to R, A and S."""

    fate: str
    labels: np.ndarray


def drawn(fate: str, shape: tuple[int, int, int], share: float, seed: int) -> Drawn:
    """A case whose label files show ``share`` of all voxels each; none at all is no annotation."""
    return Drawn(fate, np.random.default_rng(seed).random((len(LABELS), *shape)) < share)


CASES = st.lists(
    st.builds(
        drawn,
        fate=st.sampled_from([*["sound"] * 4, *FATES]),
        shape=st.tuples(*[st.integers(2, 6)] * 3),
        share=st.sampled_from([0.3, 0.15, 0.05, 0.0]),
        seed=st.integers(0, 1 << 32),
    ),
    min_size=1,
    max_size=3,
)
RULES = st.builds(
    Masks,
    components=st.sampled_from(["2d", "3d", "none"]),
    connectivity=st.sampled_from(["full", "face"]),
    min_area=st.builds(MinArea, pixels=st.integers(0, 4), at=st.sampled_from([0, 4])),
    min_voxels=st.sampled_from([0, 2, 4, 10, 40]),
)
SLICES = st.builds(
    Slices,
    axes=st.lists(st.sampled_from("xyz"), min_size=1, unique=True).map(tuple),
    min_aspect=st.sampled_from([0.0, 0.5, 1.0]),
)


@given(CASES, RULES, SLICES)
@settings(max_examples=40, deadline=None)
def test_whatever_is_found_is_written_or_a_row_of_the_ledger(
    cases: list[Drawn], masks: Masks, slices: Slices
) -> None:
    recipe = Recipe(
        name="r",
        title="",
        sources=("drawn",),
        intensity={"default": MinMax(rule="minmax")},
        masks=masks,
        slices=slices,
    )
    with TemporaryDirectory() as folder:
        job = job_of(cases, recipe, Path(folder))
        record = run_job(job, lambda step: nullcontext())
        rows = pq.read_table(rows_path(job.parts, job.id)).to_pylist()
        rejects = pq.read_table(rejects_path(job.parts, job.id)).to_pylist()
        with tarfile.open(tar_path(job.parts, job.id)) as tar:
            keys = {Path(name).stem for name in tar.getnames()}
    whole = {f"p{n}": case for n, case in enumerate(cases) if case.fate == "sound" and case.labels.any()}
    kept, small, bare, narrow = expected(whole, recipe)

    assert Counter(mask_of(row) for row in rows) == kept
    assert Counter(mask_of(row) for row in rejects if row["stage"] == "mask") == small
    refused = {(place_of(row), row["reason"]) for row in rejects if row["stage"] == "slice"}
    assert refused == {(place, "NO_MASK_LEFT") for place in bare} | {(place, "ASPECT") for place in narrow}
    assert sorted(row["case"] for row in rejects if row["stage"] in CASE_STAGES) == sorted(
        {f"p{n}" for n in range(len(cases))} - set(whole)
    )
    if masks.components != "none":
        numbers = [
            (*place_of(row), row["label"], row["instance"]) for row in (*rows, *rejects) if row["instance"]
        ]
        assert len(set(numbers)) == len(numbers) == kept.total() + small.total()
    assert keys == {row["key"] for row in rows}
    check_law(record, rows, rejects)
    assert record.counts["cases"] == {
        "discovered": len(cases), "written": len(whole), "rejected": len(cases) - len(whole)
    }  # fmt: skip
    assert record.counts["masks"]["discovered"] == kept.total() + small.total()
    assert record.counts["slices"]["discovered"] == len({m[:4] for m in kept} | bare | narrow)


def job_of(cases: list[Drawn], recipe: Recipe, root: Path) -> Job:
    """The cases as files below ``root``."""
    for number, case in enumerate(cases):
        folder = root / f"p{number}"
        folder.mkdir()
        for channel in CHANNELS[: 1 if case.fate == "no second image" else 2]:
            image = np.arange(case.labels[0].size, dtype=np.int16).reshape(case.labels[0].shape)
            np.save(folder / f"{channel}.npy", image)
        for label, mask in zip(LABELS, case.labels, strict=True):
            values = mask.astype(np.uint8)
            if case.fate == "bad label":
                values.flat[:2] = 1, 2
            np.save(folder / f"{label}.npy", values)
    (root / "parts").mkdir()
    condemned = Reject(stage="read", reason="TIME")
    return Job(
        id="job",
        source=SOURCE,
        root=root,
        recipe=recipe,
        terms=TERMS,
        cases=tuple(map(case_of, range(len(cases)))),
        parts=root / "parts",
        condemned={f"p{n}": condemned for n, case in enumerate(cases) if case.fate == "condemned"},
    )


def case_of(number: int) -> Case:
    folder = Path(f"p{number}")
    return Case(
        source="drawn",
        id=folder.name,
        group=folder.name,
        images=tuple(ImageFile(paths=(folder / f"{name}.npy",), channel=name) for name in CHANNELS),
        labels=tuple(LabelFile(paths=(folder / f"{name}.npy",), label=name) for name in LABELS),
    )


def expected(cases: dict[str, Drawn], recipe: Recipe) -> tuple[Counter[Mask], Counter[Mask], set, set]:
    """Masks to be kept and refused; places (case, channel, axis, slice) without a kept mask, and too narrow."""
    kept, small, narrow = Counter[Mask](), Counter[Mask](), set()
    for name, case in cases.items():
        for axis in recipe.slices.axes:
            for plane in range(case.labels.shape[1:]["xyz".index(axis)]):
                for channel in CHANNELS:
                    place = (name, channel, axis, plane)
                    sides = shown(case.labels[0], axis, plane).shape
                    if min(sides) / max(sides) < recipe.slices.min_aspect:
                        narrow |= {place} if any(shown(m, axis, plane).any() for m in case.labels) else set()
                        continue
                    for label, mask, voxels in found(case.labels, axis, plane, recipe.masks):
                        area = int(mask.sum())
                        rule = recipe.masks
                        bound = rule.min_area.pixels
                        if rule.min_area.at:
                            bound = bound / rule.min_area.at**2 * mask.size
                        fits = area >= bound - 1e-9 and voxels >= rule.min_voxels
                        (kept if fits else small)[(*place, label, area, *box(mask))] += 1
    bare = {mask[:4] for mask in small} - {mask[:4] for mask in kept}
    return kept, small, bare, narrow


def found(labels: np.ndarray, axis: str, plane: int, rule: Masks) -> Iterator[tuple[str, np.ndarray, int]]:
    """(label, bool plane, voxels of what it is a part of) of every mask in one plane."""
    totals: Counter[str] = Counter()
    for label, volume in zip(LABELS.values(), labels, strict=True):
        totals[label] += int(volume.sum())
    for label, volume in zip(LABELS.values(), labels, strict=True):
        if not shown(volume, axis, plane).any():
            continue
        if rule.components == "3d":
            for thing in components(volume, rule):
                if shown(thing, axis, plane).any():
                    yield label, shown(thing, axis, plane), int(thing.sum())
        elif rule.components == "2d":
            for thing in components(shown(volume, axis, plane), rule):
                yield label, thing, totals[label]
        else:
            yield label, shown(volume, axis, plane), totals[label]


def components(mask: np.ndarray, rule: Masks) -> list[np.ndarray]:
    joined = ndimage.generate_binary_structure(mask.ndim, mask.ndim if rule.connectivity == "full" else 1)
    numbered, count = ndimage.label(mask, joined)
    return [numbered == number for number in range(1, count + 1)]


def box(mask: np.ndarray) -> tuple[int, int, int, int]:
    ys, xs = np.nonzero(mask)
    return int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1


def place_of(row: dict[str, Any]) -> tuple[str, str, str, int]:
    return row["case"], row["channel"], row["axis"], row["slice_index"]


def mask_of(row: dict[str, Any]) -> Mask:
    return (*place_of(row), row["label"], row["area_px"], *(row[side] for side in ("x0", "y0", "x1", "y1")))


def check_law(record: PartRecord, rows: list[dict[str, Any]], rejects: list[dict[str, Any]]) -> None:
    """Both sides of the record are what the tables hold."""
    stages = {"cases": CASE_STAGES, "slices": {"slice"}, "masks": {"mask"}}
    written = {"slices": len({row["key"] for row in rows}), "masks": len(rows), "cases": len(record.cases)}
    for kind, counts in record.counts.items():
        assert counts["discovered"] == counts["written"] + counts["rejected"], kind
        assert counts["rejected"] == sum(row["stage"] in stages[kind] for row in rejects), kind
        assert counts["written"] == written[kind], kind
