"""One model's pass over the selection, part by part, by one process or several."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import cv2
import pyarrow as pa
import torch

from medcurate import __version__
from medcurate.storage import Location
from medcurate.train.evaluation.collected import Collected
from medcurate.train.evaluation.models import Model, load_model
from medcurate.train.evaluation.parts import Part, Shelf
from medcurate.train.evaluation.passing import FILLED_BOX, Rules, fill_boxes, pass_over
from medcurate.train.evaluation.replayed import Replayed
from medcurate.train.evaluation.samples import Scored, samples
from medcurate.train.evaluation.spread import spread_begun
from medcurate.train.loop.world import device_of, leave_cores
from medcurate.train.prediction.loading import Trained
from medcurate.train.prompts.record import SCHEMA, PromptRecord
from medcurate.train.stream.index import Index

_MASKS_A_PROCESS = 1000  # fewer are done sooner than a process has started
_MOST_PROCESSES = 8  # on a processor, unless more are asked for: each holds the model
_SPACINGS = ("row_spacing_mm", "col_spacing_mm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a pass does, for any process. ``model`` None: the filled box. ``folder``: of what is finished.

    ``notes``: keep the truth and the prompts too, as the first model's pass does.
    """

    dataset: Location
    index: Index
    rules: Rules
    folder: Path
    model: Model | None
    replay: Replayed | None
    notes: bool

    @property
    def scores(self) -> Shelf:
        """Tables of ``Collected``; the last that is written of a part."""
        return Shelf(self.folder, "scores")

    @property
    def truth(self) -> Shelf:
        """Run lengths of the true masks, and what only samples say."""
        return Shelf(self.folder, "truth")

    @property
    def prompts(self) -> Shelf:
        """Prompts that were given."""
        return Shelf(self.folder, "prompts")


Task = tuple[Part, pa.Table]
"""A part and the spacings of its rows."""


def do_parts(
    work: Work,
    parts: list[Part],
    facts: pa.Table,
    processes: int,
    advance: Callable[[int], None],
    trained: Trained | None = None,
) -> None:
    """Do all ``parts``, of which none is finished. ``trained``: the model, for one process, where it is loaded already.

    Raises ConfigError where a checkpoint has changed by then.
    """
    tasks = ((part, _spacings(facts, part)) for part in parts)
    threads, of_opencv = torch.get_num_threads(), cv2.getNumThreads()
    try:
        for rows in spread_begun(partial(_begin, work, trained), tasks, processes):
            advance(rows)
    finally:
        torch.set_num_threads(threads)
        cv2.setNumThreads(of_opencv)


def _spacings(facts: pa.Table, part: Part) -> pa.Table:
    """Those of the part's rows, in buffers of their own: what is sent of a slice is all that it was cut from."""
    return pa.table(facts.select(_SPACINGS).slice(part.first_row, part.rows).to_pydict())


def processes_for(device: str, rows: int) -> int:
    """How many processes to share ``rows`` masks: one a GPU; on a processor one a core, with enough to do for each."""
    if device_of(device).type == "cuda":
        return torch.cuda.device_count()
    cores = len(os.sched_getaffinity(0))
    return max(min(cores, _MOST_PROCESSES, rows // _MASKS_A_PROCESS), 1)


def use_one_core(device: torch.device) -> None:
    """Compute on one core, so that rounding does not depend on how many processes share the machine."""
    leave_cores(device, len(os.sched_getaffinity(0)) - 1)
    cv2.setNumThreads(1)


def identity(work: Work) -> str:
    """A hash of all that decides what the pass of ``work`` finds: a part is taken up where it is the same."""
    facts = {
        "medcurate": __version__,
        "manifest": work.index.manifest,
        "selection": work.index.selection,
        "rules": asdict(work.rules),
        "replay": work.replay.sha256 if work.replay else "",
        "notes": work.notes,
        "torch": torch.__version__,
        "model": work.model.identity if work.model else FILLED_BOX,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def _begin(work: Work, trained: Trained | None, number: int) -> Worker:
    """The worker of process ``number``; ``trained``: its model where it is loaded already."""
    device = device_of(work.model.device if work.model else "cpu")
    if device.type == "cuda" and number:  # the first takes the GPU that is chosen already
        torch.cuda.set_device(number % torch.cuda.device_count())
    use_one_core(device)
    if work.model is None:
        return Worker(work, None)
    trained = trained or load_model(work.model)
    trained.sam.to(device)
    return Worker(work, trained)


class Worker:
    """Does parts of ``work`` in this process."""

    def __init__(self, work: Work, trained: Trained | None) -> None:
        self._work, self._trained = work, trained
        self._replay = work.replay.read() if work.replay else None

    def __call__(self, task: Task) -> int:
        """Finish a part; returns its number of masks."""
        part, facts = task
        work, noted = self._work, _Noted()
        found = noted.passing(samples(work.dataset, work.index, range(part.start, part.stop)))
        collected = self._collected(found, facts, noted)
        if work.notes:
            work.truth.put(part.number, noted.truth())
            work.prompts.put(part.number, noted.prompts())
        work.scores.put(part.number, collected.to_table())
        return part.rows

    def _collected(self, found: Iterable[Scored], facts: pa.Table, noted: _Noted) -> Collected:
        rules = self._work.rules
        if self._trained is None:
            return fill_boxes(found, facts, rules)
        return pass_over(
            self._trained, found, facts, rules, replay=self._replay, witness=noted.records.extend
        )


class _Noted:
    """What is kept of a part besides its scores."""

    def __init__(self) -> None:
        self.records: list[PromptRecord] = []
        self._counts: list[bytes] = []
        self._spacings: list[float | None] = []

    def passing(self, found: Iterable[Scored]) -> Iterator[Scored]:
        """``found``, noting the truth of each."""
        for one in found:
            self._counts += one.counts
            self._spacings += [one.slice_spacing_mm] * len(one.counts)
            yield one

    def truth(self) -> pa.Table:
        """Run lengths and slice spacing of every mask."""
        return pa.table({
            "counts": pa.array(self._counts, pa.binary()),
            "slice_spacing_mm": pa.array(self._spacings, pa.float64()),
        })

    def prompts(self) -> pa.Table:
        """Prompts in the order in which they were given."""
        return pa.Table.from_pylist([asdict(one) for one in self.records], schema=SCHEMA)
