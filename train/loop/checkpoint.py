"""Checkpoints: a folder each, committed by one rename, the last few kept.

``<run>/checkpoints/step-00000120/`` holds ``model.safetensors`` (all parameters and buffers by their original SAM
names), ``optimiser.safetensors`` (its tensors, named "<state>/<parameter>") and ``state.json`` (everything else), and
copies of the run's own records (recipe, patients): a checkpoint that travels alone still says what it is. Files hold
no pickle.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from medcurate.commit import TEMP_PREFIX, committed_folder, discard_folder, output_error, write_json
from medcurate.errors import ConfigError

FOLDER = "checkpoints"
MODEL_FILE = "model.safetensors"
OPTIMISER_FILE = "optimiser.safetensors"
STATE_FILE = "state.json"
RUN_FILE = "run.json"
GROUPS_FILE = "groups.json"
_NAME = re.compile(r"^step-(\d{8})$")
_SYSTEM_ERROR = re.compile(r"\(os error (\d+)\)")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """Where a run stands after a batch.

    ``batches``: global batches of the whole run that are done; ``steps``: optimiser steps. ``stream``: the stream's
    state after them. ``sample_digest``: of the ids of all samples so far, in order: equal for runs that saw the
    same samples, however often they were interrupted and on however many processes they ran.
    ``skipped``: samples that could not be read and were left out.
    """

    batches: int
    steps: int
    stream: dict[str, Any]
    sample_digest: str
    loss: float
    skipped: int = 0


def folder_of(run: Path, batches: int) -> Path:
    """Where the run's checkpoint after ``batches`` global batches lies."""
    return run / FOLDER / f"step-{batches:08d}"


def batches_of(folder: Path) -> int:
    """Global batches that were done by the checkpoint in ``folder``, as its name says."""
    return int(folder.name.removeprefix("step-"))


def save(
    run: Path,
    state: RunState,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    *,
    keep: int,
    facts: Mapping[str, Any],
) -> Path:
    """Commit a checkpoint of ``state`` and remove all but the last ``keep``. Raises OutputError."""
    folder = folder_of(run, state.batches)
    with committed_folder(folder, replacing=True) as temporary:  # a run that was restored comes here again
        tensors = {name: value.detach().contiguous() for name, value in model.state_dict().items()}
        _write_tensors(temporary / MODEL_FILE, tensors)
        moments, counts = _optimiser_tensors(model, optimiser)
        _write_tensors(temporary / OPTIMISER_FILE, moments)
        rng = _random_states(_device(model))
        record = asdict(state) | {"optimiser": counts, "torch_rng": rng, "facts": dict(facts)}
        write_json(temporary / STATE_FILE, record)
        _copy_records(run, temporary)
    for old in complete(run)[:-keep]:
        _remove(old)
    return folder


def latest(run: Path) -> Path | None:
    """The newest complete checkpoint of the run."""
    found = complete(run)
    return found[-1] if found else None


def remove_leftovers(run: Path) -> None:
    """Remove what killed writers left. Only who holds the run's folder may call this."""
    for left in (run / FOLDER).glob(f"{TEMP_PREFIX}*"):
        shutil.rmtree(left, ignore_errors=True)


def complete(run: Path) -> list[Path]:
    """The run's checkpoints, oldest first."""
    return sorted(path for path in (run / FOLDER).glob("step-*") if _NAME.match(path.name))


def restore(folder: Path, model: nn.Module, optimiser: torch.optim.Optimizer) -> RunState:
    """Put model, optimiser and torch's random state back. Raises ConfigError where they do not fit."""
    record = read_state(folder)
    tensors = _tensors(folder / MODEL_FILE)
    problems = model.load_state_dict(tensors, strict=False)
    if problems.missing_keys or problems.unexpected_keys:
        wrong = [*problems.missing_keys, *problems.unexpected_keys]
        raise ConfigError(
            f"{folder}: was written by another model: {len(wrong)} of its parameters do not fit, such as "
            f'"{wrong[0]}". Resume with the train recipe that wrote it, or start a new run folder.'
        )
    _put_back(optimiser, model, _tensors(folder / OPTIMISER_FILE), record["optimiser"])
    _put_back_random(record["torch_rng"], _device(model))
    names = RunState.__dataclass_fields__
    return RunState(**{name: value for name, value in record.items() if name in names})


