"""What only a Ray cluster shows; ``test_ray.py`` runs these beside one, and the tests of every engine too."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import lab
import pytest
from engine_works import MIB, Job, work
from test_engines import ABANDONED, BUSY, DRIVER, assert_ended, processes, wait_for
from test_resume import started

from medcurate.engines import ray as engine
from medcurate.engines.place import Place, place
from medcurate.engines.types import Limits, Needs
from medcurate.errors import OutputError, Reason

os.environ["PYTHONPATH"] = str(Path(__file__).parent)  # of the drivers that are started here
LIMITS = Limits(step_seconds=30, memory_bytes=256 * MIB)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lab.lab(tmp_path_factory.mktemp("data"), sources=4, cases=3)


@pytest.fixture(scope="module")
def reference(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("reference") / "out"
    lab.build(recipe, out, "--engine", "serial")
    return lab.digests(out)


def test_workers_and_memory_are_those_of_the_cluster() -> None:
    assert engine.cpus() == 2
    assert engine.memory_bytes(1) == engine.memory_bytes(2) > 256 * MIB  # a machine has one CPU


def test_workers_are_on_several_machines_at_a_time_and_as_many_as_find_room() -> None:
    jobs = [Job("ray machine")] * 12
    found = [outcome.result for outcome in engine.run(work, jobs, workers=5, limits=LIMITS)]
    assert len(found) == 12
    assert len(set(found)) == 2


def test_a_lost_ray_worker_costs_the_job_that_it_had() -> None:
    jobs = [Job("double", 1), Job("kill ray worker"), *[Job("double", number) for number in (2, 3, 4)]]
    found = {outcome.job: outcome for outcome in engine.run(work, jobs, workers=1, limits=LIMITS)}
    assert [found[job].result for job in jobs] == [2, None, 4, 6, 8]
    failure = found[jobs[1]].failure
    assert failure
    assert (failure.reason, failure.step) == (Reason.DECODER_CRASH, "")
    assert "the Ray worker or its machine was lost" in failure.detail


def test_a_machine_that_is_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def with_another_numpy(needs: Needs) -> Iterator[Place]:
        with place(needs) as here:
            yield replace(here, tools={**here.tools, "numpy": "1.0"})

    monkeypatch.setattr(engine, "place", with_another_numpy)
    with pytest.raises(OutputError, match=r"has numpy [\d.]+, the driver 1\.0"):
        list(engine.run(work, [Job("double", 1)], workers=1, limits=LIMITS))


@pytest.mark.parametrize(("script", "printed"), [(BUSY, "interrupted\n"), (ABANDONED, "")])
def test_the_end_of_the_driver_is_that_of_its_workers(script: str, printed: str, tmp_path: Path) -> None:
    with started([sys.executable, "-c", DRIVER + script, "ray", str(tmp_path)]) as process:
        if script == BUSY:
            wait_for(lambda: any(tmp_path.iterdir()), seconds=60)
            os.killpg(process.pid, signal.SIGINT)
        output, errors = process.communicate(timeout=30)
    assert (process.returncode, output) == (0, printed)
    assert not [line for line in errors.splitlines() if "Failed to determine local IP" not in line]
    wait_for(lambda: not ray_workers(), seconds=60)
    wait_for(lambda: not any(Path(f"/proc/{path.name}").exists() for path in tmp_path.iterdir()), seconds=60)


def test_a_killed_driver_leaves_no_worker(tmp_path: Path) -> None:
    with started([sys.executable, "-c", DRIVER + BUSY, "ray", str(tmp_path)]) as process:
        wait_for(lambda: any(tmp_path.iterdir()), seconds=60)
        process.kill()
    assert_ended(tmp_path)


def test_a_build_gives_the_same_bytes(recipe: Path, reference: dict[str, str], tmp_path: Path) -> None:
    lab.build(recipe, tmp_path / "out", "--engine", "ray")
    assert lab.digests(tmp_path / "out") == reference
    verified = subprocess.run(
        lab.medcurate("verify", str(tmp_path / "out"), "--deep", "--engine", "ray"), check=False
    )
    assert verified.returncode == 0


def test_a_build_whose_ray_workers_are_killed_gives_the_same_bytes(
    recipe: Path, reference: dict[str, str], tmp_path: Path
) -> None:
    parts = tmp_path / "out.work" / "parts"
    with started(lab.command(recipe, tmp_path / "out", "--engine", "ray")) as process:
        wait_for(lambda: ray_workers(), seconds=60)
        kill_ray_workers()  # before they have a job
        wait_for(lambda: any(parts.glob(".tmp-*.progress")), seconds=60)
        kill_ray_workers()
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert lab.digests(tmp_path / "out") == reference


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_build_that_is_told_to_end_says_how_to_go_on(
    recipe: Path, reference: dict[str, str], tmp_path: Path, number: signal.Signals
) -> None:
    with started(lab.command(recipe, tmp_path / "out", "--engine", "ray")) as process:
        wait_for(lambda: any((tmp_path / "out.work" / "parts").glob(".tmp-*.progress")), seconds=60)
        os.killpg(process.pid, number)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "interrupted; run the same command again to continue"
    lab.build(recipe, tmp_path / "out")
    assert lab.digests(tmp_path / "out") == reference


def kill_ray_workers() -> None:
    for pid in ray_workers():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def ray_workers() -> list[int]:
    """Actors of the engine, in this cluster's network: nobody else's may be killed."""
    found = []
    for pid, _, _ in processes():
        with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            if command.startswith(b"ray::Worker") and network(pid) == network(os.getpid()):
                found.append(pid)
    return found


def network(pid: int) -> str:
    """The network namespace of a process."""
    return os.readlink(f"/proc/{pid}/ns/net")
