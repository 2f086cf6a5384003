"""Every engine does the same; one test for all of them, and one for what only real processes show."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from engine_works import MIB, AwkwardError, Deadly, Job, Unreadable, work, work_with

from medcurate.decoders import DECODERS
from medcurate.engines import ENGINES
from medcurate.engines.process import ONE_THREAD
from medcurate.engines.types import Limits, Needs
from medcurate.engines.worker import WorkError
from medcurate.errors import ConfigError, OutputError, Reason
from medcurate.readers import READERS
from medcurate.registry import load

LIMITS = Limits(step_seconds=30, memory_bytes=256 * MIB)
SHORT = Limits(step_seconds=1.0, memory_bytes=256 * MIB)
LONG_STEP = "é" * 200  # more bytes than a note holds

# What becomes of each job: its result, or its failure as (reason, step).
EXPECTED = {
    Job("double", 21): 42,
    Job("double", "x" * 1_000_000): "x" * 2_000_000,  # more than a pipe holds, there and back
    Job("crash in step", "read"): (Reason.DECODER_CRASH, "read"),
    Job("double", 22): 44,
    Job("crash in step", LONG_STEP): (Reason.DECODER_CRASH, LONG_STEP),
    Job("crash after steps"): (Reason.DECODER_CRASH, ""),
    Job("crash while answering", "x" * 50_000): (Reason.DECODER_CRASH, ""),
    Job("exit", 0): (Reason.DECODER_CRASH, "exit"),
    Job("exit", 7): (Reason.DECODER_CRASH, "exit"),
    Job("kill", int(signal.SIGKILL)): (Reason.DECODER_CRASH, "killed"),
    Job("kill", int(signal.SIGRTMIN) + 3): (Reason.DECODER_CRASH, "killed"),
    Job("kill", int(signal.SIGINT)): None,  # what a terminal or a batch system sends is for the driver
    Job("kill", int(signal.SIGTERM)): None,
    Job("kill", int(signal.SIGHUP)): None,
    Job("loop in C"): (Reason.TIMEOUT, "loop"),
    Job("loop in Python"): (Reason.TIMEOUT, "loop"),
    Job("nested", 0.7): (Reason.TIMEOUT, "outer"),
    Job("slow but within", 0.4): "done",  # 2 s, but no step above the limit of 1 s
    Job("allocate", 150 * MIB): 150 * MIB,
    Job("allocate", 257 * MIB): "MemoryError",
    Job("allocate", 151 * MIB): 151 * MIB,
    Job("allocate and fail", 257 * MIB): ("ERROR", "allocate"),
    Job("raise", "ha"): ("ERROR", "raise"),
    Job("raise awkward"): ("ERROR", ""),
    Job("raise local"): ("ERROR", ""),
    Job("raise caught"): ("ERROR", ""),
    Job("system exit"): ("ERROR", ""),
    Job("lambda"): ("ERROR", ""),
    Job("unreadable"): ("ERROR", ""),
    Job("double", 23): 46,
}


# Ray needs a cluster: test_ray.py runs these tests beside one.
HERE = os.environ.get("MEDCURATE_TEST_ENGINES", "pool serial").split()


@pytest.fixture(scope="module", params=HERE)
def engine(request):
    return load(ENGINES, request.param, "engine").run


@pytest.fixture(scope="module", params=[name for name in HERE if name != "ray"])
def own(request):
    """An engine whose workers are descendants of this process."""
    return load(ENGINES, request.param, "engine").run


@pytest.fixture(scope="module")
def outcomes(engine):
    found = list(engine(work, iter(EXPECTED), workers=2, limits=SHORT))
    assert len(found) == len(EXPECTED)
    return {outcome.job: outcome for outcome in found}


def test_every_job_has_its_outcome_whatever_happens_to_workers(outcomes):
    def told(outcome):
        if outcome.failure is None:
            return outcome.result
        assert outcome.result is None
        return outcome.failure.reason, outcome.failure.step

    def expected(value):  # a note holds 255 bytes: 127 of the 2-byte letters and a half
        return (value[0], "é" * 127 + "\ufffd") if value == (Reason.DECODER_CRASH, LONG_STEP) else value

    assert {job: told(outcome) for job, outcome in outcomes.items()} == {
        job: expected(value) for job, value in EXPECTED.items()
    }


def test_deaths_are_explained(outcomes):
    def detail(*job):
        return outcomes[Job(*job)].failure.detail

    assert "SIGSEGV" in detail("crash in step", "read")
    assert "memory runs out" in detail("kill", int(signal.SIGKILL))
    assert f"signal {signal.SIGRTMIN + 3}" in detail("kill", int(signal.SIGRTMIN) + 3)
    assert "exit status 7" in detail("exit", 7)
    assert "not done within 1 s" in detail("loop in C")


def test_exceptions_arrive_with_their_traceback(outcomes):
    error = outcomes[Job("raise", "ha")].failure.error
    assert type(error) is ValueError
    assert error.args == ("ha",)
    assert "in _raise" in error.__notes__[-1]
    assert isinstance(outcomes[Job("allocate and fail", 257 * MIB)].failure.error, MemoryError)
    assert isinstance(outcomes[Job("system exit")].failure.error, SystemExit)
    assert isinstance(outcomes[Job("raise caught")].failure.error, KeyError)


@pytest.mark.parametrize(("deed", "text"), [("raise awkward", "7: seven"), ("raise local", "nobody else")])
def test_exceptions_that_cannot_travel_keep_their_text(outcomes, deed, text):
    error = outcomes[Job(deed)].failure.error
    assert type(error) is WorkError
    assert text in str(error)
    assert "Traceback" in error.__notes__[-1]


def test_results_that_cannot_travel_are_errors(outcomes):
    assert "<lambda>" in str(outcomes[Job("lambda")].failure.error)
    assert "no such thing here" in outcomes[Job("unreadable")].failure.detail


def test_awkward_is_awkward():
    import pickle

    with pytest.raises(TypeError):
        pickle.loads(pickle.dumps(AwkwardError(7, "seven")))  # noqa: S301


def test_serial_keeps_the_order():
    run = load(ENGINES, "serial", "engine").run
    jobs = [Job("double", number) for number in range(20)]
    assert [outcome.job for outcome in run(work, jobs, workers=4, limits=LIMITS)] == jobs
    assert len({outcome.result for outcome in run(work, [Job("pid")] * 8, workers=4, limits=LIMITS)}) == 1


def test_the_pool_works_at_several_jobs_at_a_time_and_reuses_its_workers():
    run = load(ENGINES, "pool", "engine").run
    pids = [outcome.result for outcome in run(work, [Job("pid")] * 200, workers=3, limits=LIMITS)]
    assert len(set(pids)) == 3
    assert os.getpid() not in pids


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_worker_is_deaf_to_the_drivers_signals_already_while_it_starts(number):
    def jobs():
        yield Job("double", 1)
        signal_all()
        yield Job("double", 2)
        signal_all()
        wait_for(lambda: len(descendants()) == 3)  # the zygote and its workers
        signal_all()

    def signal_all():
        for pid in descendants():
            os.kill(pid, number)

    end_zygote()
    run = load(ENGINES, "pool", "engine").run
    assert sorted(outcome.result for outcome in run(work, jobs(), workers=2, limits=LIMITS)) == [2, 4]


def test_no_jobs_no_outcomes(engine):
    assert list(engine(work, [], workers=2, limits=LIMITS)) == []


def test_zero_workers_are_refused(engine):
    with pytest.raises(ConfigError, match="at least 1"):
        list(engine(work, [Job("double", 1)], workers=0, limits=LIMITS))


def test_jobs_are_consumed_as_workers_come_free(engine):
    pulled = 0

    def jobs():
        nonlocal pulled
        for number in range(100_000):
            pulled += 1
            yield Job("double", number)

    running = engine(work, jobs(), workers=2, limits=LIMITS)
    for seen in range(1, 40):
        next(running)
        assert pulled <= seen + 2
    running.close()


def test_an_error_of_the_jobs_themselves_is_the_callers(engine, tmp_path):
    def jobs():
        yield Job("pid")
        raise LookupError("bad plan")

    with pytest.raises(LookupError, match="bad plan"):
        list(engine(work, jobs(), workers=1, limits=LIMITS))


def test_closing_the_iterator_ends_busy_workers(engine, tmp_path):
    jobs = [Job("double", 1), *[Job("touch", str(tmp_path))] * 3]
    running = engine(work, jobs, workers=2, limits=LIMITS)
    next(running)
    wait_for(lambda: any(tmp_path.iterdir()))
    running.close()
    assert_ended(tmp_path)


def test_work_may_be_a_partial(engine):
    (outcome,) = engine(partial(work_with, {"a": 1}), [Job("double", 4)], workers=1, limits=LIMITS)
    assert outcome.result == ({"a": 1}, 8)


def test_work_that_cannot_be_loaded_is_the_callers_error(engine):
    with pytest.raises(LookupError, match="no such thing here"):
        list(engine(partial(work_with, Unreadable()), [Job("double", 1)] * 3, workers=2, limits=LIMITS))


def test_a_worker_that_cannot_start_ends_the_run_with_a_remedy(engine):
    with pytest.raises(OutputError, match=r"before its first job: exit status 3.*--workers"):
        list(engine(partial(work_with, Deadly()), [Job("double", 1)] * 3, workers=2, limits=LIMITS))


def test_libraries_use_one_thread_and_work_below_the_memory_limit(engine):
    limits = Limits(step_seconds=60, memory_bytes=1536 * MIB)
    jobs = [Job("libraries"), *(Job("environment", name) for name in ONE_THREAD)]
    first, *others = engine(work, jobs, workers=1, limits=limits)
    assert first.result == {
        "encoded": True,
        "rows": 100_000,
        "room": 1024 * MIB,
        "numpy": "MemoryError",
        "cv2": "Insufficient memory",
        "threads": {"cv2": 1, "arrow": 1, "polars": 1},
    }
    assert {outcome.result for outcome in others} == {"1"}


def test_a_leaking_worker_is_replaced_before_it_starves_its_jobs(engine):
    limits = Limits(step_seconds=30, memory_bytes=64 * MIB)
    found = list(engine(work, [Job("leak", 40 * MIB)] * 6, workers=1, limits=limits))
    assert [outcome.failure for outcome in found] == [None] * 6
    assert len({outcome.result for outcome in found}) == 2


def test_a_failed_job_leaves_none_of_its_memory_behind(engine):
    jobs = [Job("pid"), *[Job("fail holding", 200 * MIB)] * 3, Job("pid")]
    first, *failed, last = engine(work, jobs, workers=1, limits=LIMITS)
    assert [outcome.failure.detail for outcome in failed] == [f"ValueError: {200 * MIB}"] * 3
    assert first.result == last.result  # it was not replaced as leaking


# The zygote.


def test_modules_are_imported_once_for_all_workers(engine):
    jobs = [Job("loaded", "colorsys"), Job("loaded", "wave"), Job("kill", int(signal.SIGKILL))]
    jobs.append(Job("loaded", "colorsys"))
    preload = ["colorsys", "no.such.module"]
    found = list(engine(work, jobs, workers=1, limits=LIMITS, needs=Needs(tuple(preload))))
    assert [outcome.result for outcome in found] == [True, False, None, True]
    (later,) = engine(work, [Job("loaded", "wave")], workers=1, limits=LIMITS, needs=Needs(("wave",)))
    assert later.result is True


def test_a_killed_zygote_costs_the_jobs_that_were_running(engine):
    jobs = [Job("double", 1), Job("kill zygote"), Job("double", 2), Job("double", 3)]
    found = list(engine(work, jobs, workers=1, limits=LIMITS))
    assert [outcome.result for outcome in found] == [2, None, 4, 6]
    assert found[1].failure.reason == Reason.DECODER_CRASH
    assert "SIGKILL" in found[1].failure.detail


def test_a_zygote_killed_between_runs_is_replaced(own):
    for number in range(3):
        (outcome,) = own(work, [Job("double", number)], workers=1, limits=LIMITS)
        assert outcome.result == 2 * number
        end_zygote()


def test_all_that_workers_import_leaves_the_zygote_one_thread():
    preload = [*READERS.values(), *DECODERS.values()]
    preload += ["medcurate.job.part", "medcurate.pack.shard", "medcurate.verify.shard"]
    end_zygote()
    run = load(ENGINES, "pool", "engine").run
    jobs = [Job("zygote's threads"), *(Job("loaded", name) for name in preload)]
    threads, *loaded = run(work, jobs, workers=1, limits=LIMITS, needs=Needs(tuple(preload)))
    assert threads.result == 1
    assert all(outcome.result for outcome in loaded)


def test_workers_hold_none_of_the_drivers_files(own, tmp_path):
    end_zygote()
    with open(tmp_path / "first", "w"):
        (outcome,) = own(work, [Job("files")], workers=1, limits=LIMITS)
        assert outcome.result
        assert not [name for name in outcome.result if str(tmp_path) in name]
    (again,) = own(work, [Job("files")], workers=1, limits=LIMITS)
    assert len(again.result) == len(outcome.result)


def test_workers_find_modules_and_files_where_the_driver_does(engine, tmp_path, monkeypatch):
    list(engine(work, [Job("double", 1)], workers=1, limits=LIMITS))
    (tmp_path / "fresh_work.py").write_text("import os\ndef work(job, guard): return os.getcwd()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    import fresh_work

    (outcome,) = engine(fresh_work.work, [1], workers=1, limits=LIMITS)
    assert Path(outcome.result) == tmp_path


def test_processes_that_cannot_be_had_end_the_run_with_a_remedy(own, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    end_zygote()
    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", refuse)
        with pytest.raises(OutputError, match=r"cannot start .*--workers"):
            list(own(work, [Job("double", 1)], workers=1, limits=LIMITS))
    with pytest.raises(OutputError, match=r"cannot start .*--workers"):
        list(own(work, [Job("double", 1)], workers=1, limits=LIMITS, needs=Needs(("engine_cannot_fork",))))
    end_zygote()


# What only a driver of its own shows. Its session tells which processes are its descendants.

DRIVER = """
import sys
from engine_works import Job, work
from medcurate.engines import ENGINES
from medcurate.engines.types import Limits
from medcurate.registry import load
run = load(ENGINES, sys.argv[1], "engine").run
limits = Limits(step_seconds=100, memory_bytes=1 << 28)
folder = sys.argv[2]
"""
UNGUARDED = """
print([outcome.result for outcome in run(work, [Job("double", 1)], workers=2, limits=limits)])
"""
FORKED = """
import os, time
running = run(work, [Job("double", 1), *[Job("touch", folder)] * 2], workers=2, limits=limits)
next(running)
if os.fork() == 0:
    (outcome,) = run(work, [Job("double", 2)], workers=1, limits=limits)
    print(outcome.result, flush=True)
    time.sleep(100)
