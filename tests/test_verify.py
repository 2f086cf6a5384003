"""Verify: names every kind of damage, says how to mend it, and finds nothing where nothing is wrong."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from kit import pieces, write_dataset
from pack_kit import inline, pack, record_again, summarise
from pycocotools import mask as coco
from typer.testing import CliRunner

from medcurate.cli.main import app
from medcurate.commit import sha256_file
from medcurate.engines import pool
from medcurate.engines.types import Failure, Outcome
from medcurate.errors import ConfigError, Reason
from medcurate.format import png, sample
from medcurate.format.sample import END_OF_TAR
from medcurate.pack.tables import TABLES
from medcurate.verify.findings import Report
from medcurate.verify.run import verify_dataset

SHARD = "shards/train-000001.tar"


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("verify")
    given = write_dataset(folder / "in", pieces(48, size=48))
    return pack(given, folder / "out", shard_bytes=40_000)


@pytest.fixture
def dataset(whole, tmp_path) -> Path:
    return shutil.copytree(whole, tmp_path / "set")


def check(folder: Path, *, deep: bool = False) -> Report:
    return verify_dataset(folder, deep=deep, engine=inline)


def told(report: Report) -> list[str]:
    assert report.count >= len(report.problems)
    assert all(problem.remedy for problem in report.problems)
    return [f"{problem.file}: {problem.what}" for problem in report.problems]


def rows_of(folder: Path, shard: str) -> list[dict]:
    return [row for row in pq.read_table(folder / "manifest.parquet").to_pylist() if row["shard"] == shard]


def edit_manifest(folder: Path, change: Callable[[list[dict]], object]) -> None:
    """As if the dataset had been written with this manifest."""
    path = folder / "manifest.parquet"
    table = pq.read_table(path)
    rows = table.to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)
    summarise(folder)


# nothing wrong


@pytest.mark.parametrize("deep", [False, True])
def test_a_whole_dataset_has_no_problem_and_is_left_alone(dataset, deep):
    before = {path: path.stat().st_mtime_ns for path in dataset.rglob("*")}
    report = check(dataset, deep=deep)
    assert told(report) == []
    assert (report.count, report.samples) == (0, 48)
    assert report.masks == pq.read_metadata(dataset / "manifest.parquet").num_rows
    assert {path: path.stat().st_mtime_ns for path in dataset.rglob("*")} == before


def test_workers_find_the_same(dataset):
    os.truncate(dataset / SHARD, 10_000)
    (dataset / "shards/val-000000.tar").unlink()
    assert verify_dataset(dataset, engine=pool.run, workers=2) == check(dataset)


@pytest.mark.parametrize(("present", "says"), [("build.json", "unfinished"), ("x", "no dataset here")])
def test_what_is_no_finished_dataset_is_an_error(tmp_path, present, says):
    (tmp_path / present).write_text("{}")
    with pytest.raises(ConfigError, match=says):
        check(tmp_path)


# files


def test_a_flipped_byte_names_shard_and_sample(dataset):
    row = rows_of(dataset, SHARD)[3]
    content = bytearray((dataset / SHARD).read_bytes())
    content[row["offset"] + row["size"] // 2] ^= 4
    (dataset / SHARD).write_bytes(content)
    report = check(dataset)
    assert told(report) == [
        f"{SHARD}: its content is not what was written: the SHA-256 differs from dataset.json",
        f"{SHARD}: sample {row['key']}: {row['size']} bytes at offset {row['offset']} differ from the "
        "manifest's digest",
    ]
    assert report.problems[0].remedy.startswith("run the same `medcurate pack` again")


def test_a_shard_cut_between_two_samples_names_what_is_lost(dataset):
    rows = rows_of(dataset, SHARD)
    keys = list(dict.fromkeys(row["key"] for row in rows))
    cut = next(row["offset"] for row in rows if row["key"] == keys[-2])
    content = (dataset / SHARD).read_bytes()
    (dataset / SHARD).write_bytes(content[:cut] + END_OF_TAR)  # a complete, shorter tar
    problems = told(check(dataset))
    assert problems[0] == f"{SHARD}: has {cut + 1024:,} bytes; dataset.json says {len(content):,}"
    assert [key for key in keys if any(key in problem for problem in problems)] == keys[-2:]
    assert "ends at byte" in problems[-1]


def test_a_missing_shard(dataset):
    (dataset / SHARD).unlink()
    assert told(check(dataset)) == [f"{SHARD}: is missing"]


@pytest.mark.parametrize("name", TABLES)
def test_a_missing_table(dataset, name):
    (dataset / name).unlink()
    assert told(check(dataset)) == [f"{name}: is missing"]


@pytest.mark.parametrize("name", TABLES)
def test_a_damaged_table(dataset, name):
    (dataset / name).write_bytes((dataset / name).read_bytes()[:-9])
    first, second = told(check(dataset))
    assert first == f"{name}: its content is not what was written: it differs from dataset.json"
    assert second.startswith(f"{name}: is not a readable Parquet file")


def test_a_file_that_the_disk_does_not_give_back_is_told_with_all_that_is_wrong_elsewhere(
    dataset, monkeypatch
):
    def failing(path):
        if path.name in {"rejects.parquet", "README.md"}:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return sha256_file(path)

    (dataset / "README.md").write_text("a published dataset")
    record_again(dataset, "README.md")
    (dataset / SHARD).unlink()
    monkeypatch.setattr("medcurate.verify.run.sha256_file", failing)
    assert told(check(dataset)) == [
        "rejects.parquet: cannot be read (Input/output error)",
        "README.md: cannot be read (Input/output error)",
        f"{SHARD}: is missing",
    ]


def test_a_worker_that_is_killed_blames_no_file(dataset):
    def dying(work, jobs, **given):
        for outcome in inline(work, jobs, **given):
            killed = Failure(Reason.DECODER_CRASH, "", "the worker process ended: SIGKILL")
            yield Outcome(outcome.job, None, killed) if outcome.job.name == SHARD else outcome

    (problem,) = verify_dataset(dataset, engine=dying).problems
    assert (problem.file, problem.what) == (SHARD, "could not be checked: the worker process ended: SIGKILL")
    assert "medcurate verify` again, with fewer --workers" in problem.remedy


def test_a_summary_that_does_not_say_what_the_manifest_says(dataset):
    path = dataset / "summary.parquet"
    table = pq.read_table(path)
    rows = table.to_pylist()
    right = dict(rows[0])
    rows[0]["masks"] += 1
    gone = rows.pop()
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)
    record_again(dataset, "summary.parquet")
    problems = told(check(dataset))
    assert len(problems) == 3
    assert problems[0].startswith("summary.parquet: the manifest does not give its row {")
    assert f"'masks': {right['masks'] + 1}, " in problems[0]
    assert all(p.startswith("summary.parquet: lacks a row that the manifest gives: {") for p in problems[1:])
    assert any(f"'label': {gone['label']}, " in problem for problem in problems[1:])


def test_a_dataset_of_before_there_were_summaries_has_no_problem(dataset):
    record = json.loads((dataset / "dataset.json").read_bytes())
    del record["files"]["summary.parquet"]
    (dataset / "dataset.json").write_text(json.dumps(record))
    assert told(check(dataset)) == ["summary.parquet: does not belong to the dataset"]
    (dataset / "summary.parquet").unlink()
    assert told(check(dataset)) == []


def test_files_that_do_not_belong_are_named(dataset):
    for name in ("notes.txt", "shards/train-000099.tar", "shards/.tmp-1-train-000000.tar", "build.json"):
        (dataset / name).write_bytes(b"{}")
    report = check(dataset)
    assert told(report) == [
        "build.json: was left by an interrupted run",
        "notes.txt: does not belong to the dataset",
        "shards/.tmp-1-train-000000.tar: was left by an interrupted run",
        "shards/train-000099.tar: does not belong to the dataset",
    ]


def test_everything_wrong_is_reported_at_once_and_the_list_is_bounded(dataset):
    for path in (dataset / "shards").iterdir():
        path.write_bytes(bytes(path.stat().st_size))
    for number in range(300):
        (dataset / f"stray{number:03d}").touch()
    report = check(dataset)
    assert len(report.problems) == 200
    assert report.count > 300 + 48


# tables against shards; dataset.json agrees, so only the content can give it away


def test_a_group_in_two_splits(dataset):
    groups = sorted({row["group"] for row in rows_of(dataset, SHARD)})

    def cross(rows):
        for row in rows:
            if row["split"] == "val":
                row["group"] = groups[0]

    edit_manifest(dataset, cross)
    report = check(dataset)
    assert f"manifest.parquet: the group {groups[0]} is in several splits: train, val" in told(report)
    assert "build the dataset again" in report.problems[0].remedy


EDITS = {
    "key": (lambda row: row.update(key="demo--other--z0000"), "the tar calls it demo--case"),
    "offset": (lambda row: row.update(offset=row["offset"] + 512), "starts at byte"),
    "size": (lambda row: row.update(size=row["size"] - 512), "differ from the manifest's digest"),
    "digest": (lambda row: row.update(digest=row["digest"] ^ 1), "differ from the manifest's digest"),
    "split": (lambda row: row.update(split="val"), 'holds samples of split "val"'),
    "unknown split": (lambda row: row.update(split="dev"), 'rows have the split "dev"'),
    "shard": (lambda row: row.update(shard="shards/train-000077.tar"), "train-000077.tar"),
    "source": (lambda row: row.update(source="elsewhere"), 'rows have the source "elsewhere"'),
    "null": (lambda row: row.update(label=None), "lack a value"),
    "box": (lambda row: row.update(x1=4_000), "has an impossible box or area"),
    "organ": (lambda row: row.update(organ="x"), "do not agree on organ, region, laterality, lesion, snomed"),
    "licence": (lambda row: row.update(licence="MIT"), "do not agree on licence, commercial, synthetic"),
    "unknown commercial": (lambda row: row.update(commercial=None), "do not agree on licence, commercial"),
    "spacing": (lambda row: row.update(row_spacing_mm=-1.0), "has an impossible spacing or plane"),
    "plane": (lambda row: row.update(slice_index=row["slice_count"]), "has an impossible spacing or plane"),
    "no such place": (lambda row: row.update(offset=-512), "starts at byte -512"),
    "annotation": (lambda row: row.update(annotation=row["annotation"] + 9), "are not numbered 0 to"),
}


@pytest.mark.parametrize("what", EDITS)
def test_an_edited_manifest_row(dataset, what):
    change, says = EDITS[what]
    first = rows_of(dataset, SHARD)[0]["key"]
    edit_manifest(dataset, lambda rows: [change(row) for row in rows if row["key"] == first])
    problems = told(check(dataset))
    assert any(says in problem for problem in problems), problems


def test_a_lost_manifest_row_and_wrong_counts(dataset):
    rows = rows_of(dataset, SHARD)
    key = next(row["key"] for row in rows if row["annotation"] == 1)

    def forget_last(rows):
        rows.remove([row for row in rows if row["key"] == key][-1])

    edit_manifest(dataset, forget_last)
    problems = told(check(dataset))
    assert any("masks written; dataset.json says" in problem for problem in problems)
    held = len([row for row in rows_of(dataset, SHARD) if row["key"] == key])
    assert held
    expected = f"{SHARD}: sample {key}: its JSON has {held + 1} annotations; the manifest has {held} rows"
    assert expected in problems


def test_a_sample_that_no_row_knows(dataset):
    key = rows_of(dataset, SHARD)[0]["key"]

    def forget(rows):
        rows[:] = [row for row in rows if row["key"] != key]

    edit_manifest(dataset, forget)
    assert any("instead of 0" in problem for problem in told(check(dataset)))


def edit_record(folder: Path, change: Callable[[dict], object]) -> None:
    path = folder / "dataset.json"
    record = json.loads(path.read_bytes())
    change(record)
    path.write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("licence", "commercial"), [("MIT", "yes"), ("CC0-1.0", "no"), ("CC0-1.0", "unknown")]
)
def test_rows_whose_licence_is_not_that_of_the_record(dataset, licence, commercial):
    stated = {"id": "CC0-1.0", "commercial": "yes"}
    edit_record(dataset, lambda record: record["sources"]["demo"].update(licence=stated))
    assert told(check(dataset)) == []
    stated = {"id": licence, "commercial": commercial}
    edit_record(dataset, lambda record: record["sources"]["demo"].update(licence=stated))
    (problem,) = told(check(dataset))
    assert problem.startswith(
        "manifest.parquet: rows of the source demo have the licence CC0-1.0 (commercial use: True)"
    )


def test_a_record_whose_words_are_no_words_ends_in_no_traceback(dataset):
    edit_record(dataset, lambda record: record["made_by"].update(verb={}))
    edit_record(dataset, lambda record: record["sources"]["demo"].update(licence={"commercial": {}}))
    (problem,) = told(check(dataset))
    assert "dataset.json says None (None)" in problem


def test_counts_that_do_not_add_up(dataset):
    counts = {"discovered": 9, "written": 6, "rejected": 1, "not_selected": 2}
    edit_record(dataset, lambda record: record["counts"].update(cases=counts))
    assert told(check(dataset)) == []
    edit_record(dataset, lambda record: record["counts"]["cases"].update(discovered=10))
    (problem,) = told(check(dataset))
    assert problem.startswith("dataset.json: its counts do not add up: cases ")


@pytest.mark.parametrize(
    ("key", "value"),
    [("counts", 3), ("counts", {"masks": 3}), ("files", []), ("files", {SHARD: {"size_bytes": "7", "sha256": ""}}),
     ("sources", {"demo": "CC0-1.0"}), ("made_by", None)],
)  # fmt: skip
def test_a_record_of_another_shape_is_an_error_of_one_line(dataset, key, value):
    edit_record(dataset, lambda record: record.update({key: value}))
    with pytest.raises(ConfigError, match="not a dataset record") as caught:
        check(dataset)
    assert key in str(caught.value)


def test_a_wrong_count_of_the_ledger(dataset):
    path = dataset / "rejects.parquet"
    table = pq.read_table(path)
    pq.write_table(pa.concat_tables([table, table]), path)
    record_again(dataset, "rejects.parquet")
    assert told(check(dataset)) == ["rejects.parquet: has 2 cases rejected; dataset.json says 1"]


def test_other_columns(dataset):
    path = dataset / "manifest.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["organ"]), path)
    record_again(dataset, "manifest.parquet")
    assert told(check(dataset)) == [
        "manifest.parquet: has other columns than the format says: organ",
    ]


# deep


def rewrite_sample(folder: Path, change: Callable[[np.ndarray, dict], np.ndarray]) -> str:
    """Change the last sample of a shard, with all sizes and digests made to agree. Returns its key."""
    rows = rows_of(folder, SHARD)
    last = rows[-1]
    content = (folder / SHARD).read_bytes()
    key, image_png, info = sample.split_members(content[last["offset"] : last["offset"] + last["size"]])
    image = change(png.decode(image_png), info)
    blob = sample.encode(key, png.encode(image) if isinstance(image, np.ndarray) else image, info)
    (folder / SHARD).write_bytes(content[: last["offset"]] + blob + END_OF_TAR)

    def update(rows):
        for row in rows:
            if row["key"] == key:
                row.update(size=len(blob), digest=sample.digest(blob))

    edit_manifest(folder, update)
    record_again(folder, SHARD)
    return key


def grow_mask(image, info):
    annotation = info["annotations"][0]
    mask = coco.decode(annotation["segmentation"])
    mask[0, 0] ^= 1
    annotation["segmentation"]["counts"] = coco.encode(np.asfortranarray(mask))["counts"].decode()
    return image


def rename_label(image, info):
    info["annotations"][0]["label"] = "spleen"
    return image


def reshape(image, info):
    return image.reshape(24, 96)


def damage_png(image, info):
    data = bytearray(png.encode(image))
    data[len(data) // 2] ^= 0xFF
    return bytes(data)


def break_rle(image, info):
    info["annotations"][0]["segmentation"]["counts"] = "0"
    return image


def other_modality(image, info):
    info["image"]["modality"] = "us"
    return image


def other_channel(image, info):
    info["image"] |= {"source": "demo", "channel": "flair"}
    return image


def other_instance(image, info):
    info["annotations"][0]["instance"] = 7
    return image


def other_size(image, info):
    info["annotations"][0]["segmentation"]["size"] = [24, 96]
    return image


def no_facts(image, info):
    info["image"] = []
    return image


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (other_modality, "modality differs (JSON, manifest: us, "),
        (other_channel, "channel differs (JSON, manifest: flair, )"),
        (other_instance, "mask 0: instance differs (measured or numbered, JSON, manifest: 7, 7, 1)"),
        (
            other_size,
            "mask 0: segmentation size differs (measured or numbered, JSON, manifest: [48, 48], [24, 96]",
        ),
        (no_facts, "its image is 48 x 48; the JSON says (None, None), the manifest (48, 48)"),
        (grow_mask, "mask 0: area differs (measured or numbered, JSON, manifest:"),
        (rename_label, "mask 0: label differs (measured or numbered, JSON, manifest: spleen, spleen,"),
        (reshape, "its image is 24 x 96; the JSON says (48, 48), the manifest (48, 48)"),
        (break_rle, "is damaged: RLE describes 0 pixels"),
        (damage_png, "is damaged: PNG"),
    ],
)
def test_only_deep_verification_sees_into_samples(dataset, change, says):
    key = rewrite_sample(dataset, change)
    assert told(check(dataset)) == []
    problems = told(check(dataset, deep=True))
    assert problems
    assert all(problem.startswith(f"{SHARD}: sample {key}: ") for problem in problems)
    assert any(says in problem for problem in problems)


def test_a_sample_without_annotations_hides_no_other_problem(dataset):
    def no_annotations(image, info):
        info["annotations"] = None
        return image

    key = rewrite_sample(dataset, no_annotations)
    (dataset / SHARD).open("ab").write(b"more")
    assert f"{SHARD}: sample {key}: its JSON has no list of annotations" in told(check(dataset))
    assert len(told(check(dataset))) == 3


@pytest.mark.parametrize(
    ("column", "value"),
    [("area_px", 7), ("y0", 0), ("label", "spleen"), ("touches_border", True), ("area_mm2", 1.5),
     ("area_fraction", 0.5), ("area_mm2", None)],
)  # fmt: skip
def test_deep_compares_each_measure_with_its_row(dataset, column, value):
    rows = pq.read_table(dataset / "manifest.parquet").to_pylist()
    chosen = next(n for n, row in enumerate(rows) if row[column] != value and row["area_px"] > 7)
    edit_manifest(dataset, lambda rows: rows[chosen].update({column: value}))
    assert told(check(dataset)) == []
    name = {"area_px": "area", "y0": "bbox"}.get(column, column)
    problems = told(check(dataset, deep=True))
    assert problems
    assert all(rows[chosen]["key"] in problem for problem in problems)
    assert any(f": {name} " in problem for problem in problems)


# the command line


def test_verbs_on_the_command_line(whole, tmp_path):
    runner = CliRunner()
    out = tmp_path / "view"
    packed = runner.invoke(
        app, ["pack", str(whole), str(out), "--where", "organ = 'liver'", "--workers", "1"]
    )
    assert packed.exit_code == 0, packed.output
    assert "images" in packed.output
    good = runner.invoke(app, ["verify", str(out), "--deep", "--workers", "1"])
    assert good.exit_code == 0
    assert "no problem found" in good.output
    os.truncate(next((out / "shards").iterdir()), 3_000)
    bad = runner.invoke(app, ["verify", str(out), "--workers", "1"])
    assert bad.exit_code == 1
    assert "to mend it: run the same `medcurate pack` again" in bad.output
    work = tmp_path / "view.work"
    refused = runner.invoke(app, ["clean", str(out)], input="n\n")
    assert refused.exit_code == 1
    assert work.is_dir()
    assert runner.invoke(app, ["clean", str(out), "--yes"]).exit_code == 0
    (tmp_path / "mine.work").mkdir()
    assert isinstance(runner.invoke(app, ["clean", str(tmp_path / "mine"), "--yes"]).exception, ConfigError)
    assert (tmp_path / "mine.work").is_dir()
    assert not work.exists()
    assert out.is_dir()
