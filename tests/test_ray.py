"""The Ray engine, beside a real cluster on loopback: the tests of every engine, and ``ray_checks.py``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import lab
import pytest
import ray_cluster

TESTS = Path(__file__).parent


@pytest.mark.parametrize("tests", ["test_engines.py", "ray_checks.py"])
def test_in_a_cluster(tests: str, tmp_path: Path) -> None:
    pytester = [
        "-m",
        "pytest",
        "-q",
        "-n",
        "0",
        "-k",
        "ray",
        "--basetemp",
        str(tmp_path / "t"),
        str(TESTS / tests),
    ]
    done = subprocess.run(
        [sys.executable, str(TESTS / "ray_cluster.py"), sys.executable, *pytester],
        env={**os.environ, "MEDCURATE_TEST_ENGINES": "ray"},
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode == ray_cluster.NO_NETWORK:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("", "RAY_ADDRESS is not set"),
        ("127.0.0.1:9", "Connection refused"),
        ("auto", "RAY_ADDRESS=auto: "),
    ],
)
def test_without_a_cluster_one_line_says_how_to_have_one(address: str, why: str, tmp_path: Path) -> None:
    recipe = lab.lab(tmp_path, sources=1, cases=1)
    command = lab.command(recipe, tmp_path / "out", "--engine", "ray")
    environment = {**os.environ, "RAY_ADDRESS": address}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: no Ray cluster can be joined: ")
    assert why in done.stderr
    assert "ray start --head" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_without_ray_one_line_says_how_to_install_it(tmp_path: Path) -> None:
    (tmp_path / "ray.py").write_text("raise ModuleNotFoundError('no ray', name='ray')\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    recipe = lab.lab(tmp_path, sources=1, cases=1)
    command = lab.command(recipe, tmp_path / "out", "--engine", "ray")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        'error: the engine "ray" needs a package that is not installed: pip install "medcurate[ray]"\n'
    )
