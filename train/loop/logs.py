"""What a run tells: events, JSON lines beside the checkpoints, TensorBoard and Weights & Biases where asked."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any

from medcurate.commit import committed, output_error
from medcurate.errors import ConfigError, DiskFull, OutputError
from medcurate.progress import emit

LOG_FILE = "log.jsonl"
_WANDB_ID_FILE = "wandb-id"
Sink = Callable[[int, Mapping[str, float]], None]


class Logs:
    """Writes one line every so often; only the leading process has one.

    ``tools``: "tensorboard", "wandb". Raises ConfigError where a tool is not installed or unknown or nothing can be
    written into ``run``, and OutputError where the disk is full.
    """

    def __init__(self, run: Path, tools: tuple[str, ...], facts: Mapping[str, Any]) -> None:
        self._stack = ExitStack()
        self._path = run / LOG_FILE
        try:
            with _written(self._path):
                run.mkdir(parents=True, exist_ok=True)
                self._lines = self._stack.enter_context(self._path.open("a", encoding="utf-8"))
        except DiskFull:
            raise
        except OutputError as error:  # a path that is wrong stays wrong
            raise ConfigError(f"--out {run}: {error}") from error
        self._sinks: list[Sink] = [self._open(tool, run, facts) for tool in tools]

    def __enter__(self) -> Logs:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _written(self._path):  # what a full disk has not taken before is tried again
            self._stack.close()

    def event(self, event: str, **fields: Any) -> None:
        """Tell one thing that happened, to the user with four digits of every number, and to the log with all."""
        emit(event, **{name: _short(value) for name, value in fields.items()})
        self._line({"event": event, **fields})

    def figures(self, batches: int, figures: Mapping[str, float]) -> None:
        """Log the figures of the batches since the last call, under the number of batches done."""
        self._line({"event": "train", "batches": batches, **figures})
        for sink in self._sinks:
            sink(batches, figures)

    def _line(self, record: Mapping[str, Any]) -> None:
        with _written(self._path):
            self._lines.write(json.dumps(record, ensure_ascii=False, default=str) + "\n")
            self._lines.flush()

    def _open(self, tool: str, run: Path, facts: Mapping[str, Any]) -> Sink:
        if tool not in _TOOLS:
            raise ConfigError(f'--log: "{tool}" is unknown; known: {", ".join(sorted(_TOOLS))}')
        module, opener = _TOOLS[tool]
        try:
            return opener(import_module(module), self._stack, run, facts)
        except ImportError as error:
            raise ConfigError(f'--log: "{tool}" is not installed: pip install {tool}') from error


def _short(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value


@contextmanager
def _written(path: Path) -> Iterator[None]:
    """What the system says of writing ``path`` in the body, as an OutputError."""
    try:
        yield
    except OSError as error:
        raise output_error(error, path) from error


def _tensorboard(module: Any, stack: ExitStack, run: Path, _: Mapping[str, Any]) -> Sink:
    writer = module.SummaryWriter(str(run / "tensorboard"))
    stack.callback(writer.close)

    def write(batches: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            writer.add_scalar(name, value, batches)

    return write


def _wandb(module: Any, stack: ExitStack, run: Path, facts: Mapping[str, Any]) -> Sink:
    session = module.init(
        project="medcurate", id=_wandb_id(run), name=run.resolve().name, dir=str(run), config=dict(facts),
        resume="allow",
    )  # fmt: skip
    stack.callback(session.finish)

    def write(batches: int, figures: Mapping[str, float]) -> None:
        session.log(dict(figures), step=batches)

    return write


def _wandb_id(run: Path) -> str:
    """Of the curves of ``run``, kept in its folder: one that goes on adds to them, and another of its name does not."""
    path = run / _WANDB_ID_FILE
    if not path.exists():
        with committed(path) as stream:
            stream.write(uuid.uuid4().hex.encode())
    return path.read_text(encoding="ascii")


_TOOLS: dict[str, tuple[str, Callable[[Any, ExitStack, Path, Mapping[str, Any]], Sink]]] = {
    "tensorboard": ("torch.utils.tensorboard", _tensorboard),
    "wandb": ("wandb", _wandb),
}
