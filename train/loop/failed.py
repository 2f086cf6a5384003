"""The batch that made a run stop: written by every rank, and read back as one."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medcurate.commit import write_json
from medcurate.errors import ConfigError
from medcurate.train.loop.accumulate import Piece, Terms
from medcurate.train.loop.session import Session
from medcurate.train.prompts.record import PromptRecord, read_records, to_records, write_records
from medcurate.train.types import Batch

FAILED_FOLDER = "failed-batch"


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedBatch:
    """A global batch as it was when its loss could not be used; images in the order of the stream.

    ``batches``: how many the run had done before. ``world``: on how many processes. ``losses``: of its optimiser steps.
    ``turns``: what was given in each of them, one record a mask.
    """

    batches: int
    world: int
    keys: tuple[str, ...]
    annotations: tuple[tuple[int, ...], ...]
    seeds: tuple[int, ...]
    losses: tuple[float, ...]
    turns: tuple[tuple[PromptRecord, ...], ...]


def write_failed(
    folder: Path, session: Session, batch: Batch, pieces: Sequence[Piece], steps: Sequence[Terms]
) -> None:
    """This rank's share of a batch whose loss cannot be used: samples, seeds, losses, and the prompts given."""
    rank = session.world.rank
    losses = [float(terms["loss"]) for terms in steps]
    record = {
        "batch": batch.number,
        "batches": session.state.batches,
        "world": session.world.size,
        "stream": session.state.stream,
        "keys": list(batch.keys),
        "annotations": batch.annotations.tolist(),
        "seeds": batch.seeds.tolist(),
        "losses": [loss if math.isfinite(loss) else str(loss) for loss in losses],
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / f"rank-{rank}.json", record)
    by_step = zip(*(piece.turns for piece in pieces), strict=True)
    records = [
        record
        for turns in by_step
        for turn, piece in zip(turns, pieces, strict=True)
        for record in to_records(turn, piece.batch.keys, piece.batch.annotations)
    ]
    write_records(folder / f"prompts-rank-{rank}.jsonl", records)


def forget_failed(folder: Path, batches: int) -> None:
    """Remove the record of a batch that the run, of which ``batches`` are done, has passed after all."""
    if not folder.exists():
        return
    try:
        passed = read_failed(folder).batches < batches
    except ConfigError:  # damaged: it tells nobody anything
        passed = True
    if passed:
        shutil.rmtree(folder, ignore_errors=True)


def read_failed(folder: Path) -> FailedBatch:
    """The batch that ``write_failed`` wrote, all ranks together. Raises ConfigError where there is none."""
    if not (folder / "rank-0.json").is_file():
        raise ConfigError(
            f"{folder}: no failed batch here: --replay goes with a run that stopped because of its loss."
        )
    try:
        ranks = [_rank(folder, 0)]
        ranks += [_rank(folder, rank) for rank in range(1, ranks[0]["world"])]
        return _joined(ranks, [read_records(folder / f"prompts-rank-{n}.jsonl") for n in range(len(ranks))])
    except (OSError, KeyError, ValueError) as error:
        raise ConfigError(f"{folder}: not the record of a failed batch ({error}); restore it.") from error


def _rank(folder: Path, rank: int) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((folder / f"rank-{rank}.json").read_bytes())
    return record


def _joined(ranks: Sequence[dict[str, Any]], prompts: Sequence[Sequence[PromptRecord]]) -> FailedBatch:
    """Rows of all ranks in order, without those that only kept ranks in step."""
    rows = [
        (key, tuple(annotations), seed)
        for rank in ranks
        for key, annotations, seed in zip(rank["keys"], rank["annotations"], rank["seeds"], strict=True)
        if key
    ]
    keys, annotations, seeds = zip(*rows, strict=True)
    count = len(ranks[0]["losses"])
    return FailedBatch(
        batches=ranks[0]["batches"],
        world=ranks[0]["world"],
        keys=keys,
        annotations=annotations,
        seeds=seeds,
        losses=tuple(
            sum(map(float, losses)) for losses in zip(*(rank["losses"] for rank in ranks), strict=True)
        ),
        turns=tuple(
            tuple(record for records in prompts for record in records if record.turn == turn and record.key)
            for turn in range(count)
        ),
    )