list(running)
"""
BUSY = """
try:
    for outcome in run(work, [Job("double", 1), *[Job("touch", folder)] * 8], workers=2, limits=limits):
        pass
except KeyboardInterrupt:
    print("interrupted")
"""
STARTING = """
def jobs():
    print("starting", flush=True)
    while True:
        yield Job("touch", folder)
try:
    list(run(work, jobs(), workers=8, limits=limits))
except KeyboardInterrupt:
    print("interrupted")
"""
ABANDONED = """
running = run(work, [Job("double", 1), *[Job("touch", folder)] * 8], workers=2, limits=limits)
next(running)
"""


@pytest.fixture
def driver(own, tmp_path):
    started = []

    def start(script):
        name = own.__module__.rpartition(".")[2]
        process = subprocess.Popen(
            [sys.executable, "-c", DRIVER + script, name, str(tmp_path)],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if session(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_a_killed_driver_leaves_no_process(driver, tmp_path):
    process = driver(BUSY)
    wait_for(lambda: any(tmp_path.iterdir()))
    assert len(session(process.pid)) >= 2
    process.kill()
    process.wait()
    wait_for(lambda: not session(process.pid))


def test_ctrl_c_ends_driver_and_workers(driver, tmp_path):
    process = driver(BUSY)
    wait_for(lambda: any(tmp_path.iterdir()))
    os.killpg(process.pid, signal.SIGINT)
    assert process.communicate(timeout=20) == ("interrupted\n", "")
    assert process.returncode == 0
    wait_for(lambda: not session(process.pid))


@pytest.mark.parametrize("after_seconds", [0, 0.02, 0.1])
def test_ctrl_c_while_workers_start(driver, after_seconds):
    process = driver(STARTING)
    assert process.stdout.readline() == "starting\n"
    time.sleep(after_seconds)
    os.killpg(process.pid, signal.SIGINT)
    assert process.communicate(timeout=20) == ("interrupted\n", "")
    wait_for(lambda: not session(process.pid))


def test_an_abandoned_run_does_not_keep_the_driver_from_ending(driver):
    process = driver(ABANDONED)
    assert process.communicate(timeout=20) == ("", "")
    assert process.returncode == 0
    wait_for(lambda: not session(process.pid))


def test_a_script_without_a_main_guard_runs_once(driver, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(DRIVER + UNGUARDED)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, str(script), "pool", str(tmp_path)]
    assert subprocess.check_output(command, env=environment, text=True) == "[2]\n"


def test_a_fork_of_the_driver_has_workers_of_its_own_and_keeps_no_others_alive(driver, tmp_path):
    process = driver(FORKED)
    assert process.stdout.readline() == "4\n"
    wait_for(lambda: any(tmp_path.iterdir()))
    process.kill()
    process.wait()
    assert_ended(tmp_path)
    assert len(session(process.pid)) == 2  # the fork and its zygote


def descendants() -> list[int]:
    """The living zygote of this process and its workers."""
    parents = {pid: parent for pid, parent, _ in processes()}
    zygotes = [pid for pid, parent in parents.items() if parent == os.getpid()]
    return zygotes + [pid for pid, parent in parents.items() if parent in zygotes]


def end_zygote() -> None:
    """So that the next run starts one; the driver learns of it then."""
    for pid in descendants():
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not descendants())


def session(leader: int) -> list[int]:
    """Living processes of the session that ``leader`` started."""
    return [pid for pid, _, number in processes() if number == leader]


def processes() -> Iterator[tuple[int, int, int]]:
    """Id, parent and session of every living process."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            facts = folder.joinpath("stat").read_text().rpartition(")")[2].split()
            if facts[0] != "Z":
                yield int(folder.name), int(facts[1]), int(facts[3])


def assert_ended(folder: Path) -> None:
    pids = [int(path.name) for path in folder.iterdir()]
    assert pids
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


def wait_for(condition, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
