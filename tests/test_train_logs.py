"""What a run tells: JSON lines, TensorBoard, Weights & Biases."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from medcurate.errors import ConfigError
from medcurate.train.loop.logs import LOG_FILE, Logs


def _told(run: Path, *tools: str) -> None:
    with Logs(run, tools, {"name": "tiny"}) as logs:
        logs.event("resumed", checkpoint="step-00000003")
        logs.figures(4, {"loss": 0.5, "lr": 1e-4})


def test_lines_are_added_to_those_of_the_run_before(tmp_path: Path) -> None:
    _told(tmp_path)
    _told(tmp_path)
    lines = [json.loads(line) for line in (tmp_path / LOG_FILE).read_text().splitlines()]
    assert lines[2:] == lines[:2]
    assert lines[1] == {"event": "train", "batches": 4, "loss": 0.5, "lr": 1e-4}


def test_tensorboard_has_every_figure_at_its_batch(tmp_path: Path) -> None:
    _told(tmp_path, "tensorboard")
    found = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert set(found.Tags()["scalars"]) == {"loss", "lr"}
    (event,) = found.Scalars("loss")
    assert (event.step, event.value) == (4, 0.5)


def test_wandb_goes_on_under_the_runs_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []

    def init(**given: object) -> SimpleNamespace:
        calls.append(given)
        return SimpleNamespace(
            log=lambda figures, step: calls.append((figures, step)), finish=lambda: calls.append("end")
        )

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    _told(tmp_path / "run", "wandb")
    first, *others = calls
    assert first == {
        "project": "medcurate", "id": "run", "dir": str(tmp_path / "run"),
        "config": {"name": "tiny"}, "resume": "allow",
    }  # fmt: skip
    assert others == [({"loss": 0.5, "lr": 1e-4}, 4), "end"]


@pytest.mark.parametrize(
    ("tool", "message"), [("mlflow", "known: tensorboard, wandb"), ("wandb", "pip install wandb")]
)
def test_a_tool_that_is_not_there_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: str, message: str
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=message):
        Logs(tmp_path, (tool,), {})
