"""What the end-to-end tests share: sources and recipes as TOML, and a dataset read without medcurate's code."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import lab
import nibabel as nib
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image
from pycocotools import mask as coco

SOURCE = {
    "homepage": "https://example.org",
    "citation": "nobody et al.",
    "dimensions": 3,
    "licence": {"id": "CC-BY-4.0", "commercial": "yes"},
    "case": {"identifiers": "keep"},
}
INTENSITY = {
    "ct": {"rule": "clip", "low": -1000, "high": 1000},
    "mr": {"rule": "percentiles", "low": 0.5, "high": 99.5},
    "ultrasound": {"rule": "rgb"},
    "fundus": {"rule": "rgb"},
    "default": {"rule": "minmax"},
}
AXIAL = np.diag([-1.0, -1.0, 3.0, 1.0])
NIFTI = {"image": {"reader": "nifti"}, "label": {"reader": "nifti", "decoder": "index"}}
CASE_STAGES = {"pair", "read", "label"}


def write_source(folder: Path, name: str, **facts: Any) -> str:
    """``<name>.toml`` in ``folder`` with ``facts`` over the defaults; returns the id for ``write_recipe``."""
    write_toml(folder / f"{name}.toml", {"id": name, "title": name, **SOURCE, **facts})
    return name


def write_recipe(folder: Path, sources: Iterable[str], name: str = "recipe", **rules: Any) -> Path:
    """``<name>.toml`` over source files beside it; masks are whole labels unless ``rules`` say otherwise."""
    defaults = {"intensity": INTENSITY, "masks": {"components": "none"}, "shards": {"size_bytes": 1 << 22}}
    facts = {"name": name, "title": name, "sources": [f"{source}.toml" for source in sources]}
    return write_toml(folder / f"{name}.toml", facts | defaults | rules)


def write_toml(path: Path, facts: Mapping[str, Any]) -> Path:
    """One line a top-level key, everything below it inline."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{key} = {_inline(value)}\n" for key, value in facts.items()))
    return path


