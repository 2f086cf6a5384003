"""What a job imports is known beforehand, so that engines can import it once for all workers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import lab

_NEWLY_IMPORTED = """
import contextlib, json, sys
from importlib import import_module
from pathlib import Path
from medcurate.build.plan import plan
from medcurate.job.part import modules, run_job
from medcurate.library import resolve

@contextlib.contextmanager
def guard(step):
    yield

recipe = Path(sys.argv[1])
parts = recipe.parent / "parts"
parts.mkdir()
(entry,) = plan(resolve(str(recipe)), recipe.parent, parts, {})
for name in modules(entry.jobs):
    import_module(name)
before = set(sys.modules)
record = run_job(entry.jobs[0], guard)
assert record.counts["masks"]["written"]
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def test_a_job_imports_no_library_that_was_not_named(tmp_path: Path) -> None:
    recipe = lab.lab(tmp_path, sources=1, cases=1)
    command = [sys.executable, "-c", _NEWLY_IMPORTED, str(recipe)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    late = {name.split(".")[0] for name in json.loads(done.stdout)}
    assert not late & {"cv2", "medcurate", "nibabel", "numpy", "pyarrow", "pydantic", "scipy"}


def test_packing_does_not_bring_the_database_into_workers() -> None:
    """DuckDB starts a thread when it is imported, or did before version 2, and its import takes as long as a shard."""
    code = "import sys, medcurate.job.part, medcurate.pack.shard; sys.exit('duckdb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