def read_state(folder: Path) -> dict[str, Any]:
    """The record of a checkpoint. Raises ConfigError where it is none."""
    return _read(folder, STATE_FILE)


def read_run(folder: Path) -> dict[str, Any]:
    """What the run is whose folder, or whose checkpoint, this is, as ``run.json`` says. Raises ConfigError."""
    return _read(folder, RUN_FILE)


def _read(folder: Path, name: str) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder}: has no {name} that can be read: {error}") from error
    return record


def _write_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Write ``tensors``, for all to read as the other files of a checkpoint are. Raises OSError."""
    try:
        save_file(tensors, path)
    except SafetensorError as error:
        # It tells of the disk in words alone: "… No space left on device (os error 28)".
        if not (told := _SYSTEM_ERROR.search(str(error))):
            raise
        number = int(told[1])
        raise OSError(number, os.strerror(number), str(path)) from error
    path.chmod(0o644)


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ConfigError(
            f"{path}: is damaged ({error}). Remove its folder, {_without(path.parent)}"
        ) from error


def _without(folder: Path) -> str:
    """What a run does without its checkpoint in ``folder``."""
    others = [path.name for path in complete(folder.parents[1]) if path != folder]
    if not others:
        return "and the run begins again: there is no other checkpoint."
    return f"and the run goes on from {others[-1]}."


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _random_states(device: torch.device) -> dict[str, str]:
    """torch's generators, in hexadecimal: equal on all ranks, as only the first weights are drawn from them."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return {name: state.numpy().tobytes().hex() for name, state in states.items()}


def _put_back_random(states: Mapping[str, str], device: torch.device) -> None:
    tensors = {
        name: torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8) for name, text in states.items()
    }
    torch.set_rng_state(tensors["cpu"])
    if device.type == "cuda" and "cuda" in tensors:  # written on a processor, there is none
        torch.cuda.set_rng_state(tensors["cuda"], device)


def _optimiser_tensors(
    model: nn.Module, optimiser: torch.optim.Optimizer
) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """(tensors, scalars) of the optimiser's state, by "<state>/<parameter's name>"."""
    tensors: dict[str, torch.Tensor] = {}
    scalars: dict[str, float] = {}
    for name, parameter in _of(optimiser, model):
        for key, value in optimiser.state.get(parameter, {}).items():
            if torch.is_tensor(value) and value.dim():
                tensors[f"{key}/{name}"] = value.detach().contiguous()
            else:
                scalars[f"{key}/{name}"] = float(value)
    return tensors, scalars


def _put_back(
    optimiser: torch.optim.Optimizer,
    model: nn.Module,
    tensors: Mapping[str, torch.Tensor],
    scalars: Mapping[str, float],
) -> None:
    by_name = dict(_of(optimiser, model))
    for key, value in tensors.items():
        state, _, name = key.partition("/")
        parameter = by_name[name]
        # In the parameter's own memory format: fused kernels walk both in storage order.
        optimiser.state[parameter][state] = torch.empty_like(parameter, requires_grad=False).copy_(value)
    for key, number in scalars.items():
        state, _, name = key.partition("/")
        # Fused Adam keeps its step count beside the parameter.
        device = by_name[name].device
        optimiser.state[by_name[name]][state] = torch.tensor(number, dtype=torch.float32, device=device)


def _of(optimiser: torch.optim.Optimizer, model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    trained = {id(parameter) for group in optimiser.param_groups for parameter in group["params"]}
    return [(name, parameter) for name, parameter in model.named_parameters() if id(parameter) in trained]


def _copy_records(run: Path, folder: Path) -> None:
    for name in (RUN_FILE, GROUPS_FILE):
        if (run / name).is_file():
            shutil.copy(run / name, folder / name)  # and that all may read it


def _remove(folder: Path) -> None:
    try:
        discard_folder(folder)
    except OSError as error:
        raise output_error(error, folder) from error
