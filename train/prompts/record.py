"""What was given to the model, as plain data: written beside losses and scores, read back, and given again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from medcurate.commit import committed
from medcurate.errors import ConfigError
from medcurate.train.types import Prompts

Kind = Literal["box", "point", "scribble", "correction", "mask"]


@dataclass(frozen=True, slots=True)
class Turn:
    """The prompts of N masks in one turn of an interaction, from 0.

    ``prompts`` hold no mask logits: these come from the model. ``feedback``: whether those of the turn before are given
    too.
    """

    number: int
    kind: Kind
    prompts: Prompts
    feedback: bool = False


@dataclass(frozen=True, slots=True)
class PromptRecord:
    """One mask's part of a turn. Coordinates in pixels of the model's frame, as in ``Prompts``.

    ``key`` and ``annotation`` name the mask, ``slot`` its place among those of its image in the batch.
    """

    key: str
    annotation: int
    slot: int
    turn: int
    kind: Kind
    box: tuple[float, ...] = ()
    points: tuple[tuple[float, float], ...] = ()
    labels: tuple[int, ...] = ()
    feedback: bool = False


def to_records(turn: Turn, keys: Sequence[str], annotations: torch.Tensor) -> list[PromptRecord]:
    """One record a mask, images in order and their masks in order. ``annotations`` int64 (B, K), N = B * K."""
    names = [(keys[i], at, slot) for i, row in enumerate(annotations.tolist()) for slot, at in enumerate(row)]
    given = turn.prompts
    nothing: list[list[Any]] = [[] for _ in names]
    boxes = nothing if given.boxes is None else given.boxes.tolist()
    points = nothing if given.points is None else given.points.tolist()
    labels = nothing if given.point_labels is None else given.point_labels.tolist()
    return [
        PromptRecord(
            *name,
            turn.number,
            turn.kind,
            tuple(box),
            tuple((x, y) for x, y in at),
            tuple(inside),
            turn.feedback,
        )
        for name, box, at, inside in zip(names, boxes, points, labels, strict=True)
    ]


def to_turn(records: Sequence[PromptRecord], device: torch.device | str = "cpu") -> Turn:
    """The turn that ``records`` tell of, equal to what they were made of. Raises ConfigError where they are of several.

    Their order is that of the masks. At least one.
    """
    kinds = {(r.turn, r.kind, r.feedback, len(r.box), len(r.points)) for r in records}
    if len(kinds) != 1:
        raise ConfigError(
            f"records of {len(kinds)} turns or shapes cannot be given as one; sort them by turn first."
        )
    ((number, kind, feedback, box, points),) = kinds
    prompts = Prompts(
        boxes=torch.tensor([r.box for r in records], device=device) if box else None,
        points=torch.tensor([r.points for r in records], device=device) if points else None,
        point_labels=torch.tensor([r.labels for r in records], device=device) if points else None,
    )
    return Turn(number, kind, prompts, feedback)


def write_records(path: Path, records: Iterable[PromptRecord]) -> None:
    """Commit records as JSON lines, or as Parquet where ``path`` ends in .parquet. Raises OutputError."""
    rows = [asdict(record) for record in records]
    with committed(path) as stream:
        if path.suffix == ".parquet":
            pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), stream, compression="zstd")
        else:
            stream.writelines(json.dumps(row).encode() + b"\n" for row in rows)


def read_records(path: Path) -> list[PromptRecord]:
    """The records that ``write_records`` wrote. Raises ConfigError for any other file."""
    try:
        return [_record(row) for row in _rows(path)]
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file") from error
    except (KeyError, TypeError, ValueError, pa.ArrowException) as error:
        raise ConfigError(f"{path}: holds no prompt records: {error}") from error


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    if path.suffix == ".parquet":
        yield from pq.read_table(path).to_pylist()
    else:
        yield from map(json.loads, path.read_text(encoding="utf-8").splitlines())


def _record(row: dict[str, Any]) -> PromptRecord:
    lists = {
        "box": tuple(row["box"]),
        "points": tuple((x, y) for x, y in row["points"]),
        "labels": tuple(row["labels"]),
    }
    record = PromptRecord(**{**row, **lists})
    if len(record.box) not in {0, 4} or len(record.points) != len(record.labels):
        raise ValueError(
            f"a box of {len(record.box)} numbers, or {len(record.points)} points with {len(record.labels)} labels"
        )
    return record


SCHEMA = pa.schema([
    ("key", pa.string()),
    ("annotation", pa.int64()),
    ("slot", pa.int64()),
    ("turn", pa.int64()),
    ("kind", pa.string()),
    ("box", pa.list_(pa.float32())),
    ("points", pa.list_(pa.list_(pa.float32()))),
    ("labels", pa.list_(pa.int64())),
    ("feedback", pa.bool_()),
])
