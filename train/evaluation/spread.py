"""Tasks shared by processes of this machine: whoever is free takes the next one.

Each process keeps a model between its tasks, which the engines' workers do not; ``concurrent.futures`` waits for what
runs when it is interrupted, and hides why a process could not begin behind a broken pool.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from medcurate.errors import MedcurateError

Task = TypeVar("Task")
Result = TypeVar("Result")
Do = Callable[[Task], Result]


class ProcessDied(MedcurateError):
    """A process that shared the work is gone."""


def spread(do: Do[Task, Result], tasks: Iterable[Task], processes: int) -> Iterator[Result]:
    """Results of ``do`` of all ``tasks``, as they are finished, by at most as many ``processes`` as there are tasks.

    ``do``, tasks and results can be pickled. Raises what a task raised; the other processes are ended then, so a task
    has to commit what it makes.
    """
    return spread_begun(partial(_same, do), tasks, processes)


def spread_begun(
    begin: Callable[[int], Do[Task, Result]], tasks: Iterable[Task], processes: int
) -> Iterator[Result]:
    """The same where what is to be done cannot be sent: process number n makes it as ``begin(n)``, with its first task.

    One process is this one, with number 0.
    """
    if processes <= 1:
        do = None
        for task in tasks:
            do = do or begin(0)
            yield do(task)
        return
    context = multiprocessing.get_context("spawn")
    links: dict[Connection, Any] = {}
    try:
        for number in range(processes):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_serve, args=(theirs, partial(begin, number)), name="medcurate-evaluate"
            )
            process.start()
            theirs.close()
            links[ours] = process
        yield from _results(links, iter(tasks))
    finally:
        for link, process in links.items():
            process.kill()
            process.join()
            link.close()


def _same(do: Do[Task, Result], number: int) -> Do[Task, Result]:
    return do


def _results(links: dict[Connection, Any], left: Iterator[Any]) -> Iterator[Any]:
    busy = [link for link, task in zip(links, left, strict=False) if _sent(link, task)]
    while busy:
        for link in wait(busy):
            assert isinstance(link, Connection)
            value, error = _received(link, links[link])
            if error:
                raise error
            task = next(left, None)
            if task is None:
                busy.remove(link)
            else:
                _sent(link, task)
            yield value


def _sent(link: Connection, task: object) -> bool:
    with suppress(BrokenPipeError):  # that the other end is gone shows when its answer is waited for
        link.send(task)
    return True


def _received(link: Connection, process: Any) -> tuple[Any, MedcurateError | None]:
    try:
        value, error = link.recv()
    except (EOFError, ConnectionResetError) as gone:
        process.join()
        raise ProcessDied(
            f"a process of the evaluation ended with exit code {process.exitcode} (a negative one is a signal; -9 "
            "often means that memory ran out). Run the same command again, with fewer --processes if it happens again: "
            "it continues."
        ) from gone
    return value, error


def _serve(link: Connection, start: Callable[[], Do[Any, Any]]) -> None:
    """Do tasks until the parent closes its end or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal signals all; the parent ends its children
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        do = None
        while True:
            task = link.recv()
            try:
                do = do or start()
                answer: tuple[Any, MedcurateError | None] = (do(task), None)
            except MedcurateError as error:
                answer = (None, error)
            link.send(answer)
