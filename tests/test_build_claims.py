"""What an output is bound to, who may write to it, and what a later run tries again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import lab
import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from medcurate.build.status import read_status
from medcurate.claim import work_folder
from medcurate.cli.main import app
from medcurate.errors import ConfigError
from medcurate.lock import locked

OBLIQUE = np.array([[-0.61, 0.23, 0.4, 3.0], [-0.3, -0.63, 0.9, 2.0], [0.1, 0.12, 2.9, 1.0], [0, 0, 0, 1]])


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return lab.lab(tmp_path, sources=1, cases=2)


def reasons(dataset: Path) -> dict[str, str]:
    rows = pq.read_table(dataset / "rejects.parquet").to_pylist()
    return {row["case"]: row["reason"] for row in rows if row["stage"] in {"pair", "read", "label"}}


def test_the_bytes_do_not_depend_on_the_processor_that_blas_is_tuned_for(tmp_path: Path) -> None:
    recipe = lab.lab(tmp_path, sources=1, cases=1)
    for number in range(4):
        affine = OBLIQUE.copy()
        affine[:3, :3] *= 1 + number / 7
        lab.write_pair(tmp_path / "lab-a", f"p{number + 5}_oblique", *lab.volume(number), affine)
    for core in ("Haswell", "SkylakeX"):
        lab.build(recipe, tmp_path / core, env=lab.environment(OPENBLAS_CORETYPE=core))
    assert lab.digests(tmp_path / "Haswell") == lab.digests(tmp_path / "SkylakeX")


def test_a_case_refused_for_memory_comes_back_when_there_is_more(tmp_path: Path, recipe: Path) -> None:
    image = np.zeros((600, 600, 200), np.int16)
    image[10:90, 10:90, 5] = 1
    lab.write_pair(tmp_path / "lab-a", "p9_large", image, image)
    out = tmp_path / "out"
    lab.build(recipe, out, "--memory", "120MiB", "--workers", "1", code=3)
    assert reasons(out) == {"p9_large": "MEMORY"}
    shutil.rmtree(out)
    lab.build(recipe, out, "--memory", "2GiB", "--workers", "1")
    assert reasons(out) == {}


def test_another_work_folder_does_not_open_an_output_that_is_being_built(
    tmp_path: Path, recipe: Path
) -> None:
    out = tmp_path / "out"
    with locked(tmp_path / "out.work", "building out"):  # as a build without --work does
        second = lab.build(recipe, out, "--work", str(tmp_path / "second"), code=1)
    assert f"process {os.getpid()}" in second.stderr
    assert not out.exists()


def test_what_a_killed_claim_left_does_not_close_the_output(tmp_path: Path, recipe: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / ".tmp-0123-build.json").write_text("{")
    lab.build(recipe, out)


def test_a_damaged_record_without_its_copy_is_named(tmp_path: Path, recipe: Path) -> None:
    out = tmp_path / "out"
    lab.build(recipe, out)
    for path in (out / "dataset.json", tmp_path / "out.work" / "build.json"):
        path.write_text("{ damaged")
    failed = lab.build(recipe, out, code=1)
    assert "dataset.json: damaged" in failed.stderr
    assert "Traceback" not in failed.stderr


@pytest.mark.parametrize("content", [None, b"{ damaged"])
def test_a_lost_record_is_written_again(tmp_path: Path, recipe: Path, content: bytes | None) -> None:
    out = tmp_path / "out"
    lab.build(recipe, out)
    before = lab.digests(out)
    (out / "dataset.json").unlink()
    if content:
        (out / "dataset.json").write_bytes(content)
    lab.build(recipe, out)
    assert lab.digests(out) == before


def test_another_tool_version_is_refused_by_name(tmp_path: Path, recipe: Path) -> None:
    out = tmp_path / "out"
    lab.build(recipe, out)
    record = json.loads((out / "dataset.json").read_bytes())
    record["made_by"]["tools"]["isal"] = "0.0.1"
    (out / "dataset.json").write_text(json.dumps(record))
    refused = lab.build(recipe, out, code=1)
    assert 'tools.isal: "0.0.1" -> ' in refused.stderr


def test_a_failed_plan_leaves_no_claim(tmp_path: Path, recipe: Path) -> None:
    source = tmp_path / "lab-a.toml"
    good = source.read_text()
    source.write_text(good.replace('"img"', '"imgs"'))
    lab.build(recipe, tmp_path / "out", code=1)
    source.write_text(good)
    lab.build(recipe, tmp_path / "out")


def test_two_values_of_one_label_are_numbered_together(tmp_path: Path, recipe: Path) -> None:
    source = tmp_path / "lab-a.toml"
    source.write_text(source.read_text().replace('2 = "spleen"', '2 = "liver"'))
    lab.build(recipe, tmp_path / "out")
    rows = pq.read_table(
        tmp_path / "out" / "manifest.parquet", columns=["key", "label", "instance"]
    ).to_pylist()
    assert len({tuple(row.values()) for row in rows}) == len(rows)


def test_a_file_name_that_is_not_utf8_is_refused_by_itself(tmp_path: Path, recipe: Path) -> None:
    for part in ("img", "seg"):
        good = tmp_path / "lab-a" / part / "p1_scan.nii.gz"
        shutil.copy(good, os.fsencode(good.parent) + b"/p7_m\xfcller.nii.gz")
    lab.build(recipe, tmp_path / "out", code=3)
    assert list(reasons(tmp_path / "out").values()) == ["UNREADABLE"]


def test_a_folder_of_somebody_else_is_refused_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    recipe = lab.lab(tmp_path, sources=1, cases=1)
    out = tmp_path / "theirs" / "letters"
    out.mkdir(parents=True)
    (out / "a.txt").touch()
    refused = lab.build(recipe, out, code=1)
    assert "not empty and not a dataset of medcurate (found a.txt)" in refused.stderr
    assert sorted(path.name for path in out.parent.rglob("*")) == ["a.txt", "letters"]


def test_status_tells_stopped_from_finished(tmp_path: Path, recipe: Path) -> None:
    out = tmp_path / "out"
    lab.build(recipe, out)
    assert "finished" in status(out)
    (out / "dataset.json").unlink()
    assert "stopped; run the same build command again" in status(out)
    assert json.loads(status(out, "--json"))["sources"][0]["cases_written"] == 2


def test_status_refuses_a_work_folder_that_is_not_there(tmp_path: Path, recipe: Path) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    lab.build(recipe, out)
    with pytest.raises(ConfigError, match=f"--work {elsewhere}: there is no such folder"):
        read_status(out, elsewhere)
    shutil.rmtree(work_folder(out))  # as `medcurate clean` does
    assert read_status(out, work_folder(out)).state.startswith("finished")


def test_status_shows_a_build_that_runs_and_what_it_has_done(tmp_path: Path) -> None:
    recipe = lab.lab(tmp_path, sources=3, cases=2)
    out, parts = tmp_path / "out", tmp_path / "out.work" / "parts"
    command = lab.command(recipe, out, "--workers", "1")
    with subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as running:
        try:
            while not any(parts.glob("[0-9a-f]*.json")):
                assert running.poll() is None
                time.sleep(0.002)
            os.killpg(running.pid, signal.SIGSTOP)  # so that it does not end while it is looked at
            shown = json.loads(status(out, "--json"))
            text = status(out)
        finally:
            os.killpg(running.pid, signal.SIGKILL)
    assert shown["state"].startswith(f"running: process {running.pid} ")
    done = [entry["cases_written"] for entry in shown["sources"] if entry["jobs_done"]]
    assert done == [2] * len(done)
    assert 1 <= len(done) <= 3
    assert f"{out}: running: process {running.pid} " in text
    assert "stopped; run the same build command again" in status(out)


_WAITING_READER = """
import time
import medcurate.readers.files as files
read = files.CaseFiles.read
def waiting(self, path):
    if "waits" in path.name:
        time.sleep(60)
    return read(self, path)
