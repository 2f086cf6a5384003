"""The same bytes whatever happens: workers, engines, environments, kills, damage, other builders."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import lab
import pytest

from medcurate.job.spec import read_part_record


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lab.lab(tmp_path_factory.mktemp("data"), sources=4, cases=3)


@pytest.fixture(scope="module")
def reference(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("reference") / "out"
    lab.build(recipe, out, "--engine", "serial")
    return lab.digests(out)


@pytest.mark.parametrize("workers", ["1", "2", "4"])
def test_same_bytes_for_any_number_of_workers(
    recipe: Path, reference: dict[str, str], tmp_path: Path, workers: str
) -> None:
    lab.build(recipe, tmp_path / "out", "--workers", workers)
    assert lab.digests(tmp_path / "out") == reference


def test_same_bytes_in_another_environment(recipe: Path, reference: dict[str, str], tmp_path: Path) -> None:
    env = lab.environment(
        LC_ALL="tr_TR.UTF-8", LANG="tr_TR.UTF-8", TZ="Asia/Kathmandu", PYTHONHASHSEED="4711"
    )
    lab.build(recipe, tmp_path / "out", "--workers", "2", env=env, umask=0o077)
    assert lab.digests(tmp_path / "out") == reference


def test_same_bytes_with_half_of_the_jobs_already_done(
    recipe: Path, reference: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    lab.build(recipe, out, "--workers", "2")
    shutil.rmtree(out)
    records = sorted((tmp_path / "out.work" / "parts").glob("*[0-9a-f].json"))
    kept = {path: path.stat().st_mtime_ns for path in records[::2]}
    for path in records[1::2]:
        path.unlink()
    lab.build(recipe, out, "--workers", "2")
    assert lab.digests(out) == reference
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


@pytest.mark.parametrize("trial", range(4))
def test_kill_at_a_random_moment_then_rerun_gives_the_same_bytes(
    recipe: Path, reference: dict[str, str], tmp_path: Path, trial: int
) -> None:
    out = tmp_path / "out"
    moments = random.Random(trial)
    for _ in range(3):
        with started(lab.command(recipe, out, "--workers", "2")) as process:
            time.sleep(moments.uniform(0.3, 2.5))
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        assert not (out / "dataset.json").exists() or lab.digests(out) == reference
    lab.build(recipe, out, "--workers", "2")
    assert lab.digests(out) == reference


def started(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_in_seconds_and_a_rerun_continues(
    recipe: Path, reference: dict[str, str], tmp_path: Path, number: signal.Signals
) -> None:
    out = tmp_path / "out"
    with started(lab.command(recipe, out, "--workers", "1")) as process:
        parts = tmp_path / "out.work" / "parts"
        while not any(parts.glob("*.json")):
            assert process.poll() is None
            time.sleep(0.02)
        os.killpg(process.pid, number)
        before = time.monotonic()
        _, errors = process.communicate(timeout=20)
        assert time.monotonic() - before < 10
    assert process.returncode == 130
    assert "run the same command again" in errors
    assert "Traceback" not in errors
    lab.build(recipe, out, "--workers", "2")
    assert lab.digests(out) == reference


@pytest.mark.parametrize("fault", ["flip", "cut", "delete"])
def test_a_damaged_file_of_a_finished_dataset_is_named_and_rebuilt_alone(
    recipe: Path, reference: dict[str, str], tmp_path: Path, fault: str
) -> None:
    out = tmp_path / "out"
    lab.build(recipe, out, "--workers", "2")
    victim = sorted((out / "shards").glob("*.tar"))[1]
    damage(victim, fault)
    found = subprocess.run(lab.medcurate("verify", str(out)), capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert victim.name in found.stdout + found.stderr
    others = {path: path.stat().st_mtime_ns for path in out.rglob("*.tar") if path != victim}
    done = lab.build(recipe, out, "--workers", "2")
    assert victim.name in done.stderr
    assert lab.digests(out) == reference
    assert {path: path.stat().st_mtime_ns for path in others} == others
    assert "complete and undamaged" in lab.build(recipe, out).stdout


def damage(path: Path, fault: str) -> None:
    if fault == "delete":
        path.unlink()
        return
    content = bytearray(path.read_bytes())
    if fault == "cut":
        del content[len(content) // 1024 * 512 :]
    else:
        content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_damaged_part_is_built_again(recipe: Path, reference: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    lab.build(recipe, out)
    shutil.rmtree(out)
    shutil.rmtree(tmp_path / "out.work" / "pack", ignore_errors=True)
    part = sorted((tmp_path / "out.work" / "parts").glob("*.tar"))[0]
    damage(part, "flip")
    done = lab.build(recipe, out)
    assert part.name in done.stderr
    assert lab.digests(out) == reference


def test_a_changed_input_is_read_again(tmp_path: Path) -> None:
    recipe = lab.lab(tmp_path, sources=1, cases=2)
    out, fresh = tmp_path / "out", tmp_path / "fresh"
    lab.build(recipe, out)
    shutil.rmtree(out)
    image, label = lab.volume(1)
    image[0, 0, 0] = 3
    lab.write_pair(tmp_path / "lab-a", "p1_scan", image, label)
    lab.build(recipe, out)
    lab.build(recipe, fresh)
    assert lab.digests(out) == lab.digests(fresh)


def test_two_builds_on_one_output_the_second_names_the_first(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with started(lab.command(recipe, out, "--workers", "1")) as first:
        while not (tmp_path / "out.work" / "plan.json").exists():
            assert first.poll() is None
            time.sleep(0.005)
        os.kill(first.pid, signal.SIGSTOP)  # so that it does not end before the second has started
        second = lab.build(recipe, out, code=1)
        assert f"process {first.pid}" in second.stderr
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    lab.build(recipe, out)


def test_another_recipe_on_the_same_output_is_refused_with_what_differs(tmp_path: Path) -> None:
    recipe = lab.lab(tmp_path, sources=1, cases=1)
    lab.build(recipe, tmp_path / "out")
    recipe.write_text(recipe.read_text().replace("pixels = 10", "pixels = 25"))
    refused = lab.build(recipe, tmp_path / "out", code=1)
    assert "recipe.masks.min_area.pixels: 10.0 -> 25.0" in refused.stderr
    source = tmp_path / "lab-a.toml"
    recipe.write_text(recipe.read_text().replace("pixels = 25", "pixels = 10"))
    source.write_text(source.read_text().replace('2 = "spleen"', '2 = "pancreas"'))
    refused = lab.build(recipe, tmp_path / "out", code=1)
    assert 'sources.lab-a.labels.2: "spleen" -> "pancreas"' in refused.stderr


def test_parts_are_reused_when_a_source_is_added(tmp_path: Path) -> None:
    lab.write_source(tmp_path, "lab-a")
    lab.write_source(tmp_path, "lab-b", seed=5)
    work = ["--work", str(tmp_path / "work")]
    lab.build(lab.write_recipe(tmp_path, "lab-a"), tmp_path / "one", *work)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "work" / "parts").iterdir()}
    lab.build(lab.write_recipe(tmp_path, "lab-a", "lab-b"), tmp_path / "two", *work)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    lab.build(lab.write_recipe(tmp_path, "lab-a", "lab-b"), tmp_path / "fresh")
    assert lab.digests(tmp_path / "two") == lab.digests(tmp_path / "fresh")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a tmpfs needs privileges")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_says_what_is_needed_and_a_rerun_continues(
    recipe: Path, reference: dict[str, str], small_disk: Path
) -> None:
    failed = lab.build(recipe, small_disk / "out", "--workers", "2", code=1)
    told = re.search(r"bout ([\d,]+) bytes are needed", failed.stderr)
    standing = tar_bytes(small_disk)
    assert "Traceback" not in failed.stderr
    assert not [path for path in small_disk.rglob("*") if path.name.startswith(".tmp-")]
    for path in small_disk.rglob("parts/*[0-9a-f].json"):
        assert (path.with_suffix(".tar")).stat().st_size == read_part_record(path).tar_bytes
    subprocess.run(["mount", "-o", "remount,size=50m", str(small_disk)], check=True)
    lab.build(recipe, small_disk / "out", "--workers", "2")
    assert lab.digests(small_disk / "out") == reference
    needed = tar_bytes(small_disk) - standing
    assert 0.6 * needed < int(told[1].replace(",", "")) < 1.5 * needed


def tar_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.tar"))
