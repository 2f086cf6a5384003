"""``medcurate build`` as its user meets it: what it writes, refuses, and never changes."""

from __future__ import annotations

import json
from pathlib import Path

import lab
import nibabel as nib
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import webdataset
from pycocotools import mask as coco

from medcurate.format import sample


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lab")
    lab.build(lab.lab(folder), folder / "out", "--workers", "2")
    return folder / "out"


def test_every_mask_is_where_the_label_file_says(built: Path) -> None:
    rows = pq.read_table(built / "manifest.parquet").to_pylist()
    assert rows
    for row in rows:
        with open(built / row["shard"], "rb") as stream:
            stream.seek(row["offset"])
            blob = stream.read(row["size"])
        assert sample.digest(blob) == row["digest"]
        found = sample.decode(blob)
        label = nib.as_closest_canonical(
            nib.load(built.parent / row["source"] / "seg" / f"{row['case']}.nii.gz")
        )
        # Radiological display: rows run from anterior to posterior, columns from right to left.
        plane = np.asarray(label.dataobj)[::-1, ::-1, row["slice_index"]].T
        mask = found.masks[row["annotation"]]
        value = {"liver": 1, "spleen": 2, "kidney-left": 300}[row["label"]]
        assert (plane[mask] == value).all()
        assert (
            mask.sum()
            == row["area_px"]
            == row["area_mm2"]
            == found.info["annotations"][row["annotation"]]["area"]
        )
        ys, xs = np.nonzero(mask)
        assert (row["x0"], row["y0"], row["x1"], row["y1"]) == (
            xs.min(),
            ys.min(),
            xs.max() + 1,
            ys.max() + 1,
        )


def test_every_labelled_voxel_is_in_a_mask_or_in_the_ledger(built: Path) -> None:
    expected = sum(
        int(np.count_nonzero(np.asarray(nib.load(path).dataobj)))
        for path in built.parent.glob("lab-*/seg/*.nii.gz")
    )
    written = pc.sum(pq.read_table(built / "manifest.parquet")["area_px"]).as_py()
    rejects = pq.read_table(built / "rejects.parquet")
    refused = pc.sum(rejects.filter(pc.equal(rejects["stage"], "mask"))["area_px"]).as_py() or 0
    assert written + refused == expected
    counts = json.loads((built / "dataset.json").read_bytes())["counts"]
    for entry in counts.values():
        assert entry["discovered"] == entry["written"] + entry["rejected"]


def test_intensities_are_the_clip_of_the_image(built: Path) -> None:
    row = pq.read_table(built / "manifest.parquet").to_pylist()[0]
    with open(built / row["shard"], "rb") as stream:
        stream.seek(row["offset"])
        found = sample.decode(stream.read(row["size"]))
    image = nib.as_closest_canonical(nib.load(built.parent / row["source"] / row["source_file"]))
    hu = np.asarray(image.dataobj)[::-1, ::-1, row["slice_index"]].T.astype(float)
    grey = np.floor((np.clip(hu, -500, 1000) + 500) / 1500 * 255 + 0.5)
    assert np.array_equal(found.image, grey)
    assert (row["intensity_low"], row["intensity_high"]) == (-500, 1000)


def test_webdataset_and_pycocotools_read_the_shards_with_their_defaults(built: Path) -> None:
    urls = [str(path) for path in sorted((built / "shards").glob("*.tar"))]
    stream = webdataset.WebDataset(urls, shardshuffle=False).decode("rgb8")
    rows = pq.read_table(built / "manifest.parquet", columns=["key", "area_px"]).to_pylist()
    areas: dict[str, list[int]] = {}
    for row in rows:
        areas.setdefault(row["key"], []).append(row["area_px"])
    seen = 0
    for entry in stream:
        assert entry["png"].dtype == np.uint8
        assert entry["png"].shape[2] == 3
        masks = [annotation["segmentation"] for annotation in entry["json"]["annotations"]]
        assert coco.area(masks).tolist() == areas[entry["__key__"]]
        seen += 1
    assert seen == len(areas)


def test_no_patient_is_in_two_splits_and_all_splits_occur(built: Path) -> None:
    rows = pq.read_table(built / "manifest.parquet", columns=["group", "split", "shard"]).to_pylist()
    splits: dict[str, set[str]] = {}
    for row in rows:
        splits.setdefault(row["group"], set()).add(row["split"])
        assert row["shard"].startswith(f"shards/{row['split']}-")
    assert all(len(found) == 1 for found in splits.values())
    assert {row["split"] for row in rows} == {"train", "val", "test"}


