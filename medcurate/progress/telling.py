"""Events and progress, told in the chosen form."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal, get_args

from medcurate.errors import ConfigError
from medcurate.progress.meter import Meter
from medcurate.progress.screen import SCREEN, Show
from medcurate.progress.text import State, json_line, plain_line

LogFormat = Literal["auto", "plain", "json"]

LINE_SECONDS = 5.0  # at most one progress line in this time

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
    """Tell one thing that happened: ``event: name value, name value``, or the same as one JSON object.

    A ``note`` and the reason ``why`` are sentences and go without their names, but in JSON.
    """
    if _log_format == "json":
        _write(json.dumps({"event": event, **fields}, ensure_ascii=False, default=str))
    else:
        told = ", ".join(
            str(value) if name in {"note", "why"} else f"{name} {value}" for name, value in fields.items()
        )
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


def _display(title: str) -> AbstractContextManager[tuple[Show, float]]:
    """How to show states, and how often, in seconds."""
    if _log_format == "json":
        return nullcontext((lambda state: _write(json_line(state)), LINE_SECONDS))
    if _log_format == "plain" or not sys.stderr.isatty():
        return nullcontext((lambda state: _write(plain_line(state)), LINE_SECONDS))
    return SCREEN.bar(title)


def _write(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
