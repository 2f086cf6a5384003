"""Pack interrupted, damaged, short of space: a rerun gives the bytes of an uninterrupted run."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kit import pieces, write_dataset
from pack_kit import inline, pack, tree

from medcurate.errors import OutputError
from medcurate.pack import run as pack_run
from medcurate.pack.dataset import pack_dataset, work_folder
from medcurate.pack.types import DamagedInput, PackRules

SHARD_BYTES = 65_536
KILLS = 5


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("resume") / "in", pieces(160, size=96), per_shard=40)


@pytest.fixture(scope="module")
def expected(source, tmp_path_factory) -> dict[str, str]:
    return tree(pack(source, tmp_path_factory.mktemp("whole") / "out", shard_bytes=SHARD_BYTES, size_px=80))


def again(source: Path, out: Path):
    rules = PackRules(shard_bytes=SHARD_BYTES, size_px=80)
    return pack_dataset(source, out, rules, engine=inline, workers=1)


def start(source: Path, out: Path, workers: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "medcurate", "pack", str(source), str(out), "--size", "80"]
    options = ["--shard-size", "64KiB", "--workers", str(workers)]
    return subprocess.Popen([*command, *options], stderr=subprocess.PIPE, start_new_session=True)


def committed_files(out: Path) -> int:
    return sum(len(list(folder.rglob("[!.]*"))) for folder in (out, work_folder(out)) if folder.is_dir())


def test_killed_at_random_moments_and_run_again(source, expected, tmp_path):
    out, chance, killed = tmp_path / "out", random.Random(0), 0
    for trial in range(KILLS):
        process = start(source, out, workers=1 + trial % 2)
        goal = committed_files(out) + chance.randrange(1, 12)
        while process.poll() is None and committed_files(out) < goal:
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.03))
        process.kill()  # the driver alone: its workers must not outlive it and go on writing
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
    assert killed >= KILLS - 2
    process = start(source, out, workers=2)
    _, text = process.communicate(timeout=120)
    assert process.returncode == 0, text.decode()
    assert tree(out) == expected


def test_a_rerun_on_a_finished_output_writes_nothing(source, expected, tmp_path):
    out = tmp_path / "out"
    again(source, out)
    before = times(out)
    assert again(source, out).made == ()
    assert times(out) == before
    assert tree(out) == expected


def times(out: Path) -> dict[str, int]:
    return {name: (out / name).stat().st_mtime_ns for name in tree(out)}


@pytest.mark.parametrize("cleaned", [False, True], ids=["work kept", "work removed"])
def test_damaged_and_missing_files_are_made_again_alone(source, expected, tmp_path, cleaned):
    out = tmp_path / "out"
    again(source, out)
    flip(out / "shards/train-000001.tar", 5_000)
    (out / "shards/val-000000.tar").unlink()
    flip(out / "rejects.parquet", 100)
    flip(out / "summary.parquet", 100)
    if cleaned:
        shutil.rmtree(work_folder(out))
    before = times(out)
    result = again(source, out)
    damaged = {"shards/train-000001.tar", "shards/val-000000.tar", "rejects.parquet", "summary.parquet"}
    assert set(result.made) == damaged
    assert tree(out) == expected
    changed = {name for name, time_ns in times(out).items() if before.get(name) != time_ns}
    assert changed == set(result.made)


def test_a_missing_summary_is_made_again_alone(source, expected, tmp_path):
    out = tmp_path / "out"
    again(source, out)
    (out / "summary.parquet").unlink()
    shutil.rmtree(work_folder(out))
    assert again(source, out).made == ("summary.parquet",)
    assert tree(out) == expected


def test_an_output_of_before_there_were_summaries_is_repaired_to_what_it_was(source, tmp_path):
    out = tmp_path / "out"
    again(source, out)
    (out / "summary.parquet").unlink()
    record = json.loads((out / "dataset.json").read_bytes())
    del record["files"]["summary.parquet"]
    (out / "dataset.json").write_text(json.dumps(record))
    before = tree(out)
    assert again(source, out).made == ()
    (out / "manifest.parquet").unlink()
    (out / "shards/val-000000.tar").unlink()
    assert set(again(source, out).made) == {"manifest.parquet", "shards/val-000000.tar"}
    assert tree(out) == before


def flip(path: Path, position: int) -> None:
    with open(path, "r+b") as stream:
        stream.seek(position)
        (byte,) = stream.read(1)
        stream.seek(position)
        stream.write(bytes([byte ^ 1]))


def test_an_unfinished_output_keeps_the_shards_it_has(source, expected, tmp_path, monkeypatch):
    out, real, seen = tmp_path / "out", pack_run.pack_shard, []

    def stops_after_three(job, guard):
        seen.append(job.name)
        if len(seen) > 3:
            raise OutputError("stop")
        return real(job, guard)

    monkeypatch.setattr(pack_run, "pack_shard", stops_after_three)
    with pytest.raises(OutputError, match="stop"):
        again(source, out)
    before = times(out)
    assert not (out / "dataset.json").exists()
    monkeypatch.setattr(pack_run, "pack_shard", real)
    result = again(source, out)
    assert not set(result.made) & set(seen[:3])
    assert {name: times(out)[name] for name in seen[:3]} == {name: before[name] for name in seen[:3]}
    assert tree(out) == expected


def test_a_shard_of_an_unfinished_output_that_was_cut_is_made_again_alone(source, expected, tmp_path):
    out = tmp_path / "out"
    again(source, out)
    (out / "dataset.json").unlink()
    os.truncate(out / "shards/train-000001.tar", 1 << 15)
    assert [name for name in again(source, out).made if name.endswith(".tar")] == ["shards/train-000001.tar"]
    assert tree(out) == expected


@pytest.mark.parametrize("damage", ["flip", "cut", "missing", "other bytes"])
def test_a_damaged_input_stops_and_names_file_and_key(source, expected, tmp_path, damage):
    broken, out = tmp_path / "in", tmp_path / "out"
    shutil.copytree(source, broken)
    shard = broken / "shards/train-000001.tar"
    whole = shard.read_bytes()
    if damage == "flip":
        flip(shard, len(whole) // 2)
    elif damage == "cut":
        os.truncate(shard, len(whole) // 2)
    elif damage == "missing":
        shard.unlink()
    else:
        shard.write_bytes(bytes(len(whole)))
    with pytest.raises(DamagedInput) as caught:
        again(broken, out)
    assert caught.value.path == shard
    assert caught.value.key.startswith("demo--case")
    assert str(shard) in str(caught.value)
    assert caught.value.key in str(caught.value)
    assert not (out / "dataset.json").exists()
    shard.write_bytes(whole)
    again(broken, out)
    assert tree(out) == expected


def test_damage_travels_out_of_a_worker_process(source, tmp_path):
    broken, out = tmp_path / "in", tmp_path / "out"
    shutil.copytree(source, broken)
    flip(broken / "shards/test-000000.tar", 700)
    process = start(broken, out, 2)
    _, text = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "test-000000.tar: sample demo--case" in text.decode()
    assert "Traceback" not in text.decode()


def test_too_little_space_is_said_beforehand(source, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OutputError, match=r"about [\d,]{6,} bytes are needed and 1,000 are free") as caught:
        pack(source, tmp_path / "out")
    assert str(tmp_path / "out") in str(caught.value)
    assert not list((tmp_path / "out").glob("shards/*"))
    monkeypatch.undo()
    pack(source, tmp_path / "out")


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1200k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if not mounted or mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted and mounted.stderr.decode()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_fills_up_stops_cleanly(source, expected, small_disk, monkeypatch):
    out = small_disk / "out"
    monkeypatch.setattr(pack_run, "_check_space", lambda jobs, out: None)
    with pytest.raises(OutputError, match=r"disk full while writing .*bytes are free") as caught:
        again(source, out)
    assert "run the same command again" in str(caught.value)
    finished = tree(out)
    assert "dataset.json" not in finished
    assert all(expected[name] == digest for name, digest in finished.items() if name != "build.json")
    assert not [name for name in finished if ".tmp-" in name]
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    again(source, out)
    assert tree(out) == expected