def test_the_record_names_sources_licences_and_inputs(built: Path) -> None:
    record = json.loads((built / "dataset.json").read_bytes())
    facts = record["sources"]["lab-a"]
    assert facts["licence"]["id"] == "CC-BY-4.0"
    assert facts["citation"] == "lab-a et al."
    assert facts["input_files"] == 6
    assert set(record["files"]) == set(lab.digests(built)) - {"dataset.json"}
    assert not (built / "build.json").exists()


def test_the_same_scan_stored_otherwise_joins_its_patient(tmp_path: Path) -> None:
    lab.write_source(tmp_path, "lab-a", cases=4)
    image, label = lab.volume(2)
    turned = np.diag([1.0, -1.0, 3.0, 1.0])
    turned[0, 3] = -(image.shape[0] - 1)
    lab.write_source(tmp_path, "lab-b", cases=1, seed=9)
    lab.write_pair(tmp_path / "lab-b", "p77_other", image[::-1].astype(np.int32), label[::-1], turned)
    lab.build(lab.write_recipe(tmp_path, "lab-a", "lab-b"), tmp_path / "out")
    rows = pq.read_table(
        tmp_path / "out" / "manifest.parquet", columns=["case", "group", "split"]
    ).to_pylist()
    found = {(row["group"], row["split"]) for row in rows if row["case"] in {"p77_other", "p2_scan"}}
    assert len(found) == 1
    assert next(iter(found))[0] == "lab-a:p2"


def test_bad_cases_go_to_the_ledger_and_the_others_are_unchanged(tmp_path: Path) -> None:
    recipe = lab.lab(tmp_path, sources=1, cases=3)
    lab.build(recipe, tmp_path / "clean")
    seg, img = tmp_path / "lab-a" / "seg", tmp_path / "lab-a" / "img"
    image, label = lab.volume(50)
    lab.write_pair(tmp_path / "lab-a", "p10_cut", image, label)
    path = img / "p10_cut.nii.gz"
    path.write_bytes(path.read_bytes()[:-5])
    lab.write_pair(tmp_path / "lab-a", "p11_shape", image, label)
    nib.save(nib.Nifti1Image(label[:-1], np.diag([-1.0, -1, 3, 1])), seg / "p11_shape.nii.gz")
    lab.write_pair(tmp_path / "lab-a", "p12_value", image, np.where(label == 1, 7, label).astype(np.int16))
    lab.write_pair(tmp_path / "lab-a", "p13_alone", image, label)
    (seg / "p13_alone.nii.gz").unlink()
    lab.write_pair(
        tmp_path / "lab-a", "p14_nan", np.where(label == 1, np.nan, image).astype(np.float32), label
    )
    done = lab.build(recipe, tmp_path / "out", code=3)
    assert "refused cases: 5" in done.stdout
    assert "p10_cut: CORRUPT, image: the gzip stream is cut" in done.stdout
    rows = pq.read_table(tmp_path / "out" / "rejects.parquet").to_pylist()
    reasons = {row["case"]: row["reason"] for row in rows if row["stage"] in {"pair", "read", "label"}}
    assert reasons == {
        "p10_cut": "CORRUPT",
        "p11_shape": "GEOMETRY",
        "p12_value": "BAD_LABEL",
        "p13_alone": "UNPAIRED",
        "p14_nan": "BAD_INTENSITY",
    }
    assert _samples(tmp_path / "out") == _samples(tmp_path / "clean")


def _samples(dataset: Path) -> set[tuple[str, int]]:
    rows = pq.read_table(dataset / "manifest.parquet", columns=["key", "digest"]).to_pylist()
    return {(row["key"], row["digest"]) for row in rows}


def test_a_case_over_its_memory_or_time_is_refused_and_named(tmp_path: Path) -> None:
    recipe = lab.lab(tmp_path, sources=1, cases=1)
    image = np.zeros((600, 600, 300), np.int16)
    image[0, 0, 0] = 1
    lab.write_pair(tmp_path / "lab-a", "p9_large", image, image)
    lab.build(recipe, tmp_path / "out", "--memory", "160MiB", "--workers", "1", code=3)
    rows = pq.read_table(tmp_path / "out" / "rejects.parquet").to_pylist()
    assert [(row["case"], row["reason"]) for row in rows if row["stage"] == "read"] == [
        ("p9_large", "MEMORY")
    ]


