"""Build and pack, killed before every single step that changes a name on disk, and run again.

Random moments (``test_resume``, ``test_pack_resume``) seldom meet the instants between a rename and the record
of it; here each is met once, by name.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import lab
from kit import pieces, write_dataset

WORKER = Path(__file__).with_name("kill_worker.py")


def killed_everywhere(verb: str, source: Path, folder: Path) -> dict[str, Any]:
    command = [sys.executable, str(WORKER), verb, str(source), str(folder)]
    env = lab.environment(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=env, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def committed(told: dict[str, Any]) -> set[str]:
    """Names of the files that a whole run committed, without the ids of jobs.

    Each was made durable before it got its name, and its name afterwards; but for a job's tar, whose loss is found.
    """
    calls = told["calls"]
    names = [call.removeprefix("replace ") for call in calls if call.startswith("replace ")]
    for at, name in ((calls.index(f"replace {name}"), name) for name in names):
        durable = not re.fullmatch(r"[0-9a-f]{20}\.tar", name)
        assert (calls[at - 1] == f"fsync {name}") == durable
        assert calls[at + 1].startswith("fsync ") == durable
    assert told["kills"] == len([call for call in calls if not call.startswith("fsync ")])
    return {re.sub(r"^[0-9a-f]{20}", "JOB", name) for name in names}


def test_a_build_killed_before_any_step_is_finished_by_the_next(tmp_path: Path) -> None:
    recipe = lab.lab(tmp_path, sources=1, cases=1)
    told = killed_everywhere("build", recipe, tmp_path)
    assert told["problems"] == {}
    assert told["ended"] == 0
    part = {"JOB.tar", "JOB.manifest.parquet", "JOB.rejects.parquet", "JOB.json"}
    work = {"build.json", "plan.json", "names.json", "assignments.parquet"}
    assert committed(told) >= part | work | {
        "manifest.parquet",
        "rejects.parquet",
        "summary.parquet",
        "dataset.json",
    }
    assert "unlink build.json" in told["calls"]


def test_a_pack_killed_before_any_step_is_finished_by_the_next(tmp_path: Path) -> None:
    source = write_dataset(tmp_path / "in", pieces(8, size=96))
    told = killed_everywhere("pack", source, tmp_path)
    assert told["problems"] == {}
    assert told["ended"] == 0
    shard = {"train-000000.tar", "train-000000.json", "train-000000.manifest.parquet"}
    assert committed(told) >= shard | {
        "manifest.parquet",
        "rejects.parquet",
        "summary.parquet",
        "dataset.json",
    }
