"""The figures of a run: gathered batch by batch on every rank, summed over ranks and told by the leader."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Mapping, Sequence

import torch

from medcurate.progress import Progress, amount_text
from medcurate.train.loop.accumulate import Terms
from medcurate.train.loop.logs import Logs
from medcurate.train.loop.session import Session


class Figures:
    """Loss terms and times since they were told last, of this rank."""

    def __init__(self) -> None:
        self.clock = Clock()
        self._terms: list[Terms] = []

    def add(self, steps: Sequence[Terms], samples: int) -> None:
        """A batch is done: of ``samples`` images on all ranks, in ``steps``, this rank's terms of each."""
        self.clock.worked(samples)
        self._terms.append(_mean(steps))

    def means(self, session: Session) -> dict[str, float]:
        """The mean of every term, over all ranks, of the batches since the last call, at least one. Raises PeerLost."""
        names = sorted({name for terms in self._terms for name in terms})
        sums = torch.stack([
            sum((t[name] for t in self._terms if name in t), torch.zeros((), device=session.world.device))
            for name in names
        ])
        count, self._terms = len(self._terms), []
        return {name: float(value) / count for name, value in zip(names, session.summed(sums), strict=True)}

    def tell(self, logs: Logs, shown: Progress, session: Session, means: Mapping[str, float]) -> None:
        """Show ``means`` with the times and the memory of this process, and log them."""
        clock = self.clock.figures()
        wait, memory = clock["data_wait_percent"], memory_bytes(session.world.device)
        shown.note(
            f"loss {means['loss']:.4f}, data wait {wait:.1f} %, memory {amount_text(memory, 'B')}",
            loss=means["loss"],
            data_wait_percent=wait,
            memory_bytes=memory,
        )
        eta_s = shown.eta_s()
        left = {} if eta_s is None else {"eta_s": round(eta_s, 1)}
        state = {
            "lr": session.optimiser.param_groups[0]["lr"],
            "skipped": session.state.skipped,
            "memory_bytes": memory,
        }
        logs.figures(session.state.batches, {**means, **clock, **left, **state})


def _mean(steps: Sequence[Terms]) -> Terms:
    """The mean of every term over the optimiser steps of a batch."""
    names = {name for terms in steps for name in terms}
    return {name: torch.stack([terms[name] for terms in steps if name in terms]).mean() for name in names}


class Clock:
    """Where a run's time goes: images a second, and the share of time that waiting for data takes."""

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self._started = self._mark = now()
        self._waited_s = 0.0
        self._images = 0

    def asked(self) -> None:
        """What follows is waiting for data; what was before it (a checkpoint, say) is not."""
        self._mark = self._now()

    def waited(self) -> None:
        """Everything since ``asked`` was waiting for data."""
        self._waited_s += self._now() - self._mark

    def worked(self, images: int) -> None:
        """A batch of ``images`` is done."""
        self._images += images

    def figures(self) -> dict[str, float]:
        """``images_per_s`` and ``data_wait_percent`` since the last call."""
        elapsed = max(self._now() - self._started, 1e-9)
        figures = {
            "images_per_s": round(self._images / elapsed, 3),
            "data_wait_percent": round(100 * self._waited_s / elapsed, 3),
        }
        self._started, self._waited_s, self._images = self._now(), 0.0, 0
        return figures


def memory_bytes(device: torch.device) -> int:
    """Peak memory: of the GPU's allocator, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
