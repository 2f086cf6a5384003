"""docs/train-on-your-own-data.md, followed in a fresh folder: its files saved, its commands run, in its order."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TUTORIAL = (Path(__file__).parents[1] / "docs" / "train-on-your-own-data.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"((?:(?!```).)*?)```(python|toml|sh|text)\n(.*?)```", TUTORIAL, re.S)


def follow(folder: Path, *, until: str) -> str:
    """Do what the tutorial says up to the first command that starts with ``until``; what was printed."""
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "XDG_CACHE_HOME": str(folder / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    shown = ""
    for prose, kind, body in BLOCKS:
        if kind in {"python", "toml"}:
            name = re.findall(r"`([\w-]+\.(?:py|toml))`", prose)[-1]
            (folder / name).write_text(body.replace("batches = 800", "batches = 2"), encoding="utf-8")
        for command in body.splitlines() if kind == "sh" else ():
            if until and command.startswith(until):
                return shown
            done = subprocess.run(
                ["bash", "-c", command],
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                timeout=300,
            )
            assert done.returncode == 0, (command, done.stdout, done.stderr)
            shown += done.stdout
    return shown


def test_a_folder_becomes_a_dataset_as_told(tmp_path: Path) -> None:
    shown = follow(tmp_path, until="medcurate stats")
    told = [
        line
        for line in TUTORIAL.splitlines()
        if line.startswith(("patients:", "all is as", "12 cases", "24 f"))
    ]
    assert len(told) >= 3
    for line in told:
        assert line in shown
    assert "no patient fell" not in shown


@pytest.mark.slow
def test_every_command_works_to_the_prediction(tmp_path: Path) -> None:
    shown = follow(tmp_path, until="")
    assert "filled-box" in shown
    for name in ("organs.png", "scores.png", "liver.nii.gz", "liver.png"):
        assert (tmp_path / name).stat().st_size
