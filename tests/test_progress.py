"""Rates, remaining times and lines, with a clock that the tests turn; and a bar on a real pseudo-terminal."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medcurate import progress as telling
from medcurate.errors import ConfigError
from medcurate.progress import HORIZON_SECONDS, Meter, Progress, State, duration_text, json_line, plain_line


@pytest.fixture(autouse=True)
def _automatic_again():
    yield
    telling.configure("auto")


def test_a_steady_rate_is_found_from_the_start_and_kept():
    meter = Meter(1000, done=0, now=50.0)
    for second in range(1, 301):
        meter.advance(2, 50.0 + second)
        assert meter.rate(50.0 + second) == pytest.approx(2.0)
        assert meter.eta_s(50.0 + second) == pytest.approx((1000 - 2 * second) / 2)


def test_a_new_speed_takes_over_within_some_horizons():
    meter = Meter(None, done=0, now=0)
    for second in range(1, 601):
        meter.advance(10, second)
    for second in range(601, 601 + int(5 * HORIZON_SECONDS)):
        meter.advance(1, second)
    assert meter.rate(600 + 5 * HORIZON_SECONDS) == pytest.approx(1.0, rel=0.1)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=20))
def test_bundles_of_steady_work_have_the_same_rate(bundles):
    smooth, bundled = Meter(None, done=0, now=0), Meter(None, done=0, now=0)
    now = 0
    for size in bundles:
        for _ in range(size):
            now += 1
            smooth.advance(1, now)
        bundled.advance(size, now)
    assert smooth.done == bundled.done == sum(bundles)
    if now >= 2:
        assert bundled.rate(now) == pytest.approx(smooth.rate(now), rel=1e-6)


def test_what_earlier_runs_did_counts_as_done_but_not_as_speed():
    meter = Meter(1000, done=900, now=0)
    meter.advance(10, 10)
    assert meter.done == 910
    assert meter.rate(10) == pytest.approx(1.0)
    assert meter.eta_s(10) == pytest.approx(90)


def test_a_stall_lowers_the_rate():
    meter = Meter(1000, done=0, now=0)
    meter.advance(100, 10)
    rates = [meter.rate(now) for now in (10, 20, 100, 1000)]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 1e-3


@pytest.mark.parametrize("stall_s", [3600, 12 * 3600, 30 * 86400])
def test_of_a_standstill_no_remaining_time_is_told(stall_s):
    """As of a command that was suspended for a night and is then ended."""
    meter = Meter(1000, done=0, now=0)
    meter.advance(100, 10)
    now = 10 + stall_s
    state = State("cases", "cases", meter.done, 1000, meter.rate(now), meter.eta_s(now))
    assert "left" not in plain_line(state)
    assert json.loads(json_line(state))["eta_s"] is None


def test_no_rate_is_told_without_evidence():
    meter = Meter(10, done=0, now=0)
    assert meter.rate(100) is None
    assert meter.eta_s(100) is None
    meter = Meter(10, done=0, now=0)
    meter.advance(1, 0.001)
    assert meter.rate(0.001) is None
    assert Meter(None, done=0, now=0).eta_s(5) is None
    assert Meter(0, done=0, now=0).eta_s(5) == 0
    meter = Meter(10, done=0, now=5)
    meter.advance(3, 4)  # a clock that went back does no harm
    assert meter.done == 3


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_states_are_shown_seldom_and_at_the_end():
    clock, shown = Clock(), []
    state = Progress("t", "cases", Meter(100, done=0, now=0), shown.append, every_seconds=5, clock=clock)
    for number in range(100):
        clock.now = number * 0.3
        state.advance()
    state.finish()
    assert [entry.done for entry in shown] == [18, 35, 52, 69, 86, 100]


def test_counting_from_threads_loses_nothing():
    shown = []
    state = Progress("t", "B", Meter(None, done=0, now=0), shown.append, every_seconds=1e9, clock=Clock())
    threads = [threading.Thread(target=lambda: [state.advance(3) for _ in range(2000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    state.finish()
    assert shown[-1].done == 24_000


@pytest.mark.parametrize(
    ("state", "line"),
    [
        (
            State("build", "cases", 120, 400, 2.41, 116.6),
            "build: 120/400 cases (30 %), 2.4 cases/s, 1 min 57 s left",
        ),
        (State("build", "cases", 0, 4000, None, None), "build: 0/4,000 cases (0 %)"),
        (State("build", "cases", 399, 400, 99.6, 0.2), "build: 399/400 cases (99 %), 100 cases/s, 0 s left"),
        (State("build", "cases", 400, 400, 0.012, 0.0), "build: 400/400 cases (100 %), 0.012 cases/s"),
        (State("x", "files", 7, None, 3.0, None), "x: 7 files, 3 files/s"),
        (State("x", "files", 0, 0, None, 0.0), "x: 0/0 files"),
        (
            State("a.zip", "B", 1_250_000, 3_400_000_000, 999.0, 4e5),
            "a.zip: 1.2 MB of 3.4 GB (0 %), 999 B/s, 4 d 15 h left",
        ),
    ],
)  # fmt: skip
def test_plain_lines(state, line):
    assert plain_line(state) == line


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.6, "1 min 00 s"), (130, "2 min 10 s"), (3900, "1 h 05 min"), (90_000, "1 d 1 h")],
)
def test_durations(seconds, text):
    assert duration_text(seconds) == text


def test_json_lines():
    assert json.loads(json_line(State("build", "cases", 1, None, None, None))) == {
        "event": "progress",
        "title": "build",
        "done": 1,
        "total": None,
        "unit": "cases",
        "rate": None,
        "eta_s": None,
    }
    assert json.loads(json_line(State("é", "B", 1, 10, 2.34567, 3.84)))["rate"] == 2.346


def test_everything_is_told_in_the_chosen_form_on_stderr(capsys, tmp_path):
    def tell():
        with telling.progress("verify", 2, "shards", done=1) as state:
            telling.emit("rebuild", file=tmp_path / "a.tar", why="missing")
            state.advance()
        captured = capsys.readouterr()
        assert captured.out == ""
        return captured.err.splitlines()

    assert tell() == [f"rebuild: file {tmp_path}/a.tar, missing", "verify: 2/2 shards (100 %)"]
    telling.configure("json")
    first, last = map(json.loads, tell())
    assert first == {"event": "rebuild", "file": f"{tmp_path}/a.tar", "why": "missing"}
    assert last["event"], (last["done"], last["total"]) == ("progress", (2, 2))


def test_a_note_is_told_as_a_sentence(capsys):
    telling.emit("overlap", note="a contains b")
    telling.emit("licence", source="a", note="unresolved")
    assert capsys.readouterr().err == "overlap: a contains b\nlicence: source a, unresolved\n"
    telling.configure("json")
    telling.emit("overlap", note="a contains b")
    assert json.loads(capsys.readouterr().err) == {"event": "overlap", "note": "a contains b"}


def test_the_last_state_is_told_when_the_body_fails(capsys):
    def body():
        with telling.progress("build", 9, "cases") as state:
            state.advance(4)
            raise KeyError

    with pytest.raises(KeyError):
        body()
    assert capsys.readouterr().err == "build: 4/9 cases (44 %)\n"


def test_unknown_forms_are_refused():
    with pytest.raises(ConfigError, match='"xml" is unknown; known: auto, plain, json'):
        telling.configure("xml")


SCRIPT = """
import sys
from medcurate import progress as telling
telling.configure(sys.argv[1])
with telling.progress("outer [1]", 4, "cases") as outer:
    outer.advance(2)
    with telling.progress("inner", 10, "files") as inner:
        inner.advance(10)
        telling.emit("note", text="[bold]kept[/bold]")
    outer.advance(2)
print("rich" in sys.modules)
"""


def run_on_terminal(log_format):
    """What the script writes to stdout, and what it writes to a pseudo-terminal as stderr."""
    ours, theirs = pty.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, log_format],
            stdout=subprocess.PIPE,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
            text=True,
            check=True,
            timeout=60,
        )
        return done.stdout.strip(), os.read(ours, 1 << 16).decode()
    finally:
        os.close(ours)
        os.close(theirs)


def test_a_terminal_gets_bars_that_nest_and_notes_between_them():
    rich_loaded, seen = run_on_terminal("auto")
    assert rich_loaded == "True"
    assert "outer [1]" in seen
    assert "4/4 cases (100 %)" in seen
    assert "note: text [bold]kept[/bold]" in seen
    assert "\x1b[" in seen


@pytest.mark.parametrize("log_format", ["plain", "json"])
def test_a_terminal_gets_lines_when_asked_for(log_format):
    rich_loaded, seen = run_on_terminal(log_format)
    assert rich_loaded == "False"
    assert "\x1b[" not in seen
    assert len(seen.splitlines()) == 3
