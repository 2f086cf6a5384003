"""What a running command tells, on stderr: a bar on a terminal, lines elsewhere, JSON lines for machines."""

from __future__ import annotations

import json
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

from medcurate.errors import ConfigError

if TYPE_CHECKING:
    import rich.progress

LogFormat = Literal["auto", "plain", "json"]

LINE_SECONDS = 5.0  # at most one progress line in this time
BAR_SECONDS = 0.1
HORIZON_SECONDS = 60.0  # what happened this long ago weighs 1/e in the rate
FIRST_RATE_SECONDS = 1.0  # no rate is told from less

_log_format: LogFormat = "auto"


def configure(log_format: str) -> None:
    """Choose how everything is told from now on: "auto", "plain" or "json". Raises ConfigError for others."""
    global _log_format
    for known in get_args(LogFormat):
        if log_format == known:
            _log_format = known
            return
    raise ConfigError(f'--log-format "{log_format}" is unknown; known: {", ".join(get_args(LogFormat))}')


def emit(event: str, **fields: object) -> None:
    """Tell one thing that happened: ``event: name value, name value``, or the same as one JSON object."""
    if _log_format == "json":
        _write(json.dumps({"event": event, **fields}, ensure_ascii=False, default=str))
    else:
        told = ", ".join(f"{name} {value}" for name, value in fields.items())
        _write(f"{event}: {told}" if told else event)


@contextmanager
def progress(title: str, total: int | None, unit: str, *, done: int = 0) -> Iterator[Progress]:
    """Tell how far the body is; it calls ``advance``, from any thread.

    ``total``: None where it is not known. ``unit``: what is counted, in the plural ("cases"), or "B" for
    bytes. ``done``: what an earlier run has done already; it does not count towards the rate.
    """
    meter = Meter(total, done=done, now=time.monotonic())
    with _display(title) as (show, seconds):
        state = Progress(title, unit, meter, show, every_seconds=seconds, clock=time.monotonic)
        try:
            yield state
        finally:
            state.finish()


class Meter:
    """How much is done, how fast, and how long the rest takes. Pure: the time comes with every call.

    The rate is the amount over the time, both weighted by exp(-age / HORIZON_SECONDS): the mean at first,
    the same for single pieces and for bundles of them, and falling while nothing comes.
    """

    def __init__(self, total: int | None, *, done: int, now: float) -> None:
        self.total = total
        self.done = done
        self._started = self._last = now
        self._weighted_amount = 0.0
        self._weighted_seconds = 0.0

    def advance(self, amount: int, now: float) -> None:
        """Count ``amount`` more as done at ``now`` (s, of any clock that never goes back)."""
        fading, elapsed = self._faded(now)
        seconds = max(0.0, now - self._last)
        # It was done little by little since the last call, not at once now.
        self._weighted_amount = self._weighted_amount * fading + amount * (
            elapsed / seconds if seconds else 1
        )
        self._weighted_seconds = self._weighted_seconds * fading + elapsed
        self._last += seconds
        self.done += amount

    def rate(self, now: float) -> float | None:
        """Amount per second; None before anything is done or too early to say."""
        if now - self._started < FIRST_RATE_SECONDS or self._weighted_amount <= 0:
            return None
        fading, elapsed = self._faded(now)
        return self._weighted_amount * fading / (self._weighted_seconds * fading + elapsed)

    def eta_s(self, now: float) -> float | None:
        """Seconds that the rest takes at this rate; None where the total or the rate is not known."""
        if self.total is None:
            return None
        if self.done >= self.total:
            return 0.0
        rate = self.rate(now)
        return (self.total - self.done) / rate if rate else None

    def _faded(self, now: float) -> tuple[float, float]:
        """What the past still weighs at ``now``, and the weighted length of the time since the last call."""
        fading = math.exp(-max(0.0, now - self._last) / HORIZON_SECONDS)
        return fading, HORIZON_SECONDS * (1 - fading)


@dataclass(frozen=True, slots=True)
class State:
    """What there is to tell at one moment; ``rate`` in units per second.

    ``note``: more about the work, for people; ``figures``: the same for machines.
    """

    title: str
    unit: str
    done: int
    total: int | None
    rate: float | None
    eta_s: float | None
    note: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)


Show = Callable[[State], None]


