"""An evaluation: from a dataset and checkpoints to tables, in a folder that ``medcurate query`` reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from medcurate.commit import committed, committed_path, write_json
from medcurate.errors import ConfigError
from medcurate.format import SCORE_FILES
from medcurate.format.tables import write_table
from medcurate.places import cache_folder
from medcurate.progress import emit, progress
from medcurate.storage import Location, locate
from medcurate.train.evaluation.asked import parse_prompts
from medcurate.train.evaluation.collected import Collected, prediction_tables, score_tables
from medcurate.train.evaluation.columns import PREDICTIONS, SCORES, VOLUMES
from medcurate.train.evaluation.interaction import to_replay
from medcurate.train.evaluation.leaks import Leaks, find_leaks, leaked, refuse_leaks
from medcurate.train.evaluation.metrics import EMPTY_RULE
from medcurate.train.evaluation.passing import FILLED_BOX, Rules, fill_boxes, pass_over
from medcurate.train.evaluation.samples import Scored, mask_facts, read_one, samples
from medcurate.train.evaluation.sheet import Column, choose, sheet
from medcurate.train.evaluation.show import show
from medcurate.train.evaluation.tables import Row, VolumeRow, summarise, summarise_volumes
from medcurate.train.evaluation.volumes import Unit, units, volume_tables
from medcurate.train.prediction.loading import Trained, load_trained, recorded_recipe
from medcurate.train.prompts.record import SCHEMA, PromptRecord, read_records
from medcurate.train.stream.index import Index
from medcurate.train.stream.select import open_index

RECORD_FILE = "scores.json"
SCORES_FILE, VOLUMES_FILE, PREDICTIONS_FILE, PROMPTS_FILE = SCORE_FILES
_SHEET_ROWS = 8
_FILE_WIDTH = 200  # characters of a line that no terminal shows

Witness = Callable[[list[PromptRecord]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What ``medcurate evaluate`` is told; its help says what each means."""

    data: str
    checkpoint: str
    out: Path
    recipe: str = ""
    prompts: str = "box,1,3,5"
    split: str = "test"
    where: str = ""
    against: tuple[str, ...] = ()
    against_recipe: str = ""
    replay: Path | None = None
    allow_leaks: bool = False
    picture: Path | None = None
    masks_at_once: int = 32
    tolerance_mm: float = 1.0
    seed: int = 0
    device: str = "auto"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What was found: rows of tables, and leaks by model."""

    rows: list[Row]
    volumes: list[VolumeRow]
    leaks: dict[str, Leaks]


@dataclass(slots=True)
class _Selection:
    dataset: Location
    index: Index
    facts: pa.Table
    slice_spacing_mm: np.ndarray
    truth: list[pa.Array]

    def noted(self) -> Iterator[Scored]:
        """All samples; what only they say is noted when they come for the first time."""
        first = not self.truth
        for one in samples(self.dataset, self.index):
            if first:
                self.truth.append(pa.array(one.counts, pa.binary()))
                if one.slice_spacing_mm is not None:
                    self.slice_spacing_mm[one.first_row : one.first_row + len(one.counts)] = (
                        one.slice_spacing_mm
                    )
            yield one


def evaluate(options: Options) -> Evaluation:
    """Score, write tables into ``options.out`` and the picture. Raises ConfigError, StorageError, OutputError."""
    asked = parse_prompts(options.prompts)
    rules = Rules(
        asked=asked, masks_at_once=options.masks_at_once, seed=options.seed, tolerance_mm=options.tolerance_mm
    )
    if FILLED_BOX in options.against and not asked.box:
        raise ConfigError(
            f'--against {FILLED_BOX} goes with a box among --prompts; given: "{options.prompts}"'
        )
    chosen = _select(options)
    (options.out / RECORD_FILE).unlink(missing_ok=True)
    found: list[Collected] = []
    leaks: dict[str, Leaks] = {}
    more: dict[str, dict[str, pa.Array]] = {}
    with _prompts_file(options.out / PROMPTS_FILE) as witness:
        for number, name in enumerate((options.checkpoint, *options.against)):
            collected, told = _scored(name, number, chosen, rules, options, witness)
            found.append(collected)
            if told:
                leaks[collected.model] = told[0]
            more[collected.model] = {"leaked": told[1] if told else pa.nulls(len(chosen.facts), pa.bool_())}
    return _written(options, chosen, found, leaks, more)


def _select(options: Options) -> _Selection:
    dataset = locate(options.data)
    index = open_index(
        dataset, split=options.split, where=options.where, by=(), cache=cache_folder() / "train" / "indexes"
    )
    facts = mask_facts(dataset, index, options.split)
    return _Selection(dataset, index, facts, np.full(len(facts), np.nan), [])


def _scored(
    name: str, number: int, chosen: _Selection, rules: Rules, options: Options, witness: Witness
) -> tuple[Collected, tuple[Leaks, pa.Array] | None]:
    """One model's scores, and its leaks where it is a model that was trained."""
    facts = chosen.facts
    if name == FILLED_BOX:
        with progress(FILLED_BOX, len(facts), "masks") as shown:
            return fill_boxes(chosen.noted(), facts, rules, shown.advance), None
    trained = _load(name, number, options)
    leaks = find_leaks(trained, facts["group"])
    if not options.allow_leaks:
        refuse_leaks(trained, facts["group"], leaks)
    emit("leaks", model=trained.name, found=str(leaks))
    replay = to_replay(read_records(options.replay)) if options.replay and number == 0 else None
    with progress(f"evaluating {trained.name}", len(facts), "masks") as shown:
        collected = pass_over(
            trained,
            chosen.noted(),
            facts,
            rules,
            advance=shown.advance,
            replay=replay,
            witness=witness if number == 0 else _nobody,
        )
    return collected, (leaks, leaked(trained.groups, facts["group"]))