def test_a_decoder_that_crashes_costs_its_case_alone(tmp_path: Path) -> None:
    recipe = lab.lab(tmp_path, sources=2, cases=2)
    lab.write_pair(tmp_path / "lab-a", "p8_crash", *lab.volume(8))
    lab.write_pair(tmp_path / "lab-b", "p8_endless", *lab.volume(9))
    recipe.write_text(recipe.read_text().replace("case_seconds = 60", "case_seconds = 2"))
    faulty = tmp_path / "faulty"
    faulty.mkdir()
    (faulty / "sitecustomize.py").write_text(_FAULTY_READER)
    lab.build(recipe, tmp_path / "out", "--workers", "2", code=3, env=lab.environment(PYTHONPATH=str(faulty)))
    rows = pq.read_table(tmp_path / "out" / "rejects.parquet").to_pylist()
    assert {(row["case"], row["reason"]) for row in rows if row["stage"] == "read"} == {
        ("p8_crash", "DECODER_CRASH"),
        ("p8_endless", "TIMEOUT"),
    }
    counts = json.loads((tmp_path / "out" / "dataset.json").read_bytes())["counts"]["cases"]
    assert counts == {"discovered": 6, "written": 4, "rejected": 2}


# A reader with the faults of a native decoder, put into the real worker processes.
_FAULTY_READER = """
import os, signal, threading
import medcurate.readers.files as files
read = files.CaseFiles.read
def faulty(self, path):
    if "crash" in path.name:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "endless" in path.name:
        threading.Lock().acquire() and threading.Event().wait()
    return read(self, path)
files.CaseFiles.read = faulty
"""


def test_a_finished_dataset_whose_inputs_changed_is_not_called_complete(tmp_path: Path) -> None:
    recipe = lab.lab(tmp_path, sources=1, cases=2)
    out = tmp_path / "out"
    lab.build(recipe, out)
    lab.write_pair(tmp_path / "lab-a", "p1_scan", *lab.volume(77))
    refused = lab.build(recipe, out, code=1)
    assert "not those that the dataset was made of (other content" in refused.stderr
    lab.write_pair(tmp_path / "lab-a", "p1_scan", *lab.volume(1))
    assert "complete and undamaged" in lab.build(recipe, out).stdout
    lab.write_pair(tmp_path / "lab-a", "p9_scan", *lab.volume(9))
    assert "2 cases then, 3 now" in lab.build(recipe, out, code=1).stderr


def test_a_finished_dataset_outlives_the_files_it_was_made_of(tmp_path: Path) -> None:
    recipe = lab.lab(tmp_path, sources=1, cases=1)
    lab.build(recipe, tmp_path / "out")
    (tmp_path / "lab-a").rename(tmp_path / "elsewhere")
    elsewhere = ["--data", str(tmp_path / "elsewhere")]
    assert "complete and undamaged" in lab.build(recipe, tmp_path / "out", *elsewhere).stdout


def test_a_case_without_any_label_is_in_the_ledger_and_is_no_fault(tmp_path: Path) -> None:
    recipe = lab.lab(tmp_path, sources=1, cases=1)
    image, label = lab.volume(4)
    lab.write_pair(tmp_path / "lab-a", "p7_healthy", image, np.zeros_like(label))
    lab.build(recipe, tmp_path / "out")
    rows = pq.read_table(tmp_path / "out" / "rejects.parquet").to_pylist()
    assert [(r["case"], r["reason"]) for r in rows if r["stage"] == "label"] == [
        ("p7_healthy", "NO_ANNOTATION")
    ]


def test_a_rerun_still_tells_of_refused_cases(tmp_path: Path) -> None:
    recipe = lab.lab(tmp_path, sources=1, cases=2)
    (tmp_path / "lab-a" / "seg" / "p1_scan.nii.gz").write_bytes(b"\x1f\x8b no gzip")
    lab.build(recipe, tmp_path / "out", code=3)
    assert "refused cases: 1" in lab.build(recipe, tmp_path / "out", code=3).stdout


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--memory", "4"], "--memory 4: a worker needs at least 64MiB"),
        (
            ["--data", "nowhere"],
            "--data nowhere: no such folder; mend it, or make it first with: mkdir -p nowhere",
        ),
        (["--recipe", "nothing"], "nothing"),
    ],
)
def test_mistakes_on_the_command_line_end_in_one_clear_line(
    tmp_path: Path, more: list[str], message: str
) -> None:
    failed = lab.build(lab.lab(tmp_path, sources=1, cases=1), tmp_path / "out", *more, code=1)
    assert message in failed.stderr
    assert "Traceback" not in failed.stderr
