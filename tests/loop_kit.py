"""What the tests of the training loop share: a recipe of seconds, runs in own processes, what they left."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from medcurate.train.config.load import load_recipe
from medcurate.train.config.recipe import TrainRecipe
from medcurate.train.loop.replay import ReplayedStep, replay
from medcurate.train.loop.run import Outcome, train
from medcurate.train.loop.start import Options

torch.set_num_threads(1)  # as ``start`` does: threads that share cores with other tests' spin

BATCHES = 10

RECIPE = f"""
name = "tiny"
title = "Seconds"
[model]
image_side = 64
adapter = "sam-med2d"
trainable = ["adapters", "prompt-encoder", "mask-decoder"]
frozen_random = true
[model.dims]
width = 32
depth = 2
heads = 2
global_blocks = [1]
window = 2
prompt_width = 32
mask_channels = 8
decoder_heads = 4
decoder_mlp = 32
iou_hidden = 16
[data]
masks_per_image = 2
[steps]
method = "interactive"
rounds = 2
[run]
batches = {BATCHES}
batch_images = 4
seed = 7
checkpoint_every = 3
log_every = 1
"""


def write_recipe(folder: Path, text: str = RECIPE) -> Path:
    """A recipe file in ``folder``."""
    path = folder / "tiny.toml"
    path.write_text(text, encoding="utf-8")
    return path


def train_here(recipe: Path, data: Path, out: Path, *, checkpoint: str = "") -> Outcome:
    """A whole run in this process, as fast as it goes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(out.parent / "cache"))
        return train(_chosen(recipe, checkpoint), _options(data, out))


def replay_here(recipe: Path, data: Path, out: Path, *, checkpoint: str = "") -> list[ReplayedStep]:
    """The steps of the batch that made the run in ``out`` stop."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(out.parent / "cache"))
        return list(replay(_chosen(recipe, checkpoint), _options(data, out)))


def _chosen(recipe: Path, checkpoint: str) -> TrainRecipe:
    chosen = load_recipe(str(recipe))
    if not checkpoint:
        return chosen
    model = chosen.model.model_copy(update={"checkpoint": checkpoint})
    return chosen.model_copy(update={"model": model})


def _options(data: Path, out: Path) -> Options:
    return Options(data=str(data), out=out, workers=0, device="cpu")


def start(
    recipe: Path, data: Path, out: Path, *extra: str, launcher: tuple[str, ...] = ()
) -> subprocess.Popen[str]:
    """Begin a run, by ``python -m medcurate.train`` or under ``launcher``."""
    entry = (
        [sys.executable, "-m", *launcher, "medcurate.train"] if not launcher else [sys.executable, *launcher]
    )
    command = [*entry, str(recipe), "--data", str(data), "--out", str(out), "--device", "cpu", *extra]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(out.parent / "cache")}
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def torchrun(processes: int, restarts: int = 0) -> tuple[str, ...]:
    """A launcher for ``start``."""
    return (
        "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}",
        f"--max-restarts={restarts}", "-m", "medcurate.train",
    )  # fmt: skip


def agent(port: int, *, nodes: str, host: bool) -> tuple[str, ...]:
    """A launcher for ``start``: one node of several, with one process; ``host`` keeps the list of nodes at ``port``."""
    settings = f"is_host={int(host)},last_call_timeout=1,keep_alive_interval=1,keep_alive_max_attempt=3"
    return (
        "-m", "torch.distributed.run", f"--nnodes={nodes}", "--nproc-per-node=1", "--max-restarts=3",
        "--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}", f"--rdzv-conf={settings}",
        "--local-addr=127.0.0.1", "-m", "medcurate.train",
    )  # fmt: skip


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def trainers(launcher: int) -> list[int]:
    """The training processes that the torchrun process ``launcher`` has started."""
    tasks = Path(f"/proc/{launcher}/task/{launcher}/children").read_text(encoding="utf-8").split()
    return [
        int(child) for child in tasks if b"medcurate.train" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]


def finish(process: subprocess.Popen[str], code: int = 0) -> str:
    """Wait for the end with exit code ``code``; what was written to standard error."""
    try:
        _, error = process.communicate(timeout=240)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert process.returncode == code, error
    return error


def wait_for(out: Path, batches: int, process: subprocess.Popen[str]) -> None:
    """Return when the log of the run tells of ``batches`` finished batches."""
    limit = time.monotonic() + 120
    while not any(line["batches"] >= batches for line in losses_lines(out)):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < limit
        time.sleep(0.01)


def told(out: Path, event: str) -> list[dict[str, Any]]:
    """The log's lines about ``event``, in order; a line that is being written is left out."""
    path = out / "log.jsonl"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    lines = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return [line for line in lines if line["event"] == event]


def losses_lines(out: Path) -> list[dict[str, Any]]:
    """The log's lines about training, in order."""
    return told(out, "train")


def losses(out: Path) -> list[float]:
    """The loss of every batch, in order; of a batch that was done twice the last."""
    return [loss for _, loss in sorted({line["batches"]: line["loss"] for line in losses_lines(out)}.items())]


def checkpoints(out: Path) -> list[Path]:
    """Folders of checkpoints, oldest first."""
    return sorted((out / "checkpoints").glob("step-*"))


def last_state(out: Path) -> dict[str, Any]:
    """The record of the last checkpoint, without what depends on the machine."""
    state: dict[str, Any] = json.loads((checkpoints(out)[-1] / "state.json").read_text(encoding="utf-8"))
    del state["facts"]
    return state


def weights(out: Path) -> dict[str, Any]:
    """Tensors of the last checkpoint's model."""
    return load_file(checkpoints(out)[-1] / "model.safetensors")
