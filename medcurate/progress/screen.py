"""Bars on a terminal."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from medcurate.progress.text import State, figures

if TYPE_CHECKING:
    import rich.progress

Show = Callable[[State], None]

BAR_SECONDS = 0.1


class Screen:
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


SCREEN = Screen()


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