def _inline(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{json.dumps(str(k))} = {_inline(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_inline, value)) + "]"
    return json.dumps(value)


def flat_suffix(image: str, label: str, **options: Any) -> list[dict[str, Any]]:
    """The [[pairings]] of files side by side."""
    return [{"kind": "flat-suffix", "options": {"image_suffix": image, "label_suffix": label, **options}}]


def nifti(path: Path, array: np.ndarray, affine: np.ndarray = AXIAL) -> None:
    """Save a volume, 1 x 1 x 3 mm unless ``affine`` says otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)


def ras(path: Path) -> np.ndarray:
    """The voxels of a NIfTI file on RAS+ axes, by nibabel."""
    return np.asarray(nib.as_closest_canonical(nib.load(path)).dataobj)


def _where(table: pa.Table, **where: Any) -> pa.Table:
    for name, value in where.items():
        table = table.filter(pc.equal(table[name], value))
    return table


class Dataset:
    """A finished dataset, read by tarfile, Pillow, pycocotools and pyarrow."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def rows(self) -> pa.Table:
        """The manifest."""
        return pq.read_table(self.folder / "manifest.parquet")

    @cached_property
    def rejects(self) -> pa.Table:
        """The ledger."""
        return pq.read_table(self.folder / "rejects.parquet")

    @cached_property
    def record(self) -> dict[str, Any]:
        """dataset.json."""
        return json.loads((self.folder / "dataset.json").read_bytes())

    def of(self, source: str, **where: Any) -> list[dict[str, Any]]:
        """Manifest rows of a source, in the order of key and annotation."""
        rows = _where(self.rows, source=source, **where).to_pylist()
        return sorted(rows, key=lambda row: (row["key"], row["annotation"]))

    def refused(self, source: str, **where: Any) -> list[dict[str, Any]]:
        """Ledger rows of a source."""
        return _where(self.rejects, source=source, **where).to_pylist()

    def reasons(self, source: str) -> dict[str, str]:
        """Reason of every refused case of a source."""
        return {row["case"]: row["reason"] for row in self.refused(source) if row["stage"] in CASE_STAGES}

    def sample(self, row: Mapping[str, Any]) -> tuple[np.ndarray, list[dict[str, Any]], dict[str, Any]]:
        """(pixels, annotations, image facts) of the sample that ``row`` points to."""
        with open(self.folder / row["shard"], "rb") as stream:
            stream.seek(row["offset"])
            blob = stream.read(row["size"])
        with tarfile.open(fileobj=io.BytesIO(blob)) as opened:
            members = {Path(m.name).suffix: opened.extractfile(m).read() for m in opened}
        info = json.loads(members[".json"])
        return np.asarray(Image.open(io.BytesIO(members[".png"]))), info["annotations"], info["image"]

    def slices(self, source: str, **where: Any) -> dict[str, list[dict[str, Any]]]:
        """Rows of every sample of a source, by key, annotations in order."""
        found: dict[str, list[dict[str, Any]]] = {}
        for row in self.of(source, **where):
            found.setdefault(row["key"], []).append(row)
        return found

    def masks(self, row: Mapping[str, Any]) -> np.ndarray:
        """(N, H, W) bool of the sample that ``row`` points to, by pycocotools."""
        segmentations = [annotation["segmentation"] for annotation in self.sample(row)[1]]
        return coco.decode(segmentations).transpose(2, 0, 1).astype(bool)


def built(recipe: Path, out: Path, *more: str, code: int = 0) -> Dataset:
    """Build, ``verify --deep``, and hold the counting law."""
    lab.build(recipe, out, *more, code=code)
    done = run("verify", str(out), "--deep", "--log-format", "plain")
    assert done.returncode == 0, done.stdout + done.stderr
    dataset = Dataset(out)
    check_counts(dataset)
    return dataset


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """A command line of medcurate in a process of its own."""
    return subprocess.run(lab.medcurate(*words), capture_output=True, text=True, timeout=120, check=False)


def check_counts(dataset: Dataset) -> None:
    """discovered = written + rejected, and both sides are what the tables hold."""
    stages = {"cases": CASE_STAGES, "slices": {"slice"}, "masks": {"mask"}}
    refused = dataset.rejects["stage"].to_pylist()
    written = {"slices": pc.count_distinct(dataset.rows["key"]).as_py(), "masks": len(dataset.rows)}
    for kind, counts in dataset.record["counts"].items():
        assert counts["discovered"] == counts["written"] + counts["rejected"]
        assert counts["rejected"] == sum(stage in stages[kind] for stage in refused)
        assert written.get(kind, counts["written"]) == counts["written"]


def shown(volume: np.ndarray, axis: str, index: int) -> np.ndarray:
    """Plane ``index`` of a RAS+ volume (X, Y, Z[, C]) as a radiologist sees it (docs/format.md)."""
    plane = volume.take(index, "xyz".index(axis))
    return np.swapaxes(plane, 0, 1)[::-1, ::-1]


def check_whole_labels(
    dataset: Dataset, source: str, label: np.ndarray, names: Mapping[int, str], axis: str = "z", **where: Any
) -> None:
    """Every value of every plane of a RAS+ label volume is exactly one mask of exactly its pixels."""
    side = "xyz".index(axis)
    planes = {plane for plane in range(label.shape[side]) if shown(label, axis, plane).any()}
    samples = dataset.slices(source, axis=axis, **where)
    assert {rows[0]["slice_index"] for rows in samples.values()} == planes
    assert len(samples) == len(planes)
    for rows in samples.values():
        plane = shown(label, axis, rows[0]["slice_index"])
        assert rows[0]["slice_count"] == label.shape[side]
        check_plane(dataset, rows, plane, names)


def check_plane(
    dataset: Dataset, rows: list[dict[str, Any]], plane: np.ndarray, names: Mapping[int, str]
) -> None:
    """``rows`` of one sample: one mask a value of ``plane`` (H, W), of exactly its pixels, area and label."""
    values, areas = np.unique(plane[plane != 0], return_counts=True)
    expected = dict(zip(values.tolist(), areas.tolist(), strict=True))
    found = {}
    for row, mask in zip(rows, dataset.masks(rows[0]), strict=True):
        (value,) = np.unique(plane[mask]).tolist()
        assert value in expected
        assert row["label"] == names[value]
        assert mask.sum() == row["area_px"]
        found[value] = row["area_px"]
    assert found == expected


def grey(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """The documented map to 0..255 in float64, halves rounded up."""
    clipped = np.clip(values.astype(np.float64), low, high)
    return np.floor((clipped - low) / (high - low) * 255 + 0.5)


def check_pixels(dataset: Dataset, row: Mapping[str, Any], plane: np.ndarray) -> None:
    """The sample's picture is ``grey`` of ``plane`` between the row's bounds; rounding ties may differ by 1."""
    pixels = dataset.sample(row)[0].astype(float)
    expected = grey(plane, row["intensity_low"], row["intensity_high"])
    assert pixels.shape == expected.shape
    assert np.abs(pixels - expected).max() <= 1
    assert (pixels == expected).mean() > 0.999
