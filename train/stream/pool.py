"""Worker processes that fill batches in shared memory, each its own rows of every batch.

A rank's batch is a slot of one shared buffer. The stream hands out a slot by its number; every worker knows
by arithmetic which samples come next, fills its rows and answers. So nothing but small JSON messages is sent,
a batch is ready when its slowest rows are, and memory is what the slots hold. Works with fork and spawn.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import multiprocessing
import os
import signal
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from typing import Any, Literal

import cv2
import numpy as np

from medcurate.errors import MedcurateError
from medcurate.storage import StorageError
from medcurate.train.stream.making import FRAME_FIELDS, BatchArrays, Made, Maker, Task
from medcurate.train.stream.reading import BadSampleError

StartMethod = Literal["fork", "spawn"]
_POLL_SECONDS = 5.0  # after which a waiting worker looks whether its parent is still there
_ERRORS: dict[str, type[MedcurateError]] = {error.__name__: error for error in (BadSampleError, StorageError)}


class WorkerError(MedcurateError):
    """A worker of the stream died or failed for a reason of its own."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Shape of a rank's batch: ``rows`` images with ``masks`` masks each.

    ``side``: of a mask, pixels; ``image_side``: of an image, the same or 0.
    """

    rows: int
    masks: int
    side: int
    image_side: int

    @property
    def slot_bytes(self) -> int:
        """Bytes of one batch, rounded up to whole cache lines."""
        pixels = 3 * self.image_side**2 + self.masks * self.side**2
        used = self.rows * (8 * self.masks + 4 * FRAME_FIELDS + pixels + self.masks)
        return used + -used % 64

    def arrays(self, buffer: Any, slot: int = 0) -> BatchArrays:
        """Views of slot number ``slot`` of ``buffer``; whole numbers first, for their alignment."""
        rows, masks, side, image_side = self.rows, self.masks, self.side, self.image_side
        shapes = (
            (rows, masks),
            (rows, FRAME_FIELDS),
            (rows, 3, image_side, image_side),
            (rows, masks, side, side),
        )
        views: list[Any] = []
        offset = slot * self.slot_bytes
        for dtype, shape in zip(("i8", "i4", "u1", "?", "?"), (*shapes, (rows, masks)), strict=True):
            views.append(np.ndarray(shape, dtype, buffer, offset))
            offset += views[-1].nbytes
        annotations, frames, images, pixels, valid = views
        return BatchArrays(images, pixels, valid, annotations, frames)


class Pool:
    """``workers`` processes that make the batches of ``task`` ahead of their use, in ``slots`` slots."""

    def __init__(
        self, task: Task, layout: Layout, *, workers: int, slots: int, start_method: StartMethod
    ) -> None:
        context = multiprocessing.get_context(start_method)
        self._buffer = context.RawArray("B", slots * layout.slot_bytes)
        self._layout, self._slots = layout, slots
        self._links: list[Connection] = []
        self._processes: list[Any] = []
        self._asked = self._taken = 0
        atexit.register(self.close)  # before multiprocessing's own, which would wait for workers for ever
        try:
            with _forkable():
                for worker in range(workers):
                    self._start(context, (task, layout, self._buffer, worker, workers))
            while self._asked < slots:
                self._ask()
        except BaseException:
            self.close()
            raise

    def next(self) -> tuple[BatchArrays, list[Made]]:
        """The next batch, in a slot that the workers get back by ``release``, and what they say of it.

        Raises BadSampleError, StorageError, or WorkerError when a worker died.
        """
        messages = [self._receive(number) for number in range(len(self._links))]
        return self._layout.arrays(self._buffer, self._taken % self._slots), messages

    def release(self) -> None:
        """Give back the slot that ``next`` gave."""
        self._taken += 1
        self._ask()

    def close(self) -> None:
        """End all workers at once: they hold nothing that a kill could leave half done."""
        atexit.unregister(self.close)
        for process in self._processes:
            process.kill()
        for process, link in zip(self._processes, self._links, strict=True):
            process.join()
            link.close()
        self._links, self._processes = [], []

    def _start(self, context: BaseContext, arguments: tuple[Any, ...]) -> None:
        ours, theirs = context.Pipe()
        process = context.Process(  # type: ignore[attr-defined]  # every context has it; its base class does not say so
            target=_serve, args=(theirs, ours, os.getpid(), *arguments), daemon=True, name="medcurate-stream"
        )
        process.start()
        self._links.append(ours)
        self._processes.append(process)
        theirs.close()

    def _ask(self) -> None:
        slot = self._asked % self._slots
        self._asked += 1
        for link in self._links:
            with contextlib.suppress(BrokenPipeError):  # a dead worker is reported by ``_receive``
                link.send_bytes(str(slot).encode())

    def _receive(self, number: int) -> Made:
        link, process = self._links[number], self._processes[number]
        wait([link, process.sentinel])
        try:
            message = json.loads(link.recv_bytes())
        except (EOFError, ConnectionResetError) as error:
            process.join()
            raise WorkerError(
                f"a worker of the stream ended with exit code {process.exitcode} (a negative one is a signal; "
                "-9 often means that memory ran out). Resume from the last checkpoint, with fewer workers if "
                "it happens again."
            ) from error
        if "error" in message:
            raise _ERRORS.get(message["error"], WorkerError)(message["text"])
        return Made(**message)


def _serve(theirs: Connection, ours: Connection, parent: int, *arguments: Any) -> None:
    """A worker's life: fill one slot after another until the parent closes its end."""
    ours.close()
    for number in (signal.SIGINT, signal.SIGTERM):
        # Terminals and schedulers signal all processes of a job; only the parent knows what is to be saved first.
        signal.signal(number, signal.SIG_IGN)
    cv2.setNumThreads(1)
    task, layout, buffer, worker, workers = arguments
    maker = Maker(task, worker, workers)
    try:
        for slot in _asked(theirs, parent):
            theirs.send_bytes(json.dumps(asdict(maker.fill(layout.arrays(buffer, slot)))).encode())
    except (BrokenPipeError, ConnectionResetError):
        return  # the parent is gone
    except MedcurateError as error:
        _tell(theirs, type(error).__name__, str(error))
    except Exception:
        _tell(theirs, "Exception", f"a worker of the stream failed:\n{traceback.format_exc()}")
    finally:
        maker.close()


def _tell(link: Connection, kind: str, text: str) -> None:
    with contextlib.suppress(BrokenPipeError):
        link.send_bytes(json.dumps({"error": kind, "text": text}).encode())


def _asked(link: Connection, parent: int) -> Iterator[int]:
    """Slots to fill, until the parent closes the link or is gone (siblings may hold its end open)."""
    while True:
        while not link.poll(_POLL_SECONDS):
            if os.getppid() != parent:
                return
        try:
            yield int(link.recv_bytes())
        except (EOFError, ConnectionResetError):
            return


@contextlib.contextmanager
def _forkable() -> Iterator[None]:
    """OpenCV's threads must not be alive over a fork: the child would wait for them for ever."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)
