"""What becomes of jobs whose workers die, and how their cases are counted meanwhile, with an engine by script."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from medcurate.build.running import run_jobs
from medcurate.build.tally import Tally, counted
from medcurate.config.recipe import Recipe
from medcurate.engines.types import Failure, Limits, Outcome
from medcurate.errors import DiskFull, OutputError, Reason
from medcurate.job.spec import Job, progress_path
from medcurate.progress import Meter
from medcurate.types import Case

KILLED = Failure(Reason.DECODER_CRASH, "", "the worker process ended: SIGKILL")
LIMITS = Limits(step_seconds=1, memory_bytes=1)
SOURCE: Any = SimpleNamespace(
    id="lab",
    image=SimpleNamespace(reader="nifti"),
    label=SimpleNamespace(reader="nifti", decoder="index"),
)


def job(name: str, parts: Path = Path("nowhere"), cases: int = 3) -> Job:
    found = tuple(Case(source="lab", id=f"{name}{n}", group=name, images=(), labels=()) for n in range(cases))
    recipe: Recipe = SimpleNamespace()  # type: ignore[assignment]
    return Job(id=name, source=SOURCE, root=Path(), recipe=recipe, terms={}, cases=found, parts=parts)


class Scripted:
    """An engine whose jobs fail as ``fates`` says, by job one failure after another, and are done after these."""

    def __init__(self, fates: dict[str, Sequence[Failure]]) -> None:
        self.fates = {name: list(failures) for name, failures in fates.items()}
        self.runs: list[tuple[int, list[str]]] = []  # number of workers, jobs
        self.parts: list[Any] = []  # jobs in the order in which their parts were told
        self.condemned: dict[str, list[str]] = {}

    def __call__(self, work: Any, jobs: Any, *, workers: int, **_: Any) -> Any:
        taken: list[str] = []
        self.runs.append((workers, taken))
        for one in jobs:
            taken.append(one.id)
            self.condemned[one.id] = [*one.condemned]
            failures = self.fates.get(one.id)
            yield Outcome(one, failure=failures.pop(0)) if failures else Outcome(one, result=one.id)


def run(engine: Scripted, *names: str) -> list[int]:
    """Cases as they were told; parts are in ``engine.parts``."""
    cases: list[int] = []
    jobs = [job(name) for name in names]
    run_jobs(jobs, engine, workers=4, limits=LIMITS, done=engine.parts.append, advance=cases.append)  # type: ignore[arg-type]
    return cases


def in_case(name: str, error: BaseException | None = None) -> Failure:
    return Failure("ERROR" if error else Reason.DECODER_CRASH, name, "it died", error)


@pytest.mark.parametrize(
    ("deaths", "runs"),
    [
        (1, [(4, ["a", "b"]), (4, ["a"])]),
        (2, [(4, ["a", "b"]), (4, ["a"]), (1, ["a"])]),
        (3, [(4, ["a", "b"]), (4, ["a"]), (1, ["a"]), (1, ["a"])]),
    ],
)
def test_a_job_whose_worker_dies_outside_of_cases_is_tried_again_and_then_alone(
    deaths: int, runs: list[tuple[int, list[str]]]
) -> None:
    engine = Scripted({"a": [KILLED] * deaths})
    assert run(engine, "a", "b") == [3, 3]
    assert engine.parts == ["b", "a"]
    assert engine.runs == runs
    assert engine.condemned["a"] == []


def test_a_job_that_cannot_be_committed_is_told_after_all_others() -> None:
    engine = Scripted({"a": [KILLED] * 9, "b": [KILLED], "c": [KILLED] * 9})
    with pytest.raises(OutputError) as told:
        run(engine, "a", "b", "c", "d")
    assert engine.parts == ["d", "b"]
    text = str(told.value)
    for part in ("lab: job a (a0 to a2)", "SIGKILL", "with 1 other job.", "Free memory", "it continues"):
        assert part in text


def test_a_case_that_ends_two_workers_is_condemned_and_a_condemned_one_is_not_blamed_again() -> None:
    engine = Scripted({"a": [in_case("a1")] * 2})
    run(engine, "a")
    assert engine.parts == ["a"]
    assert engine.condemned["a"] == ["a1"]
    for failure in (in_case("a1"), in_case("a1", MemoryError())):
        endless = Scripted({"a": [failure] * 99})
        with pytest.raises(OutputError):
            run(endless, "a")
        assert len(endless.runs) < 9


@pytest.mark.parametrize(
    ("error", "says"), [(MemoryError(), "more --memory"), (ValueError("no"), "report this as a defect")]
)
def test_an_error_outside_of_cases_says_what_to_do(error: Exception, says: str) -> None:
    engine = Scripted({"a": [Failure("ERROR", "", "it failed", error)]})
    with pytest.raises(OutputError, match=rf"lab: job a \(a0 to a2\) .*it failed.*{says}"):
        run(engine, "a")


def test_what_the_disk_says_is_told_as_it_is() -> None:
    error = DiskFull("no room")
    with pytest.raises(DiskFull) as told:
        run(Scripted({"a": [Failure("ERROR", "", "no room", error)]}), "a", "b")
    assert told.value is error


# cases of jobs that run


def tell(one: Job, cases: int) -> None:
    progress_path(one.parts, one.id).write_text(json.dumps({"cases": {"discovered": cases}}))


def test_cases_count_as_they_are_done_and_once_though_their_job_runs_again(tmp_path: Path) -> None:
    told: list[int] = []
    tally = Tally(told.append)
    first, second = job("a", tmp_path, 5), job("b", tmp_path, 2)

    def looked() -> int:
        told.clear()
        tally.look()
        return sum(told)

    assert list(tally.started([first, second])) == [first, second]
    assert looked() == 0
    tell(first, 3)
    tell(second, 1)
    assert looked() == 4
    assert looked() == 0
    tally.stopped(first)  # its worker died
    tell(second, 2)
    assert looked() == 1
    assert list(tally.started([first])) == [first]
    tell(first, 2)
    assert looked() == 0
    tell(first, 4)
    assert looked() == 1
    told.clear()
    tally.done(first)
    tally.done(second)
    assert told == [1]


@pytest.mark.parametrize("text", ["", "{", "1", "{}", '{"cases": 1}', '{"cases": {"discovered": 999}}'])
def test_what_a_job_is_just_writing_does_no_harm(tmp_path: Path, text: str) -> None:
    told: list[int] = []
    tally, one = Tally(told.append), job("a", tmp_path)
    list(tally.started([one]))
    progress_path(tmp_path, "a").write_text(text)
    tally.look()
    tally.done(one)
    assert sum(told) == 3


def test_it_is_looked_again_and_again_until_the_body_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medcurate.build.tally.LOOK_SECONDS", 0.001)
    told: list[int] = []
    one = job("a", tmp_path)

    def seen(condition: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + 10
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.001)
        return condition()

    with counted(told.append) as tally:
        list(tally.started([one]))
        for cases in (1, 2):
            tell(one, cases)
            assert seen(lambda cases=cases: sum(told) == cases)  # type: ignore[misc]
    assert told == [1, 1]
    tell(one, 3)
    time.sleep(0.01)
    assert told == [1, 1]


def test_the_rate_of_long_cases_does_not_leap(tmp_path: Path) -> None:
    """As of cases of ten minutes: looked at every second, and told when they are done."""
    meter, now = Meter(4, done=0, now=0.0), 0.0
    tally, one = Tally(lambda cases: meter.advance(cases, now)), job("a", tmp_path, 4)
    list(tally.started([one]))
    for cases in (1, 2, 3):
        for _ in range(600):
            tally.look()
            now += 1
        tell(one, cases)
        tally.look()
        assert meter.rate(now) == pytest.approx(1 / 600, rel=0.01)
        assert meter.eta_s(now) == pytest.approx(600 * (4 - cases), rel=0.01)
