"""What a run tells: on a terminal, as JSON lines, to TensorBoard and Weights & Biases."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from loop_kit import BATCHES, RECIPE, losses_lines, train_here, write_recipe
from stream_kit import small_dataset
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from medcurate import progress
from medcurate.errors import ConfigError, OutputError
from medcurate.train.loop.logs import LOG_FILE, Logs
from medcurate.train.loop.session import Length


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


def test_wandb_goes_on_with_the_curves_of_this_very_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A team has many runs of one recipe, whose folders are called alike."""
    calls: list[object] = []

    def init(**given: object) -> SimpleNamespace:
        calls.append(given)
        return SimpleNamespace(
            log=lambda figures, step: calls.append((figures, step)), finish=lambda: calls.append("end")
        )

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    run = tmp_path / "mine" / "run"
    for folder in (run, run, tmp_path / "other" / "run"):
        _told(folder, "wandb")
    begun, again, other = (call for call in calls if isinstance(call, dict))
    assert begun == {
        "project": "medcurate", "id": begun["id"], "name": "run", "dir": str(run), "config": {"name": "tiny"},
        "resume": "allow",
    }  # fmt: skip
    assert again == begun
    assert other["id"] != begun["id"]
    assert calls[1:3] == [({"loss": 0.5, "lr": 1e-4}, 4), "end"]


FIGURES = {"rate", "eta_s", "loss", "data_wait_percent", "memory_bytes"}


def test_machines_are_told_rate_waiting_memory_and_time_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Every look at the clock takes half a second: nothing is told of how fast the first second goes.
    half_seconds = itertools.count()
    clock = SimpleNamespace(monotonic=lambda: next(half_seconds) / 2)
    monkeypatch.setattr("medcurate.progress.telling.time", clock)
    progress.configure("json")
    try:
        train_here(write_recipe(tmp_path), small_dataset(tmp_path / "data"), tmp_path / "run")
    finally:
        progress.configure("auto")
    shown = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    last = [line for line in shown if line["event"] == "progress"][-1]
    assert last.keys() >= FIGURES
    assert last["done"] == last["total"] == BATCHES * 4
    assert (last["rate"] > 0, last["eta_s"]) == (True, 0.0)
    *_, before, logged = losses_lines(tmp_path / "run")
    assert logged["images_per_s"] > 0
    assert 0 <= logged["data_wait_percent"] < 100
    assert 1e8 < logged["memory_bytes"] < 1e11
    assert 0 == logged["eta_s"] < before["eta_s"] < 60


SHOWN = (
    r"\d+ images/s, (\d+ min )?\d+ s left",
    r"loss \d\.\d{4}, data wait \d+\.\d %, memory \d+\.\d [MG]B",
)


def test_a_terminal_shows_rate_waiting_memory_and_time_left_in_80_columns(tmp_path: Path) -> None:
    data = small_dataset(tmp_path / "data")
    recipe = write_recipe(tmp_path, RECIPE.replace(f"batches = {BATCHES}", "batches = 500"))
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "medcurate.train", str(recipe), "--data", str(data)]
    environment = os.environ | {
        "COLUMNS": "80", "TERM": "xterm", "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(tmp_path / "cache")
    }  # fmt: skip
    with subprocess.Popen(
        [*command, "--out", str(tmp_path / "run"), "--workers", "0", "--device", "cpu"],
        env=environment, stderr=theirs, stdout=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        os.close(theirs)
        shown, asked = "", False
        for piece in _until_closed(ours):
            shown += piece.decode(errors="replace")
            if not asked and all(re.search(figure, shown) for figure in SHOWN):
                process.send_signal(signal.SIGTERM)  # enough is seen
                asked = True
    assert process.returncode in {0, 128 + signal.SIGTERM}
    for figure in SHOWN:
        assert re.search(figure, shown), shown[-2000:]


def _until_closed(terminal: int) -> Iterator[bytes]:
    with contextlib.suppress(OSError):  # how the end of a terminal shows
        while data := os.read(terminal, 65536):
            yield data
    os.close(terminal)


def test_the_last_batch_of_an_epoch_counts_the_images_that_it_has() -> None:
    length = Length(per_epoch=3, total=8, batch_images=4, epoch_images=10)
    assert [length.images(batches) for batches in (0, 1, 3, 4, 8)] == [0, 4, 10, 14, 28]
    dropped = Length(per_epoch=2, total=4, batch_images=4, epoch_images=10)
    assert dropped.images(4) == 16


@pytest.mark.parametrize(
    ("tool", "message"), [("mlflow", "known: tensorboard, wandb"), ("wandb", "pip install wandb")]
)
def test_a_tool_that_is_not_there_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: str, message: str
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=message):
        Logs(tmp_path, (tool,), {})


def test_the_user_is_told_four_digits_and_the_log_keeps_all(tmp_path: Path, capsys) -> None:
    with Logs(tmp_path, (), {}) as logs:
        logs.event("stopped", batches=1_234_567, loss=1.4923348426818848)
    assert "stopped: batches 1234567, loss 1.492\n" in capsys.readouterr().err
    (line,) = (tmp_path / LOG_FILE).read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["loss"] == 1.4923348426818848


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        ConfigError, match=r"^--out .*: cannot write .*file/run/log.jsonl: .*file is a file, where"
    ):
        Logs(tmp_path / "file" / "run", (), {})


def test_a_disk_that_takes_no_line_is_said(tmp_path: Path) -> None:
    (tmp_path / LOG_FILE).symlink_to("/dev/full")
    with pytest.raises(OutputError, match=r"disk full while writing .*log.jsonl"):
        _told(tmp_path)