def _load(name: str, number: int, options: Options) -> Trained:
    """The model ``name``; one of ``--against`` that says nothing of itself is taken for the first one's kind."""
    if number == 0:
        return load_trained(name, recipe=options.recipe, device=options.device)
    return load_trained(
        name,
        recipe=options.against_recipe or options.recipe,
        otherwise=recorded_recipe(options.checkpoint),
        device=options.device,
    )


def _nobody(records: list[PromptRecord]) -> None:
    """Only the first model's prompts are kept: points of others depend on their own errors."""


def _written(
    options: Options,
    chosen: _Selection,
    found: list[Collected],
    leaks: dict[str, Leaks],
    more: dict[str, dict[str, pa.Array]],
) -> Evaluation:
    facts, out = chosen.facts, options.out
    truth = pa.chunked_array(chosen.truth, pa.binary())
    spacing = {"slice_spacing_mm": pa.array(chosen.slice_spacing_mm, from_pandas=True)}
    write_table(
        out / SCORES_FILE,
        SCORES,
        chain.from_iterable(score_tables(one, facts, more[one.model] | spacing) for one in found),
    )
    predictions = [prediction_tables("truth", "", facts, truth)]
    predictions += [
        prediction_tables(one.model, prompt, facts, one.counts(prompt))
        for one in found
        for prompt in one.prompts
    ]
    write_table(out / PREDICTIONS_FILE, PREDICTIONS, chain.from_iterable(predictions))
    volumes = _volumes(chosen, found, more, truth, options)
    result = Evaluation(
        [row for one in found for row in summarise(one, facts)],
        summarise_volumes(volumes) if len(volumes) else [],
        leaks,
    )
    if options.picture:
        _draw(options.picture, chosen, found, options.seed)
    write_json(out / RECORD_FILE, _record(options, chosen.index, result))
    return result


def _volumes(
    chosen: _Selection,
    found: list[Collected],
    more: dict[str, dict[str, pa.Array]],
    truth: pa.ChunkedArray,
    options: Options,
) -> pa.Table:
    whole: list[Unit] = units(chosen.facts, chosen.slice_spacing_mm)
    with progress("volumes", len(whole) * len(found), "labels") as shown:

        def tables() -> Iterator[pa.Table]:
            for one in found:
                for part in volume_tables(
                    one, truth, chosen.facts, whole, more[one.model], options.tolerance_mm
                ):
                    shown.advance()
                    yield part

        write_table(options.out / VOLUMES_FILE, VOLUMES, tables())
    return pq.read_table(options.out / VOLUMES_FILE)


def _draw(path: Path, chosen: _Selection, found: list[Collected], seed: int) -> None:
    """The first model with all prompts, the others with their first."""
    columns = [Column(found[0], prompt) for prompt in found[0].prompts]
    columns += [Column(one, one.prompts[0]) for one in found[1:]]
    keys = chosen.facts["key"].to_pylist()
    rows = choose(chosen.facts, _SHEET_ROWS, seed)
    numbers = {chosen.index.key(number): number for number in range(len(chosen.index))}
    shown = [read_one(chosen.dataset, chosen.index, numbers[keys[row]], row) for row in rows]
    with committed(path) as stream:
        stream.write(sheet(shown, columns, chosen.facts))


def _record(options: Options, index: Index, result: Evaluation) -> dict[str, Any]:
    given = {
        name: str(value) if isinstance(value, Path) else value for name, value in asdict(options).items()
    }
    return {
        "options": given | {"against": list(options.against)},
        "manifest_sha256": index.manifest,
        "empty_masks": EMPTY_RULE,
        "leaks": {model: one.to_dict() for model, one in result.leaks.items()},
        "masks": [asdict(row) for row in result.rows],
        "volumes": [asdict(row) for row in result.volumes],
    }


@contextmanager
def _prompts_file(path: Path) -> Iterator[Witness]:
    """Writes what it is told as one Parquet file."""
    with committed_path(path) as temporary, pq.ParquetWriter(temporary, SCHEMA, compression="zstd") as writer:

        def witness(records: list[PromptRecord]) -> None:
            writer.write_table(pa.Table.from_pylist([asdict(one) for one in records], schema=SCHEMA))

        yield witness


def show_evaluation(found: Evaluation) -> None:
    """Print tables, the rule for empty masks and leaks."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_FILE_WIDTH)
    show(found.rows, found.volumes, console)
    console.print(f"empty masks: {EMPTY_RULE}")
    for model, leaks in found.leaks.items():
        console.print(f"leaks of {model}: {leaks}")
