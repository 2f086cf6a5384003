"""What ``make quickstart`` ends with: a model that learned, and learned more than to fill the box."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

TRAINING_CPU_SECONDS = 240  # two minutes of two cores


def medcurate(folder: Path, *words: str) -> float:
    """Run a verb in ``folder``; the CPU time that it took, in seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", "from medcurate.cli.main import run; run()", *words],
        cwd=folder,
        env=os.environ | {"XDG_CACHE_HOME": str(folder / "cache")},
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.slow
def test_the_quickstart_model_beats_the_untrained_one_and_the_filled_box(tmp_path: Path) -> None:
    """With box prompts, on the patient that was kept for validation; the commands are those of the Makefile."""
    medcurate(tmp_path, "build", "--recipe", "quickstart", "--out", "quickstart")
    seconds = medcurate(tmp_path, "train", "quickstart", "--data", "quickstart", "--out", "quickstart-run")
    assert seconds < TRAINING_CPU_SECONDS
    medcurate(
        tmp_path, "evaluate", "quickstart", "--checkpoint", "quickstart-run", "--split", "val", "--prompts", "box",
        "--against", "untrained", "--against", "filled-box", "--out", "quickstart-run/scores",
        "--picture", "quickstart-predictions.png",
    )  # fmt: skip
    record = json.loads((tmp_path / "quickstart-run/scores/scores.json").read_text())
    rows = {row["model"].split("/")[0]: row for row in record["masks"] if row["by"] == "all"}
    trained, untrained, box = (rows[name] for name in ("quickstart-run", "untrained", "filled-box"))
    assert trained["masks"] == 393
    for score in ("dice", "iou", "nsd"):
        assert trained[score] > 2 * untrained[score]
        assert trained[score] > 0.5
    assert trained["dice"] > box["dice"] + 0.03
    assert trained["iou"] > box["iou"] + 0.07
    assert trained["nsd"] > box["nsd"] + 0.2
    assert record["leaks"]["quickstart-run/step-00001200"]["patients"] == 0
    with Image.open(tmp_path / "quickstart-predictions.png") as picture:
        assert picture.width > 4 * 224
