"""An evaluation: from a dataset and checkpoints to tables, in a folder that ``medcurate query`` reads.

Every model's pass is cut into parts, shared by processes and kept as they are finished, so that the same command goes
on where it was killed; what is found depends on neither.
"""

from __future__ import annotations

import shutil
from dataclasses import replace

import pyarrow as pa
from rich.console import Console

from medcurate.commit import remove_temporaries
from medcurate.errors import ConfigError
from medcurate.places import cache_folder
from medcurate.progress import emit, progress
from medcurate.storage import locate
from medcurate.train.evaluation.asked import BOX, parse_prompts
from medcurate.train.evaluation.collected import Collected
from medcurate.train.evaluation.leaks import find_leaks, leaked, refuse_leaks
from medcurate.train.evaluation.metrics import EMPTY_RULE
from medcurate.train.evaluation.parts import FOLDER, cut
from medcurate.train.evaluation.passing import FILLED_BOX, Rules
from medcurate.train.evaluation.results import RECORD_FILE, write_results
from medcurate.train.evaluation.samples import mask_facts
from medcurate.train.evaluation.show import show
from medcurate.train.evaluation.types import Evaluation, Options, Pass, Selection
from medcurate.train.evaluation.work import Model, Work, do_parts, identity, processes_for
from medcurate.train.prediction.loading import Trained, load_trained, recorded_recipe
from medcurate.train.stream.select import open_index

_FILE_WIDTH = 200  # characters of a line that no terminal shows


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
    remove_temporaries(options.out)
    passes = [
        _passed(name, number, chosen, rules, options)
        for number, name in enumerate((options.checkpoint, *options.against))
    ]
    found = write_results(options, chosen, passes)
    shutil.rmtree(options.out / FOLDER)
    return found


def _select(options: Options) -> Selection:
    dataset = locate(options.data)
    index = open_index(
        dataset, split=options.split, where=options.where, by=(), cache=cache_folder() / "train" / "indexes"
    )
    return Selection(dataset, index, mask_facts(dataset, index, options.split), cut(index))


def _passed(name: str, number: int, chosen: Selection, rules: Rules, options: Options) -> Pass:
    """One model's scores, and its leaks where it is a model that was trained."""
    facts = chosen.facts
    work = Work(
        dataset=chosen.dataset,
        index=chosen.index,
        rules=rules,
        folder=options.out / FOLDER,
        model=None if name == FILLED_BOX else _model(name, number, options),
        replay=options.replay if number == 0 else None,
        notes=number == 0,
    )
    if work.model is None:
        collected = _collected(work, None, chosen, options)
        return Pass(*collected, pa.nulls(len(facts), pa.bool_()), None)
    model = work.model
    trained = load_trained(model.path, recipe=model.recipe, otherwise=model.otherwise, device=model.device)
    leaks = find_leaks(trained, facts["group"])
    if not options.allow_leaks:
        refuse_leaks(trained, facts["group"], leaks)
    emit("leaks", model=trained.name, found=str(leaks))
    collected = _collected(work, trained, chosen, options)
    return Pass(*collected, leaked(trained.groups, facts["group"]), leaks)


def _model(name: str, number: int, options: Options) -> Model:
    """How ``name`` is loaded; one of ``--against`` that says nothing of itself is taken for the first one's kind."""
    if number == 0:
        return Model(path=name, recipe=options.recipe, otherwise=None, device=options.device)
    recipe = options.against_recipe or options.recipe
    otherwise = recorded_recipe(options.checkpoint)
    return Model(path=name, recipe=recipe, otherwise=otherwise, device=options.device)


def _collected(
    work: Work, trained: Trained | None, chosen: Selection, options: Options
) -> tuple[Collected, Work]:
    """Do the parts that are left."""
    name = trained.name if trained else FILLED_BOX
    prompts = work.rules.asked.names if trained else (BOX,)
    work = replace(work, folder=work.folder / identity(work, trained))
    left = [part for part in chosen.parts if not work.scores.has(part.number)]
    rows = sum(part.rows for part in left)
    processes = options.processes or processes_for(options.device, rows)
    with progress(f"evaluating {name}", len(chosen.facts), "masks", done=len(chosen.facts) - rows) as shown:
        do_parts(work, trained, left, chosen.facts, min(processes, len(left)), shown.advance)
    tables = (work.scores.get(part.number) for part in chosen.parts)
    return Collected.of_parts(name, prompts, tables, len(chosen.facts)), work


def show_evaluation(found: Evaluation) -> None:
    """Print tables, the rule for empty masks and leaks."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_FILE_WIDTH)
    show(found.rows, found.volumes, console)
    console.print(f"empty masks: {EMPTY_RULE}")
    for model, leaks in found.leaks.items():
        console.print(f"leaks of {model}: {leaks}")