class Progress:
    """Counts, and shows the state at most once in ``every_seconds`` and once at the end."""

    def __init__(
        self,
        title: str,
        unit: str,
        meter: Meter,
        show: Show,
        *,
        every_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self._title = title
        self._unit = unit
        self._meter = meter
        self._show = show
        self._every_seconds = every_seconds
        self._clock = clock
        self._shown = clock()
        self._note = ""
        self._figures: Mapping[str, float] = {}
        self._lock = threading.Lock()

    def advance(self, amount: int = 1) -> None:
        """Count ``amount`` more as done."""
        with self._lock:
            now = self._clock()
            self._meter.advance(amount, now)
            if now - self._shown >= self._every_seconds:
                self._shown = now
                self._show(self._state(now))

    def expect(self, amount: int) -> None:
        """Add ``amount`` to the total, where it turns out only on the way how much there is."""
        with self._lock:
            self._meter.total = (self._meter.total or 0) + amount

    def note(self, text: str, **figures: float) -> None:
        """From now on, show ``text`` too, and ``figures`` in JSON lines."""
        with self._lock:
            self._note, self._figures = text, figures

    def eta_s(self) -> float | None:
        """Seconds that the rest takes; None where that is not known yet."""
        with self._lock:
            return self._meter.eta_s(self._clock())

    def finish(self) -> None:
        """Show the last state."""
        with self._lock:
            self._show(self._state(self._clock()))

    def _state(self, now: float) -> State:
        meter = self._meter
        return State(
            self._title,
            self._unit,
            meter.done,
            meter.total,
            meter.rate(now),
            meter.eta_s(now),
            self._note,
            self._figures,
        )


def json_line(state: State) -> str:
    """``state`` as one JSON object; an unknown total, rate or eta_s is null."""
    fields = {
        "event": "progress",
        "title": state.title,
        "done": state.done,
        "total": state.total,
        "unit": state.unit,
        "rate": None if state.rate is None else round(state.rate, 3),
        "eta_s": None if state.eta_s is None else round(state.eta_s, 1),
        **state.figures,
    }
    return json.dumps(fields, ensure_ascii=False)


def plain_line(state: State) -> str:
    """``state`` for people: ``title: 120/400 cases (30 %), 2.4 cases/s, 1 min 57 s left``."""
    note = f", {state.note}" if state.note else ""
    return f"{state.title}: {figures(state)}{note}"


def figures(state: State) -> str:
    """The numbers of ``plain_line``."""
    if state.total is None:
        parts = [amount_text(state.done, state.unit)]
    else:
        of_total = _of_total(state.done, state.total, state.unit)
        parts = [f"{of_total} ({100 * state.done // state.total} %)" if state.total else of_total]
    if state.rate is not None:
        parts.append(f"{amount_text(state.rate, state.unit)}/s")
    if state.eta_s:
        parts.append(f"{duration_text(state.eta_s)} left")
    return ", ".join(parts)


def amount_text(amount: float, unit: str) -> str:
    """``amount`` with its unit; bytes ("B") in decimal multiples."""
    if unit == "B":
        for prefix in ("", "k", "M", "G", "T"):
            if amount < 1000 or prefix == "T":
                break
            amount /= 1000
        return f"{amount:.1f} {prefix}B" if prefix else f"{amount:.0f} B"
    return f"{amount:,.0f} {unit}" if amount >= 10 or amount == int(amount) else f"{amount:.2g} {unit}"


def duration_text(seconds: float) -> str:
    """``seconds`` in its two largest parts: 45 s, 2 min 10 s, 1 h 05 min, 3 d 4 h."""
    whole = round(seconds)
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days} d {hour} h"
    if hours:
        return f"{hours} h {minute:02d} min"
    return f"{minutes} min {second:02d} s" if minutes else f"{second} s"


def _of_total(done: int, total: int, unit: str) -> str:
    if unit == "B":
        return f"{amount_text(done, unit)} of {amount_text(total, unit)}"
    return f"{done:,}/{total:,} {unit}"


def _write(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _display(title: str) -> AbstractContextManager[tuple[Show, float]]:
    """How to show states, and how often, in seconds."""
    if _log_format == "json":
        return nullcontext((lambda state: _write(json_line(state)), LINE_SECONDS))
    if _log_format == "plain" or not sys.stderr.isatty():
        return nullcontext((lambda state: _write(plain_line(state)), LINE_SECONDS))
    return _SCREEN.bar(title)


class _Screen:
    """The terminal's one rich display: rich cannot show two at a time, so all bars share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bars: rich.progress.Progress | None = None
        self._open = 0

    @contextmanager
    def bar(self, title: str) -> Iterator[tuple[Show, float]]:
        """A bar for the time of the body. It stays on the screen unless others go on around it."""
        bars = self._enter()
        task = bars.add_task(title, total=None, figures="")

        def show(state: State) -> None:
            note = f"\n{state.note}" if state.note else ""  # a line of its own: terminals are narrow
            bars.update(task, total=state.total, completed=state.done, figures=figures(state) + note)

        try:
            yield show, BAR_SECONDS
        finally:
            self._leave(bars, task)

    def _enter(self) -> rich.progress.Progress:
        with self._lock:
            self._open += 1
            if self._bars is None:
                self._bars = _rich_display()
                self._bars.start()
            return self._bars

    def _leave(self, bars: rich.progress.Progress, task: rich.progress.TaskID) -> None:
        with self._lock:
            self._open -= 1
            if self._open:
                bars.remove_task(task)
            else:
                self._bars = None
                bars.stop()


_SCREEN = _Screen()


def _rich_display() -> rich.progress.Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[figures]}", markup=False),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )
