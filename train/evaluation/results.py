"""The files of an evaluation, written from finished parts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from medcurate.commit import committed, committed_path, write_json
from medcurate.format import SCORE_FILES
from medcurate.format.tables import write_table
from medcurate.progress import progress
from medcurate.train.evaluation.collected import prediction_tables, score_tables
from medcurate.train.evaluation.columns import PREDICTIONS, SCORES, TRUTH, VOLUMES
from medcurate.train.evaluation.metrics import EMPTY_RULE
from medcurate.train.evaluation.parts import Shelf
from medcurate.train.evaluation.samples import read_one
from medcurate.train.evaluation.sheet import Column, choose, sheet
from medcurate.train.evaluation.spread import spread
from medcurate.train.evaluation.tables import summarise, summarise_volumes
from medcurate.train.evaluation.types import Evaluation, Options, Pass, Selection
from medcurate.train.evaluation.volumes import (
    Bundle,
    Unit,
    bundle,
    bundles,
    score_bundle,
    units,
    volume_tables,
)
from medcurate.train.evaluation.work import processes_for
from medcurate.train.prompts.record import SCHEMA

RECORD_FILE = "scores.json"
SCORES_FILE, VOLUMES_FILE, PREDICTIONS_FILE, PROMPTS_FILE = SCORE_FILES
_SHEET_ROWS = 8
_UNRECORDED = ("processes",)  # what changes nothing that is found


def write_results(options: Options, chosen: Selection, passes: Sequence[Pass]) -> Evaluation:
    """Write all tables, the picture and, last, the record. Raises OutputError."""
    facts, out = chosen.facts, options.out
    noted = pa.concat_tables(map(passes[0].work.truth.get, _numbers(chosen)))
    more = {one.candidate.name: {"leaked": one.candidate.leaked} for one in passes}
    spacing = {"slice_spacing_mm": noted["slice_spacing_mm"].combine_chunks()}
    found = [one.collected for one in passes]
    _write_prompts(out / PROMPTS_FILE, passes[0], chosen)
    write_table(
        out / SCORES_FILE,
        SCORES,
        chain.from_iterable(score_tables(one, facts, more[one.model] | spacing) for one in found),
    )
    predictions = [prediction_tables(TRUTH, "", facts, noted["counts"])]
    predictions += [
        prediction_tables(one.model, prompt, facts, one.counts(prompt))
        for one in found
        for prompt in one.prompts
    ]
    write_table(out / PREDICTIONS_FILE, PREDICTIONS, chain.from_iterable(predictions))
    volumes = _write_volumes(options, chosen, passes, noted)
    result = Evaluation(
        [row for one in found for row in summarise(one, facts)],
        summarise_volumes(volumes) if len(volumes) else [],
        {one.candidate.name: one.candidate.leaks for one in passes if one.candidate.leaks},
    )
    if options.picture:
        _draw(options.picture, chosen, passes, options.seed)
    write_json(out / RECORD_FILE, _record(options, chosen, passes, result))
    return result


def _numbers(chosen: Selection) -> range:
    return range(len(chosen.parts))


def _write_prompts(path: Path, first: Pass, chosen: Selection) -> None:
    """Only the first model's prompts are kept: points of others depend on their own errors."""
    with committed_path(path) as temporary, pq.ParquetWriter(temporary, SCHEMA, compression="zstd") as writer:
        for number in _numbers(chosen):
            writer.write_table(first.work.prompts.get(number))


def _write_volumes(options: Options, chosen: Selection, passes: Sequence[Pass], noted: pa.Table) -> pa.Table:
    spacing = np.array(noted["slice_spacing_mm"].to_pylist(), np.float64)  # None becomes NaN
    whole = units(chosen.facts, spacing)

    def tables() -> Iterator[pa.Table]:
        for one in passes:
            shelf = _scored(options, one, whole, noted["counts"])
            model, prompts = one.collected.model, one.collected.prompts
            scored = map(shelf.get, range(len(bundles(whole))))
            more = {"leaked": one.candidate.leaked}
            yield from volume_tables(model, prompts, whole, scored, chosen.facts, more)

    write_table(options.out / VOLUMES_FILE, VOLUMES, tables())
    return pq.read_table(options.out / VOLUMES_FILE)


def _scored(options: Options, one: Pass, whole: Sequence[Unit], truth: pa.ChunkedArray) -> Shelf:
    """The scores of all volumes, of which some may be finished."""
    shelf, cut = Shelf(one.work.folder, "volumes"), bundles(whole)
    left = [number for number in range(len(cut)) if not shelf.has(number)]
    tasks = (bundle(number, cut[number], truth, one.collected) for number in left)
    processes = options.processes or processes_for("cpu", sum(len(u.rows) for n in left for u in cut[n]))
    keep = partial(_keep, shelf, options.tolerance_mm)
    done = len(whole) - sum(len(cut[number]) for number in left)
    with progress(f"volumes of {one.collected.model}", len(whole), "labels", done=done) as shown:
        for count in spread(keep, tasks, min(processes, len(left))):
            shown.advance(count)
    return shelf


def _keep(shelf: Shelf, tolerance_mm: float, given: Bundle) -> int:
    shelf.put(given.number, score_bundle(given, tolerance_mm))
    return len(given.units)


def _draw(path: Path, chosen: Selection, passes: Sequence[Pass], seed: int) -> None:
    """The first model with all prompts, the others with their first."""
    first, *others = [one.collected for one in passes]
    columns = [Column(first, prompt) for prompt in first.prompts]
    columns += [Column(one, one.prompts[0]) for one in others]
    keys = chosen.facts["key"].to_pylist()
    rows = choose(chosen.facts, _SHEET_ROWS, seed)
    numbers = {chosen.index.key(number): number for number in range(len(chosen.index))}
    shown = [read_one(chosen.dataset, chosen.index, numbers[keys[row]], row) for row in rows]
    with committed(path) as stream:
        stream.write(sheet(shown, columns, chosen.facts))


def _record(
    options: Options, chosen: Selection, passes: Sequence[Pass], result: Evaluation
) -> dict[str, Any]:
    given = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in asdict(options).items()
        if name not in _UNRECORDED
    }
    return {
        "options": given | {"against": list(options.against)},
        "models": {one.candidate.name: one.candidate.model.path for one in passes if one.candidate.model},
        "manifest_sha256": chosen.index.manifest,
        "empty_masks": EMPTY_RULE,
        "leaks": {model: one.to_dict() for model, one in result.leaks.items()},
        "masks": [asdict(row) for row in result.rows],
        "volumes": [asdict(row) for row in result.volumes],
    }
