"""An evaluation: from a dataset and checkpoints to tables, in a folder that ``medcurate query`` reads.

Every model's pass is cut into parts, shared by processes and kept as they are finished, so that the same command goes
on where it was killed; what is found depends on neither.
"""

from __future__ import annotations

from dataclasses import replace

from rich.console import Console

from medcurate.commit import remove_temporaries, require_place
from medcurate.errors import ConfigError
from medcurate.format import MANIFEST_FILE
from medcurate.lock import locked
from medcurate.places import cache_folder
from medcurate.progress import progress
from medcurate.storage import locate
from medcurate.train.evaluation.asked import BOX, parse_prompts
from medcurate.train.evaluation.candidates import find_candidates
from medcurate.train.evaluation.collected import Collected
from medcurate.train.evaluation.metrics import EMPTY_RULE
from medcurate.train.evaluation.parts import FOLDER, clear, cut
from medcurate.train.evaluation.passing import FILLED_BOX, Rules
from medcurate.train.evaluation.replayed import Replayed
from medcurate.train.evaluation.results import RECORD_FILE, write_results
from medcurate.train.evaluation.samples import mask_facts
from medcurate.train.evaluation.show import show
from medcurate.train.evaluation.types import Candidate, Evaluation, Options, Pass, Selection
from medcurate.train.evaluation.volumes import check_sizes
from medcurate.train.evaluation.work import Work, do_parts, identity, processes_for
from medcurate.train.prediction.loading import Trained
from medcurate.train.stream.select import open_index

_FILE_WIDTH = 200  # characters of a line that no terminal shows


def evaluate(options: Options) -> Evaluation:
    """Score, write tables into ``options.out`` and the picture. Raises ConfigError, StorageError, OutputError.

    Nothing in ``options.out`` is touched before all models are found fit to be scored.
    """
    asked = parse_prompts(options.prompts)
    rules = Rules(
        asked=asked, masks_at_once=options.masks_at_once, seed=options.seed, tolerance_mm=options.tolerance_mm
    )
    if FILLED_BOX in options.against and not asked.box:
        raise ConfigError(
            f'--against {FILLED_BOX} goes with a box among --prompts; given: "{options.prompts}"'
        )
    if options.picture:
        require_place(options.picture)
    chosen = _select(options)
    replay = Replayed.at(options.replay) if options.replay else None
    # A model is loaded once where this process is to ask it; others, which share the work, need it for themselves.
    alone = _processes(options, len(chosen.facts)) == 1
    candidates, kept = find_candidates(options, chosen.facts["group"], alone)
    with locked(options.out / FOLDER, f"evaluating {candidates[0].name}"):
        (options.out / RECORD_FILE).unlink(missing_ok=True)
        remove_temporaries(options.out)
        first, *others = candidates
        passes = [_passed(first, chosen, rules, options, kept, replay=replay, notes=True)]
        passes += [_passed(one, chosen, rules, options, kept) for one in others]
        found = write_results(options, chosen, passes)
        clear(options.out / FOLDER)
    return found


def _select(options: Options) -> Selection:
    dataset = locate(options.data)
    index = open_index(
        dataset,
        split=options.split,
        where=options.where,
        by=(),
        cache=cache_folder() / "train" / "indexes",
        where_is="--where",
    )
    facts = mask_facts(dataset, index, options.split)
    check_sizes(facts, str(dataset.member(MANIFEST_FILE)))
    return Selection(dataset, index, facts, cut(index))


def _processes(options: Options, rows: int) -> int:
    """How many are to share ``rows`` masks."""
    return options.processes or processes_for(options.device, rows)


def _passed(
    candidate: Candidate,
    chosen: Selection,
    rules: Rules,
    options: Options,
    kept: dict[str, Trained],
    *,
    replay: Replayed | None = None,
    notes: bool = False,
) -> Pass:
    """One candidate's scores, of which some may be finished; the parts that are left are done.

    Its model is taken out of ``kept``, and let go after its pass.
    """
    facts, name = chosen.facts, candidate.name
    work = Work(
        dataset=chosen.dataset,
        index=chosen.index,
        rules=rules,
        folder=options.out / FOLDER,
        model=candidate.model,
        replay=replay,
        notes=notes,
    )
    work = replace(work, folder=work.folder / identity(work))
    left = [part for part in chosen.parts if not work.scores.has(part.number)]
    rows = sum(part.rows for part in left)
    processes = min(_processes(options, rows), len(left))
    with progress(f"evaluating {name}", len(facts), "masks", done=len(facts) - rows) as shown:
        do_parts(work, left, facts, processes, shown.advance, kept.pop(name, None))
    prompts = rules.asked.names if candidate.model else (BOX,)
    tables = (work.scores.get(part.number) for part in chosen.parts)
    return Pass(candidate, Collected.of_parts(name, prompts, tables, len(facts)), work)


def show_evaluation(found: Evaluation) -> None:
    """Print tables, the rule for empty masks and leaks."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_FILE_WIDTH)
    show(found.rows, found.volumes, console)
    console.print(f"empty masks: {EMPTY_RULE}")
    for model, leaks in found.leaks.items():
        console.print(f"leaks of {model}: {leaks}")