files.CaseFiles.read = waiting
"""


def test_status_counts_the_cases_of_a_job_that_still_runs(tmp_path: Path) -> None:
    recipe = lab.lab(tmp_path, sources=1, cases=2)
    lab.write_pair(tmp_path / "lab-a", "p9_waits", *lab.volume(9))
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(_WAITING_READER)
    out, work = tmp_path / "out", tmp_path / "out.work"
    with subprocess.Popen(
        lab.command(recipe, out, "--workers", "1"),
        env=lab.environment(PYTHONPATH=str(tmp_path / "site")),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as running:
        try:
            while not list((work / "parts").glob(".tmp-*.progress")):
                assert running.poll() is None
                time.sleep(0.01)
            while (shown := read_status(out, work).sources[0]).cases_written < 2:
                assert running.poll() is None
                time.sleep(0.01)
        finally:
            os.killpg(running.pid, signal.SIGKILL)
    assert (shown.jobs_done, shown.cases_written, shown.cases_refused, shown.cases) == (0, 2, 0, 3)
    assert shown.masks > 2
    assert read_status(out, work).sources[0].cases_written == 0  # they are built again
    (tmp_path / "site" / "sitecustomize.py").unlink()
    lab.build(recipe, out)
    assert not list((work / "parts").glob(".tmp-*"))
    assert read_status(out, work).sources[0].cases_written == 3


def status(out: Path, *more: str) -> str:
    done = subprocess.run(
        lab.medcurate("status", str(out), *more), capture_output=True, text=True, check=True
    )
    return done.stdout


def test_outputs_that_share_their_parts_keep_what_is_their_own(tmp_path: Path) -> None:
    """Plans, the names behind pseudonyms and the state of packing are of one output; parts are of both."""
    lab.write_source(tmp_path, "lab-a")
    lab.write_source(tmp_path, "lab-b", seed=5)
    work = ["--work", str(tmp_path / "work")]
    first, second = tmp_path / "one", tmp_path / "two"
    lab.build(lab.write_recipe(tmp_path, "lab-a"), first, *work)
    before = lab.digests(tmp_path / "one.work")
    shown = status(first, "--json", *work)
    lab.build(lab.write_recipe(tmp_path, "lab-b"), second, *work)
    assert lab.digests(tmp_path / "one.work") == before
    assert status(first, "--json", *work) == shown
    assert [
        (entry["source"], entry["cases_written"])
        for entry in json.loads(status(second, "--json", *work))["sources"]
    ] == [("lab-b", 3)]
    for name in ("one", "two"):
        assert (tmp_path / f"{name}.work" / "names.json").is_file()
    assert {path.name for path in (tmp_path / "work").iterdir()} == {"lock", "parts"}


def test_clean_leaves_parts_that_are_elsewhere_and_says_how_to_remove_them(
    tmp_path: Path, recipe: Path
) -> None:
    out, work = tmp_path / "out", tmp_path / "work"
    lab.build(recipe, out, "--work", str(work))
    (work / "mine.txt").write_text("not medcurate's")
    runner = CliRunner()
    done = runner.invoke(app, ["clean", str(out)], input="y\n")
    assert "Its parts stay where they are." in done.output
    assert f"`medcurate clean {out} --work FOLDER` removes them" in done.output
    assert not (tmp_path / "out.work").exists()
    assert (work / "parts").is_dir()
    words = ["clean", str(out), "--work", str(work)]
    refused = runner.invoke(app, words, input="n\n")
    assert "no build that was given this folder can reuse its parts" in refused.output
    assert (work / "parts").is_dir()
    assert f"removed {work}/parts" in runner.invoke(app, [*words, "--yes"]).output
    assert {path.name for path in work.iterdir()} == {"lock", "mine.txt"}
    assert "no parts" in str(runner.invoke(app, [*words, "--yes"]).exception)
